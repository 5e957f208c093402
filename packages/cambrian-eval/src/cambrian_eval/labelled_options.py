"""Options as benchmarks publish them: in one text with their question, or counted instead of lettered."""

from __future__ import annotations

import re
from string import ascii_uppercase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian_eval.rows import Row
    from cambrian_eval.types import ScoredAnswer

_LINE = r"^[ \t]*{}\.(?=\s)"
_LINE_BRACKETS = r"^[ \t]*\({}\)"

LINES = (_LINE, _LINE_BRACKETS)
"""One option a line: "A. x" or "(A) x"."""

UNKNOWN = ("",) * 4
"""What is offered where a letter is asked for and the text lists its options in no form that is known: A to D."""


def cut_options(text: str, label: str) -> tuple[str, tuple[str, ...]]:
    """What stands before the first label, and the options in order; no options where fewer than two are labelled.

    Labels are looked for in the order of the alphabet, each behind the one before, so that an option may hold brackets,
    quotes, apostrophes or another option's letter.

    Args:
        text: The question with its options.
        label: A regular expression for the label of the option `{}`.
    """
    spans: list[tuple[int, int]] = []
    for letter in ascii_uppercase:
        match = re.compile(label.format(letter), re.MULTILINE).search(text, spans[-1][1] if spans else 0)
        if match is None:
            break
        spans.append(match.span())
    if len(spans) < 2:
        return text, ()
    ends = [begin for begin, _ in spans[1:]] + [len(text)]
    choices = (text[begin:end].strip() for (_, begin), end in zip(spans, ends, strict=True))
    return text[: spans[0][0]], tuple(choices)


def cut_lines(text: str) -> tuple[str, ...]:
    """The options of a text that gives each its own line, whichever way they are labelled."""
    found = (cut_options(text, label)[1] for label in LINES)
    return max(found, key=len)


def num_unknown(answers: Sequence[ScoredAnswer]) -> int:
    """How many questions offer letters whose texts are not known."""
    return sum(answer.question.choices == UNKNOWN for answer in answers)


def counted_letter(row: Row, field: str, choices: Sequence[str]) -> str:
    """The letter of the option whose number, counted from 0, stands in a field, as a number or as text.

    Raises:
        DataError: The field holds something else.
    """
    number = row.key(field)
    if not number.isdecimal() or int(number) >= len(choices):
        raise row.error(field, f"the number of an option, from 0 to {len(choices) - 1}")
    return ascii_uppercase[int(number)]
