"""The same question with its options in other orders: what a model prefers for its place and not for what it says.

Orders are turns of the published one, so that over as many orders as there are options each option stands once at every
place. The first order is the published one: its answers are those of a plain run.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from cambrian_eval.errors import DataError
from cambrian_eval.metrics import Metrics, mean_row, unit_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cambrian_eval.metrics import MetricRow
    from cambrian_eval.types import Prompt, Question, ScoredAnswer

KEY = "permutation"  # in a question's details: whose options these are, their order, and the group it was in
LABELS = ("({letter}) {text}", "{letter}. {text}", "{letter}) {text}", "{letter}: {text}")
SEPARATOR = "@"  # between a question's id and the number of the order


def permute(questions: Sequence[Question], num_orders: int, seed: int) -> list[Question]:
    """Every multiple-choice question in several orders of its options, one after another; open questions stay.

    A question with fewer options than `num_orders` has as many orders as options. Copies share a group and have the ids
    `ID`, `ID@1`, `ID@2`.

    Raises:
        DataError: No question has options, or a question has an answer that is no letter.
    """
    if not any(question.choices for question in questions):
        raise DataError("none of the questions has options; there is nothing to permute.")
    return [copy for question in questions for copy in _copies(question, num_orders, seed)]


def check_shown(question: Question, prompt: Prompt) -> None:
    """Make sure that a prompt shows the options in the question's order, each on a line with its letter.

    Raises:
        DataError: It does not.
    """
    if KEY in question.details and not any(block in prompt.text for block in _blocks(question.choices)):
        raise DataError(
            f"question {question.id}: its options are not in its prompt as lines such as "
            f'"A. {question.choices[0]}", so they cannot be permuted. Run it without permute.'
        )


def restore(answer: ScoredAnswer) -> ScoredAnswer:
    """The answer to a question of the published order as a plain run has it."""
    details = dict(answer.question.details)
    held = details.pop(KEY, None)
    if held is None:
        return answer
    question = dataclasses.replace(answer.question, group=held["group"], details=details)
    return dataclasses.replace(answer, question=question)


def measure(metrics: Callable[[Sequence[ScoredAnswer]], Metrics], answers: Sequence[ScoredAnswer]) -> Metrics:
    """The task's own metrics on the published order, and beside them what the place of an option does."""
    first = metrics([restore(answer) for answer in answers if _number(answer.question) == 0])
    copies = [a for a in answers if KEY in a.question.details and a.score.value is not None]
    if not copies:
        return first
    return Metrics(
        summary={**first.summary, "position_bias": _position_bias(copies)},
        rows=(*first.rows, *_rows(copies)),
    )


def _copies(question: Question, num_orders: int, seed: int) -> Iterator[Question]:
    if not question.choices:
        yield question
        return
    for number, turn in enumerate(_turns(question, num_orders, seed)):
        count = len(question.choices)
        order = [(place + turn) % count for place in range(count)]  # which option stands at each place
        yield _reorder(question, number, order)


def _turns(question: Question, num_orders: int, seed: int) -> list[int]:
    others = range(1, len(question.choices))
    shuffled = sorted(others, key=lambda turn: hashlib.sha256(f"{seed}:{question.id}:{turn}".encode()).hexdigest())
    return [0, *shuffled][:num_orders]


def _reorder(question: Question, number: int, order: Sequence[int]) -> Question:
    choices = tuple(question.choices[option] for option in order)
    return dataclasses.replace(
        question,
        id=f"{question.id}{SEPARATOR}{number}" if number else question.id,
        text=_replace(question, choices),
        choices=choices,
        answers=tuple(_moved(question, answer, order) for answer in question.answers),
        group=question.id,
        details={**question.details, KEY: {"number": number, "order": list(order), "group": question.group}},
    )


def _moved(question: Question, answer: str, order: Sequence[int]) -> str:
    if len(answer) != 1 or answer not in ascii_uppercase[: len(order)]:
        raise DataError(f"question {question.id}: found answer {answer!r}, expected the letter of one of its options.")
    return ascii_uppercase[order.index(ascii_uppercase.index(answer))]


def _replace(question: Question, choices: Sequence[str]) -> str:
    """The text with the options in their new order; texts without options are left to the prompt, which is checked."""
    for old, new in zip(_blocks(question.choices), _blocks(choices), strict=True):
        before, found, after = question.text.rpartition(old)
        if found and (not before or before.endswith("\n")) and (not after or after.startswith("\n")):
            return before + new + after
    return question.text


def _blocks(choices: Sequence[str]) -> list[str]:
    """The options as labelled lines, in every style."""
    pairs = list(zip(ascii_uppercase, choices, strict=False))
    return ["\n".join(label.format(letter=letter, text=text) for letter, text in pairs) for label in LABELS]


def _number(question: Question) -> int:
    return question.details.get(KEY, {"number": 0})["number"]


def _position_bias(copies: Sequence[ScoredAnswer]) -> dict[str, Any]:
    letters = ascii_uppercase[: max(len(answer.question.choices) for answer in copies)]
    given = Counter(answer.score.extracted for answer in copies)
    true = Counter(answer.question.answers[0] for answer in copies)
    return {
        "n": len(copies),
        "given": {letter: given[letter] for letter in letters},
        "true": {letter: true[letter] for letter in letters},
        "unparsed": len(copies) - sum(given[letter] for letter in letters),
    }


def _rows(copies: Sequence[ScoredAnswer]) -> Iterator[MetricRow]:
    yield mean_row("permuted", "mean", "mean over all orders of the options", copies)
    yield unit_row("permuted", "all_orders", "right in all orders of the options", copies)
    for letter in sorted({answer.question.answers[0] for answer in copies}):
        there = [answer for answer in copies if answer.question.answers[0] == letter]
        row = mean_row("positions", letter, f"right option at place {letter}", there)
        yield dataclasses.replace(row, best_constant=None)  # of these questions that letter is always right
