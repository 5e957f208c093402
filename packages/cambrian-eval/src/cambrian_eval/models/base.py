"""What the runner asks of a model: one method, and a fingerprint by which its runs are told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian_eval.types import Answer, Failure, Prompt


class Model(Protocol):
    """Anything that answers prompts."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever an answer could: weights, processor, decoding. A run resumes only with the same one."""
        ...

    def answer(self, prompts: Sequence[Prompt]) -> Sequence[Answer | Failure | str]:
        """One answer for each prompt, in order. A prompt that could not be answered gets a Failure, not a text."""
        ...
