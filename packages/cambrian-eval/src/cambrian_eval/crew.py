"""Who answers: one model in this process, or several copies of it in others (`workers`). The runner sees no difference.

A batch that does not fit the device's memory is halved until it does, and what was halved is counted. Answers are
checked here, once, whoever gives them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Set
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from cambrian_eval.errors import ModelError, OutOfMemoryError
from cambrian_eval.models.base import AnswersById, Batching, Choosing, Measuring, OnHardware, Preparing
from cambrian_eval.prefetch import prepared_ahead
from cambrian_eval.types import Answer, Failure

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from cambrian_eval.models.base import Model
    from cambrian_eval.types import Prompt, Scoring

    Batches = Iterable[tuple[int, Sequence[Prompt]]]
    Answers = Generator[tuple[int, "Asked"], None, None]


class Description(NamedTuple):
    """What the runner has to know of a model.

    Attributes:
        name: What reports call it.
        fingerprint: By which its runs are told apart.
        hardware: What it runs on; None where it does not tell.
        batch_size: How many prompts it would rather be asked at once; None if it does not mind.
        answers_by_id: Whether equal prompts may have different answers.
        can_choose: Whether it scores options.
        can_measure: Whether it knows the length of a prompt.
        can_prepare: Whether batches can be prepared ahead.
    """

    name: str
    fingerprint: str
    hardware: str | None
    batch_size: int | None
    answers_by_id: bool
    can_choose: bool
    can_measure: bool
    can_prepare: bool


class Asked(NamedTuple):
    """The answers to one batch, in its order, and how often it had to be halved."""

    answers: list[Answer | Failure]
    num_halved: int


class Crew(Protocol):
    """Whoever answers the batches of a run."""

    @property
    def description(self) -> Description:
        """Of the model."""
        ...

    def lengths(self, prompts: Sequence[Prompt]) -> list[tuple[int, int]]:
        """Image tokens and text tokens of each prompt; only of a model that can measure."""
        ...

    def ask(self, batches: Batches, scoring: Scoring, prefetch: int) -> Answers:
        """The answers to numbered batches, as they come."""
        ...


class Alone:
    """One model in this process; the batches are answered one after another, in order."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.description = describe(model)

    def lengths(self, prompts: Sequence[Prompt]) -> list[tuple[int, int]]:
        """Image tokens and text tokens of each prompt."""
        return measure(self._model, prompts)

    def ask(self, batches: Batches, scoring: Scoring, prefetch: int) -> Answers:
        """The answers to numbered batches, in order; up to `prefetch` further ones are prepared meanwhile."""
        if scoring == "logits" or not isinstance(self._model, Preparing):
            for number, prompts in batches:
                yield number, ask(self._model, prompts, scoring)
            return
        with contextlib.closing(prepared_ahead(self._model.prepare, batches, prefetch)) as ready:
            for number, prompts, prepared in ready:
                yield number, ask_prepared(self._model, prompts, prepared)


def describe(model: Model) -> Description:
    """What the runner has to know of a model."""
    return Description(
        name=model.name,
        fingerprint=model.fingerprint,
        hardware=model.hardware if isinstance(model, OnHardware) else None,
        batch_size=model.batch_size if isinstance(model, Batching) else None,
        answers_by_id=isinstance(model, AnswersById) and model.answers_by_id,
        can_choose=isinstance(model, Choosing),
        can_measure=isinstance(model, Measuring),
        can_prepare=isinstance(model, Preparing),
    )


def measure(model: Model, prompts: Sequence[Prompt]) -> list[tuple[int, int]]:
    """Image tokens and text tokens of each prompt."""
    assert isinstance(model, Measuring)
    return [_length(model, prompt) for prompt in prompts]


def _length(model: Measuring, prompt: Prompt) -> tuple[int, int]:
    try:
        image, text = model.length(prompt)
    except ModelError:  # the model refuses the prompt: it fails when it is asked, and until then has no length
        return (0, 0)
    return (int(image), int(text))


def ask(model: Model, prompts: Sequence[Prompt], scoring: Scoring = "generate") -> Asked:
    """The answers to one batch.

    Raises:
        ModelError: The model's answers are not usable.
        OutOfMemoryError: A prompt does not fit even alone.
    """
    speak = model.choose if scoring == "logits" and isinstance(model, Choosing) else model.answer
    return _halving(model.name, lambda: speak(prompts), prompts, lambda half: ask(model, half, scoring))


def ask_prepared(model: Model, prompts: Sequence[Prompt], prepared: Any) -> Asked:
    """The answers to one batch that was prepared ahead; what does not fit is prepared again, in halves."""
    assert isinstance(model, Preparing)
    speak = model.answer_prepared
    return _halving(model.name, lambda: speak(prepared), prompts, lambda half: ask(model, half))


def _halving(
    name: str, speak: Callable[[], object], prompts: Sequence[Prompt], ask_half: Callable[[Sequence[Prompt]], Asked]
) -> Asked:
    try:
        return Asked(_checked(name, speak(), len(prompts)), 0)
    except OutOfMemoryError as error:
        if len(prompts) == 1:
            raise OutOfMemoryError(
                f"question {prompts[0].id} does not fit into memory even alone ({error}). "
                "Use a larger device, or a cap on the reply's length (max_new_tokens)."
            ) from error
    # Out of the handler: the error's traceback would keep the tensors of the batch alive.
    middle = (len(prompts) + 1) // 2
    first, second = ask_half(prompts[:middle]), ask_half(prompts[middle:])
    return Asked(first.answers + second.answers, 1 + first.num_halved + second.num_halved)


def fault_of(answer: Answer) -> str | None:
    """What of an answer could not be logged and read back, and what is expected; None where all of it can."""
    for field in dataclasses.fields(Answer):
        value = getattr(answer, field.name)
        fits, expected = _FIELDS[field.name]
        if not fits(value):
            return f"{field.name} {value!r:.80} of type {type(value).__name__}, expected {expected}"
    return None


def _is_count(value: object) -> bool:
    return value is None or (type(value) is int and value >= 0)


def _are_levels(value: object) -> bool:
    """Of plain floats, for those of NumPy are none to JSON; and of levels that are no numbers none is the best."""
    return isinstance(value, tuple | list) and all(isinstance(one, float) and math.isfinite(one) for one in value)


_FIELDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "text": (lambda value: isinstance(value, str), "a str"),
    "truncated": (lambda value: isinstance(value, bool), "a bool"),
    "image_tokens": (_is_count, "None or an int from 0 on"),
    "reply_tokens": (_is_count, "None or an int from 0 on"),
    "option_scores": (_are_levels, "a tuple of finite floats"),
}


def _checked(name: str, given: object, num_prompts: int) -> list[Answer | Failure]:
    if isinstance(given, str | Mapping | Set) or not isinstance(given, Iterable):
        raise ModelError(f"{name}: found a {type(given).__name__}, expected a sequence of answers, in order.")
    answers = list(given)
    if len(answers) != num_prompts:
        raise ModelError(
            f"{name}: found {len(answers)} answers to {num_prompts} prompts, expected one for each, in order; "
            "return a Failure for a prompt that cannot be answered."
        )
    for answer in answers:
        if not isinstance(answer, Answer | Failure | str):
            kind = type(answer).__name__
            raise ModelError(f"{name}: found an answer of type {kind}, expected a text, an Answer or a Failure.")
        if isinstance(answer, Answer) and (fault := fault_of(answer)):
            raise ModelError(f"{name}: found an Answer with {fault}.")
    return [Answer(answer) if isinstance(answer, str) else answer for answer in answers]
