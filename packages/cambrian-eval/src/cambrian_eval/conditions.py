"""How a task is asked: everything a user may choose that changes a prompt, a reply or how it is read."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from cambrian_eval.errors import DataError, ModelError
from cambrian_eval.types import Mode, PromptForm, Scoring

if TYPE_CHECKING:
    from cambrian_eval.task import Task

MAX_LISTED_IDS = 40


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a run asks of a task, beside the task itself. Two runs compare only where these are equal.

    Attributes:
        split: Of the data; None for the task's first one.
        limit: Ask only so many questions, in proportion to part, task and source.
        ids: Ask only these questions; see `selection.pick_questions`.
        seed: Decides which questions a limit keeps, which pictures are exchanged and in which orders options stand.
        mode: What pictures the model sees.
        prompt: What stands after the question.
        scoring: Whether replies or likelihoods of letters are read.
        permute: Ask multiple-choice questions in so many orders of their options; 0 for the published one alone.
        compat: Another tool, whose prompt, parser and metrics take the place of the task's.
        max_new_tokens: Cap on the budget of a reply.
        verify_batching: Ask so many prompts alone too, before the run, and compare.
    """

    split: str | None = None
    limit: int | None = None
    ids: tuple[str, ...] | None = None
    seed: int = 0
    mode: Mode = "normal"
    prompt: PromptForm = "direct"
    scoring: Scoring = "generate"
    permute: int = 0
    compat: str | None = None
    max_new_tokens: int | None = None
    verify_batching: int = 0

    def checked(self, task: Task) -> Conditions:
        """The same with the split named.

        Raises:
            DataError: A value that there is not, or two that do not go together.
            ModelError: A cap that leaves no reply.
        """
        _one_of("mode", self.mode, get_args(Mode))
        _one_of("prompt form", self.prompt, get_args(PromptForm))
        _one_of("scoring", self.scoring, get_args(Scoring))
        _one_of(f"split of {task.name}", self.split or task.splits[0], task.splits)
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ModelError(f"found a cap of {self.max_new_tokens} new tokens, expected at least 1.")
        if self.permute < 0 or self.permute == 1:
            raise DataError(f"found permute {self.permute}, expected 0 (off) or at least 2 orders of the options.")
        if self.verify_batching < 0:
            raise DataError(f"found verify_batching {self.verify_batching}, expected 0 (off) or a number of prompts.")
        if self.compat is not None and (self.prompt != "direct" or self.scoring != "generate"):
            raise DataError(
                f"compat {self.compat} asks with that tool's prompt and reads replies with its parser; leave prompt "
                "and scoring as they are, or leave compat out."
            )
        if self.scoring == "logits" and self.prompt == "cot":
            raise DataError("scoring logits reads the first token, before any thought; use prompt direct or bare.")
        return dataclasses.replace(self, split=self.split or task.splits[0])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; long lists of ids as their number and hash."""
        return {**dataclasses.asdict(self), "ids": _describe_ids(self.ids)}


def _one_of(name: str, found: str, known: tuple[str, ...]) -> None:
    if found not in known:
        listed = ", ".join(known[:-1]) + (" or " if len(known) > 1 else "") + known[-1]
        raise DataError(f'found {name} "{found}", expected {listed}.')


def _describe_ids(ids: tuple[str, ...] | None) -> str | None:
    if ids is None or len(ids) <= MAX_LISTED_IDS:
        return None if ids is None else ",".join(ids)
    return f"{len(ids)} items, sha256 {hashlib.sha256(','.join(ids).encode()).hexdigest()}"
