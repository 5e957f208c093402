"""All processes of a run that do something together, beside the training: an error on one is an error on all."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from cambrian_model.errors import TrainingError
from cambrian_model.training.distributed import PATIENCE, gather_texts, num_ranks, rank


class Task(NamedTuple):
    """What ranks do together, for messages: what went wrong if it fails, and what to do then."""

    what: str
    advice: str


class Ranks:
    """All processes of the run; those who save talk over groups of their own, on the CPU, beside the training."""

    def __init__(self) -> None:
        self.rank, self.count = rank(), num_ranks()
        # One for the thread that saves, one for the main thread: two threads must not use a group at the same time.
        self._saving = _new_group() if self.count > 1 else None
        self._main = _new_group() if self.count > 1 else None

    def all_agree(self, holds: bool) -> bool:
        """Tells whether something holds on every rank; for the main thread."""
        if self.count == 1:
            return holds
        flag = torch.tensor(int(holds))
        with _answering():
            dist.all_reduce(flag, op=dist.ReduceOp.MIN, group=self._main)
        return bool(flag)

    def together(self, task: Task, work: Callable[[], Any]) -> list[Any]:
        """Does work on every rank and returns what each came to (JSON); for the thread that saves, or while none does.

        Raises:
            TrainingError: It failed on a rank, says why; raised on all, so that none waits for it forever.
        """
        failure: Exception | None = None
        try:
            reply = {"result": work()}
        except Exception as error:  # noqa: BLE001 - raised below, once the other ranks know of it
            failure = error
            reply = {"failure": str(error) or type(error).__name__, "is_said": isinstance(error, TrainingError)}
        replies = [json.loads(text) for text in self._exchange(json.dumps(reply))]
        for number, reply in enumerate(replies):
            if "failure" in reply:
                raise TrainingError(self._say(task, number, **reply)) from failure
        return [reply["result"] for reply in replies]

    def _say(self, task: Task, number: int, failure: str, is_said: bool) -> str:
        where = f" on rank {number}" if self.count > 1 else ""
        return failure if is_said else f"{task.what}{where}: {failure}; {task.advice}"

    def _exchange(self, text: str) -> list[str]:
        with _answering():
            return gather_texts(text, torch.device("cpu"), self._saving)


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            f"another rank has ended, or no longer answers: {error}; see its messages, then continue with --resume"
        ) from error


def _new_group() -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(group, dist.ProcessGroup)
    return group
