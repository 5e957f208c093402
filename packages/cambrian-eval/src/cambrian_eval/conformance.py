"""One test for every model: the same questions, asked alone, together, backwards and twice; what must hold, does it?

A model passes if nothing fails. What a model openly declines (an ability it does not have, a kind of prompt that it
refuses with a ModelError or a Failure) is not supported, which is no defect.
"""

from __future__ import annotations

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cambrian_eval.crew import fault_of
from cambrian_eval.errors import EvalError, ModelError, OutOfMemoryError
from cambrian_eval.models.base import AnswersById, Choosing, Measuring, Preparing
from cambrian_eval.picture import Picture
from cambrian_eval.types import Answer, Failure, Prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cambrian_eval.models.base import Model

Outcome = Literal["pass", "fail", "not supported"]

BUDGET = 8
LONG_WORDS = 4000  # more than a small context holds, and no burden for a large one
MIN_AGREEMENT = 0.75  # rounding flips a reply now and then; wrong padding flips most of them
INSTRUCTION = "Answer with the option's letter from the given choices directly."
CHOICES = ("a red square", "a green circle", "a blue cross", "nothing at all")
SIZES = ((48, 48), (96, 40), (33, 70), (64, 64), (20, 90), (57, 31))  # width, height: a grid of tokens each


class Check(NamedTuple):
    """One thing that was tried.

    Attributes:
        name: What must hold.
        outcome: Whether it does.
        detail: What was found.
    """

    name: str
    outcome: Outcome
    detail: str = ""


class Conformance(NamedTuple):
    """What became of a model.

    Attributes:
        model: Its name.
        checks: All that was tried, in order.
    """

    model: str
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """What does not hold."""
        return tuple(check for check in self.checks if check.outcome == "fail")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"model": self.model, "passed": not self.failed, "checks": [check._asdict() for check in self.checks]}


class _Broken(Exception):  # noqa: N818 - no error of the user's
    """What must hold does not."""


class _Declined(Exception):  # noqa: N818 - no error at all
    """The model does not do this, and says so."""


def check_model(load: Callable[[], Model], progress: Callable[[int, int], None] | None = None) -> Conformance:
    """Tries a model.

    Args:
        load: Loads it; called twice, for its fingerprint must be that of what it is loaded from.
        progress: Called with the number of checks done and of all.

    Raises:
        EvalError: The model cannot be loaded.
    """
    model = load()
    prompts = make_prompts()
    checks = []
    for done, (name, check) in enumerate(CHECKS.items()):
        if progress:
            progress(done, len(CHECKS))
        checks.append(_run(name, check, _Subject(model, load, prompts)))
    if progress:
        progress(len(CHECKS), len(CHECKS))
    return Conformance(model.name, tuple(checks))


def make_prompts() -> list[Prompt]:
    """Multiple-choice questions about drawn pictures of different size, in texts of different length."""
    return [
        _ask(f"conformance-{i}", (_draw(i, size),), f"Picture {i}. {'Look closely. ' * i}What does it show?", CHOICES)
        for i, size in enumerate(SIZES)
    ]


class _Subject(NamedTuple):
    """What a check works with."""

    model: Model
    load: Callable[[], Model]
    prompts: list[Prompt]

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """Answers to all of the prompts, whatever a model may call one."""
        answers = self.answer_or_fail(prompts)
        failures = [answer for answer in answers if isinstance(answer, Failure)]
        if failures:
            raise _Broken(f"{len(failures)} of {len(prompts)} prompts got a Failure: {failures[0].reason}")
        return [answer for answer in answers if isinstance(answer, Answer)]

    def answer_or_fail(self, prompts: Sequence[Prompt]) -> list[Answer | Failure]:
        """An Answer or a Failure for each prompt."""
        return _sorted_out(self.model.answer(prompts), len(prompts))

    def answer_special(self, prompt: Prompt) -> Answer:
        """An answer to a prompt that a model may decline."""
        try:
            (answer,) = self.answer_or_fail([prompt])
        except ModelError as error:
            raise _Declined(str(error)) from error
        if isinstance(answer, Failure):
            raise _Declined(answer.reason)
        return answer


