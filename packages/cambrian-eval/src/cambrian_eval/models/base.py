"""What the runner asks of a model: one method, a fingerprint by which its runs are told apart, and optional abilities.

An ability is a small protocol of its own. The runner looks for it with `isinstance` and does without it where it is
missing: a model that only answers is a whole model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

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
        """One answer for each prompt, in order. A prompt that could not be answered gets a Failure, not a text.

        Raises:
            OutOfMemoryError: The device does not hold the batch; the caller may try a smaller one.
        """
        ...


class Length(NamedTuple):
    """What a prompt costs, in tokens of the model's context."""

    image_tokens: int
    text_tokens: int


@runtime_checkable
class Choosing(Protocol):
    """Models that can say how likely each offered letter is, instead of writing a reply."""

    def choose(self, prompts: Sequence[Prompt]) -> Sequence[Answer | Failure]:
        """The likeliest letter of each prompt as text, and the log-probability of every letter as `option_scores`.

        Raises:
            ModelError: A prompt offers no choices.
            OutOfMemoryError: As in `answer`.
        """
        ...


@runtime_checkable
class Measuring(Protocol):
    """Models that know what a prompt will cost before its pictures are decoded."""

    def length(self, prompt: Prompt) -> tuple[int, int]:
        """Image tokens and text tokens of the prompt, from the headers of its pictures."""
        ...


@runtime_checkable
class Preparing(Protocol):
    """Models whose work on the CPU (decoding and resizing pictures, tokenizing) another thread can do ahead."""

    def prepare(self, prompts: Sequence[Prompt]) -> Any:
        """The prompts as tensors, still on the CPU; safe to call while another batch is being answered."""
        ...

    def answer_prepared(self, prepared: Any) -> Sequence[Answer | Failure]:
        """What `answer` says of the prompts that were prepared, on the thread that owns the device.

        Raises:
            OutOfMemoryError: As in `answer`.
        """
        ...


@runtime_checkable
class AnswersById(Protocol):
    """Models whose reply hangs on the question's id: two equal prompts are not one request.

    Attributes:
        answers_by_id: True.
    """

    answers_by_id: bool


@runtime_checkable
class Batching(Protocol):
    """Models that would rather be asked so many prompts at once.

    Attributes:
        batch_size: Prompts a batch, where the user names none.
    """

    batch_size: int


@runtime_checkable
class OnHardware(Protocol):
    """Models that run on this machine and can say on what.

    Attributes:
        hardware: Device, as reports show it: "NVIDIA H100 80GB HBM3", "cpu, 2 threads".
    """

    hardware: str
