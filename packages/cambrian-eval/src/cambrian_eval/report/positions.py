"""Letters: which are given against which are right, and how often the right one is found where it stands."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TYPE_CHECKING

from cambrian_eval.metrics import mean_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian_eval.metrics import MetricRow
    from cambrian_eval.types import ScoredAnswer

COLUMNS = (
    "letter",
    "given",
    "given %",
    "right",
    "right %",
    "accuracy % where it is right",
    "95 % interval",
    "parsed %",
)
MAX_LETTERS = 10


@dataclass(frozen=True)
class Positions:
    """The letters of a run's multiple-choice answers.

    Attributes:
        letters: From A on.
        given: How often each was read from a reply.
        true: How often each was right.
        unread: Replies without a letter of these.
        rows: Accuracy where the letter is right; None where it never is.
        is_permuted: Whether each option stood at several places, so that places compare.
    """

    letters: str
    given: tuple[int, ...]
    true: tuple[int, ...]
    unread: int
    rows: tuple[MetricRow | None, ...]
    is_permuted: bool

    def table(self) -> list[list[str]]:
        """The cells of a table with the columns `COLUMNS`."""
        num_given, num_true = max(1, sum(self.given)), max(1, sum(self.true))
        return [
            [
                letter,
                *(str(given), f"{100 * given / num_given:.1f}", str(true), f"{100 * true / num_true:.1f}"),
                *(("", "", "") if row is None else _cells(row)),
            ]
            for letter, given, true, row in zip(self.letters, self.given, self.true, self.rows, strict=True)
        ]


def measure_positions(answers: Sequence[ScoredAnswer]) -> Positions | None:
    """Count letters; None where no question has options and a known letter."""
    choices = [answer for answer in answers if answer.question.choices and _truth(answer)]
    if not choices:
        return None
    letters = ascii_uppercase[: min(MAX_LETTERS, max(len(answer.question.choices) for answer in choices))]
    given = Counter(answer.score.extracted for answer in choices)
    true = Counter(_truth(answer) for answer in choices)
    counts = tuple(given[letter] for letter in letters)
    return Positions(
        letters=letters,
        given=counts,
        true=tuple(true[letter] for letter in letters),
        unread=len(choices) - sum(counts),
        rows=tuple(_row(letter, choices) for letter in letters),
        is_permuted=any("permutation" in answer.question.details for answer in choices),
    )


def _row(letter: str, choices: Sequence[ScoredAnswer]) -> MetricRow | None:
    there = [answer for answer in choices if _truth(answer) == letter and answer.score.value is not None]
    return mean_row("positions", letter, letter, there) if there else None


def _truth(answer: ScoredAnswer) -> str:
    """The right letter; empty where it is not known or no letter."""
    truths = answer.question.answers
    return truths[0] if len(truths) == 1 and truths[0] in tuple(ascii_uppercase) else ""


def _cells(row: MetricRow) -> tuple[str, str, str]:
    return f"{row.accuracy:.1f}", f"{row.low:.1f} to {row.high:.1f}", f"{row.parse_rate:.1f}"
