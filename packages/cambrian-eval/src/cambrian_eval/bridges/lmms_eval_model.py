"""Any of our models inside lmms-eval, in whose environment this module is imported: `--model cambrian_toolkit`.

Messages are rendered batch by batch, so that the pictures of a whole task are never decoded at once. lmms-eval has no
word for a question that got no answer; rather than hand it a made-up text, the adapter raises.

Source: lmms-eval 0.7.3, `api/model.py` and `api/task.py` (the arguments of a chat request).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmms_eval.api.instance import GenerationResult, TokenCounts  # type: ignore[import-not-found]
from lmms_eval.api.model import lmms  # type: ignore[import-not-found]

from cambrian_eval.bridges.lmms_eval_request import cut, read_request
from cambrian_eval.errors import ModelError
from cambrian_eval.models import MODELS, load_model
from cambrian_eval.types import Answer, Failure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cambrian_eval.bridges.lmms_eval_request import Request


class CambrianToolkit(lmms):
    """Our models as a chat model of lmms-eval.

    Args:
        pretrained: A run, a checkpoint folder, or a model of ours by name, such as `openai:URL#MODEL`.
        batch_size: Prompts handed to the model at once.
        ignored: What lmms-eval always passes and this adapter has no use for: `device`, `max_batch_size`.

    Raises:
        ModelError: The model cannot be loaded, or an argument is not one of these.
    """

    is_simple = False

    def __init__(self, pretrained: str, batch_size: int | str = 1, **ignored: Any) -> None:
        super().__init__()
        unknown = sorted(set(ignored) - {"device", "max_batch_size"})
        if unknown:
            raise ModelError(f"cambrian_toolkit: found {', '.join(unknown)}, expected pretrained and batch_size.")
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise ModelError(f"cambrian_toolkit: found batch_size {batch_size!r}, expected a number from 1 on.")
        self.batch_size = int(batch_size)
        self.model = load_model(pretrained if _is_name(pretrained) else f"cambrian:{pretrained}")

    def generate_until(self, requests: Sequence[Any]) -> list[Any]:
        """One greedy reply for each request, in order, with its number of tokens where the model tells.

        Raises:
            ModelError: A request asks for something else than one greedy reply to one turn, several processes were
                started, or the model gave no answer.
        """
        if self.world_size > 1:
            raise ModelError("cambrian_toolkit runs in one process; use `cambrian eval --workers` for several devices.")
        starts = range(0, len(requests), self.batch_size)
        return [reply for start in starts for reply in self._answer(requests[start : start + self.batch_size])]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not offered.

        Raises:
            ModelError: Always.
        """
        raise ModelError("cambrian_toolkit answers generate_until tasks only; this task asks for likelihoods.")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not offered.

        Raises:
            ModelError: Always.
        """
        raise ModelError("cambrian_toolkit answers one turn; this task has several rounds.")

    def _answer(self, requests: Sequence[Any]) -> Iterator[Any]:
        batch = [self._read(request) for request in requests]
        for request, answer in zip(batch, self.model.answer([request.prompt for request in batch]), strict=True):
            if isinstance(answer, Failure):
                raise ModelError(f"{self.model.name}: no answer to {request.prompt.id}: {answer.reason}")
            given = Answer(answer) if isinstance(answer, str) else answer
            yield GenerationResult(cut(given.text, request.until), TokenCounts(output_tokens=given.reply_tokens))

    def _read(self, request: Any) -> Request:
        _, to_messages, settings, doc_id, task, split = request.args
        return read_request(f"{task}/{split}/{doc_id}", to_messages(self.task_dict[task][split][doc_id]), settings)


def _is_name(pretrained: str) -> bool:
    """Whether it is a model of ours by name; a folder of the same name is meant if there is one."""
    kind, colon, _ = pretrained.partition(":")
    return kind in MODELS.names() and (bool(colon) or not Path(pretrained).exists())