def _run(name: str, check: Callable[[_Subject], str], subject: _Subject) -> Check:
    try:
        return Check(name, "pass", check(subject))
    except _Declined as reason:
        return Check(name, "not supported", str(reason))
    except _Broken as reason:
        return Check(name, "fail", str(reason))
    except EvalError as error:
        return Check(name, "fail", f"{type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001 - whatever a model raises is what there is to report of it
        return Check(name, "fail", f"{type(error).__name__}, not one of this package's errors: {error}")


# The checks. Each returns what it found.


def _has_a_name(subject: _Subject) -> str:
    for attribute in ("name", "fingerprint"):
        value = getattr(subject.model, attribute, None)
        _require(isinstance(value, str) and value, f"{attribute} is {value!r}, expected a text")
    return subject.model.name


def _is_the_same_when_loaded_again(subject: _Subject) -> str:
    again = subject.load().fingerprint
    _require(again == subject.model.fingerprint, f"fingerprint {subject.model.fingerprint}, loaded again {again}")
    return ""


def _takes_no_prompts(subject: _Subject) -> str:
    answers = list(subject.model.answer([]))
    _require(answers == [], f"{len(answers)} answers to no prompts")
    return ""


def _answers_one(subject: _Subject) -> str:
    (answer,) = subject.answer(subject.prompts[:1])
    return _shown(answer.text)


def _answers_a_batch_as_one_by_one(subject: _Subject) -> str:
    alone = [subject.answer([prompt])[0].text for prompt in subject.prompts]
    together = [answer.text for answer in subject.answer(subject.prompts)]
    return _agreement(alone, together, subject.prompts)


def _keeps_the_order(subject: _Subject) -> str:
    forwards = [answer.text for answer in subject.answer(subject.prompts)]
    backwards = [answer.text for answer in subject.answer(subject.prompts[::-1])][::-1]
    return _agreement(forwards, backwards, subject.prompts)


def _mixes_kinds(subject: _Subject) -> str:
    """Prompts of one batch may differ in pictures, length and budget."""
    first, second, third, *_ = subject.prompts
    mixed = [
        dataclasses.replace(first, max_new_tokens=2 * BUDGET),
        dataclasses.replace(second, max_new_tokens=1),
        dataclasses.replace(third, content=(third.text,)),
    ]
    alone = [subject.answer_special(prompt).text for prompt in mixed]
    return _agreement(alone, [answer.text for answer in subject.answer(mixed)], mixed)


def _repeats_itself(subject: _Subject) -> str:
    """The same batch gives the same replies, and so does the same prompt within one batch."""
    first, second = (subject.answer(subject.prompts) for _ in range(2))
    _require_same(first, second, "asked twice")
    if not isinstance(subject.model, AnswersById):
        copy = dataclasses.replace(subject.prompts[0], id="conformance-copy")
        one, other = subject.answer([subject.prompts[0], copy])
        _require(one == other, f"the same prompt under two ids: {_shown(one.text)} and {_shown(other.text)}")
    return ""


def _keeps_to_the_budget(subject: _Subject) -> str:
    short = [dataclasses.replace(prompt, max_new_tokens=2) for prompt in subject.prompts]
    answers = subject.answer(short)
    counted = [answer.reply_tokens for answer in answers if answer.reply_tokens is not None]
    if not counted:
        raise _Declined("the model does not tell how many tokens its replies have")
    _require(max(counted) <= 2, f"a reply of {max(counted)} tokens, 2 were allowed")
    return f"at most {max(counted)} of 2 tokens"


def _answers_open_questions(subject: _Subject) -> str:
    text = "What colour is most of the picture?\nAnswer the question using a single word or phrase."
    first = subject.prompts[0]
    return _shown(subject.answer_special(dataclasses.replace(first, content=(*first.pictures, text), choices=())).text)


def _answers_blind(subject: _Subject) -> str:
    """How many replies hang on the picture is told and not judged: a baseline looks at none."""
    blind = [dataclasses.replace(prompt, content=(prompt.text,)) for prompt in subject.prompts]
    replies = [subject.answer_special(prompt).text for prompt in blind]
    seeing = [answer.text for answer in subject.answer(subject.prompts)]
    changed = sum(one != other for one, other in zip(replies, seeing, strict=True))
    return f"{_shown(replies[0])}; with pictures {changed} of {len(blind)} replies are others"


def _sees_several_pictures(subject: _Subject) -> str:
    pictures = [prompt.pictures[0] for prompt in subject.prompts[:3]]
    first = subject.prompts[0]
    answer = subject.answer_special(dataclasses.replace(first, content=(*pictures, first.text)))
    return _shown(answer.text)


def _reads_any_writing(subject: _Subject) -> str:
    """Quotes, apostrophes, Chinese, pictures of faces."""
    texts = ('What\'s the "sign" say?', "图中有几只猫?「三」还是『四』。", "¿Qué ves? 🙂\t\\n")
    replies = [answer.text for answer in subject.answer([_asking(text, subject.prompts[0]) for text in texts])]
    for reply in replies:
        reply.encode("utf-8")  # no halves of characters
    return ", ".join(map(_shown, replies))


def _takes_markup_as_text(subject: _Subject) -> str:
    """What a template, a tokenizer or a processor may take for its own."""
    texts = ("{{ x }} {% y %}", "</s> <|im_end|>", "<image>")
    return ", ".join(_shown(subject.answer_special(_asking(text, subject.prompts[0])).text) for text in texts)


def _survives_what_is_too_long(subject: _Subject) -> str:
    """A prompt that does not fit is a Failure of its own, or is answered; the others of its batch are not harmed."""
    first, second, *_ = subject.prompts
    long = dataclasses.replace(second, content=(*second.pictures, f"{'word ' * LONG_WORDS}\n{second.text}"))
    try:
        one, other = subject.answer_or_fail([first, long])
    except OutOfMemoryError as error:
        return f"refused: {error}"
    _require(isinstance(one, Answer), f"its neighbour failed too: {one}")
    return f"a Failure: {other.reason}" if isinstance(other, Failure) else "answered"


def _chooses(subject: _Subject) -> str:
    """Scores of letters are log-probabilities, the answer is the best of them, and batches do not matter."""
    model = subject.model
    if not isinstance(model, Choosing):
        raise _Declined("the model has no choose()")
    few = [dataclasses.replace(prompt, choices=CHOICES[: 2 + i % 3]) for i, prompt in enumerate(subject.prompts)]
    answers = _choices_of(model, few)
    for prompt, answer in zip(few, answers, strict=True):
        scores = answer.option_scores
        _require(len(scores) == len(prompt.choices), f"{len(scores)} scores for {len(prompt.choices)} choices")
        _require(all(math.isfinite(score) and score <= 1e-6 for score in scores), f"scores {scores}, not logarithms")
        _require(sum(map(math.exp, scores)) <= 1 + 1e-4, f"probabilities that sum to more than 1: {scores}")
        best = ascii_uppercase[scores.index(max(scores))]
        _require(answer.text == best, f"the best letter is {best}, the answer is {_shown(answer.text)}")
    alone = [_choices_of(model, [prompt])[0] for prompt in few]
    _refuses_nothing_to_choose(model, subject.prompts[0])
    return _agreement([answer.text for answer in alone], [answer.text for answer in answers], few)


def _choices_of(model: Choosing, prompts: Sequence[Prompt]) -> list[Answer]:
    try:
        answers = _sorted_out(model.choose(prompts), len(prompts))
    except ModelError as error:
        raise _Declined(str(error)) from error
    for answer in answers:
        if isinstance(answer, Failure):
            raise _Declined(answer.reason)
    return [answer for answer in answers if isinstance(answer, Answer)]


def _refuses_nothing_to_choose(model: Choosing, prompt: Prompt) -> None:
    try:
        model.choose([dataclasses.replace(prompt, choices=())])
    except ModelError:
        return
    raise _Broken("choose() takes a question without choices, expected a ModelError")


def _measures(subject: _Subject) -> str:
    """Text costs more with every word, pictures cost image tokens, and answers tell the same of them."""
    model, first = subject.model, subject.prompts[0]
    if not isinstance(model, Measuring):
        raise _Declined("the model has no length()")
    blind = [dataclasses.replace(first, content=(first.text + " word" * count,)) for count in range(6)]
    lengths = [model.length(prompt) for prompt in blind]
    _require(not any(image for image, _ in lengths), f"{lengths[0][0]} image tokens without a picture")
    texts = [text for _, text in lengths]
    _require(texts == sorted(set(texts)), f"text tokens with ever more words: {texts}")
    pictures = [prompt.pictures[0] for prompt in subject.prompts]
    growing = [dataclasses.replace(first, content=(*pictures[:count], first.text)) for count in range(4)]
    images = [model.length(prompt)[0] for prompt in growing]
    _require(images == sorted(set(images)), f"image tokens with ever more pictures: {images}")
    for prompt, answer in zip(subject.prompts, subject.answer(subject.prompts), strict=True):
        expected = model.length(prompt)[0]
        told = answer.image_tokens
        _require(told in (None, expected), f"{prompt.id}: length() says {expected} image tokens, the answer {told}")
    return f"image tokens of one picture: {images[1]}"


def _prepares_elsewhere(subject: _Subject) -> str:
    """What another thread prepared is answered as if it had been asked directly."""
    model = subject.model
    if not isinstance(model, Preparing):
        raise _Declined("the model has no prepare()")
    with ThreadPoolExecutor(1) as other:
        coming = [other.submit(model.prepare, subject.prompts) for _ in range(2)]
        replies = [_answers_of(model.answer_prepared(one.result()), len(subject.prompts)) for one in coming]
    direct = subject.answer(subject.prompts)
    for reply in replies:
        _require_same(reply, direct, "prepared and asked directly")
    return ""


CHECKS: dict[str, Callable[[_Subject], str]] = {
    "has a name and a fingerprint": _has_a_name,
    "has the same fingerprint when loaded again": _is_the_same_when_loaded_again,
    "takes an empty batch": _takes_no_prompts,
    "answers one prompt": _answers_one,
    "answers a batch as one by one": _answers_a_batch_as_one_by_one,
    "keeps the order of a batch": _keeps_the_order,
    "mixes kinds of prompts in a batch": _mixes_kinds,
    "gives the same answer again": _repeats_itself,
    "keeps to the budget of tokens": _keeps_to_the_budget,
    "answers open questions": _answers_open_questions,
    "answers without a picture": _answers_blind,
    "sees several pictures": _sees_several_pictures,
    "reads quotes, Chinese and emoji": _reads_any_writing,
    "takes markup in a question as text": _takes_markup_as_text,
    "fails alone where a prompt is too long": _survives_what_is_too_long,
    "scores the offered letters": _chooses,
    "knows lengths beforehand": _measures,
    "prepares batches in another thread": _prepares_elsewhere,
}


def _ask(name: str, pictures: tuple[Picture, ...], text: str, choices: tuple[str, ...]) -> Prompt:
    lines = "\n".join(f"({letter}) {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False))
    return Prompt(name, (*pictures, f"{text}\n{lines}\n{INSTRUCTION}"), choices, BUDGET, INSTRUCTION)


def _asking(text: str, prompt: Prompt) -> Prompt:
    return dataclasses.replace(prompt, content=(*prompt.pictures, f"{text}\n{prompt.text}"))


def _draw(number: int, size: tuple[int, int]) -> Picture:
    """A picture that differs from the others in size, colour and shape."""
    import io

    from PIL import Image, ImageDraw

    colour = tuple(255 * (number + 1 >> bit & 1) for bit in range(3))
    image = Image.new("RGB", size, "gray")
    ImageDraw.Draw(image).ellipse((4, 4, size[0] - 5, size[1] // 2 + 3 * number), fill=colour)
    file = io.BytesIO()
    image.save(file, format="PNG")
    return Picture.from_bytes(f"conformance-{number}.png", file.getvalue())


def _sorted_out(given: Any, count: int) -> list[Answer | Failure]:
    """What a model gave, if it is a sequence of as many answers as were asked for."""
    _require(not isinstance(given, str | dict | set), f"a {type(given).__name__}, expected a sequence of answers")
    answers = [Answer(answer) if isinstance(answer, str) else answer for answer in given]
    _require(len(answers) == count, f"{len(answers)} answers to {count} prompts")
    for answer in answers:
        _require(isinstance(answer, Answer | Failure), f"an answer of type {type(answer).__name__}")
        fault = fault_of(answer) if isinstance(answer, Answer) else None
        _require(fault is None, f"an Answer with {fault}")
    return answers


def _answers_of(given: Any, count: int) -> list[Answer]:
    answers = _sorted_out(given, count)
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    if failures:
        raise _Broken(f"a Failure: {failures[0].reason}")
    return [answer for answer in answers if isinstance(answer, Answer)]


def _agreement(expected: Sequence[str], found: Sequence[str], prompts: Sequence[Prompt]) -> str:
    """How many replies agree; most must."""
    differing = list(_differing(expected, found, prompts))
    same = len(prompts) - len(differing)
    example = f"; {differing[0]}" if differing else ""
    detail = f"{same} of {len(prompts)} replies agree{example}"
    _require(same >= MIN_AGREEMENT * len(prompts), detail)
    return detail


def _differing(expected: Sequence[str], found: Sequence[str], prompts: Sequence[Prompt]) -> Iterator[str]:
    for prompt, one, other in zip(prompts, expected, found, strict=True):
        if one != other:
            yield f"{prompt.id}: {_shown(one)} and {_shown(other)}"


def _require_same(some: Sequence[Answer], others: Sequence[Answer], how: str) -> None:
    for one, other in zip(some, others, strict=True):
        _require(one == other, f"{how}: {one} and {other}")


def _require(holds: object, otherwise: str) -> None:
    if not holds:
        raise _Broken(otherwise)


def _shown(text: str, longest: int = 40) -> str:
    return repr(text if len(text) <= longest else f"{text[:longest]}...")
