"""From scored answers to rows in percent: accuracy, its interval, and the two levels it has to beat."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cambrian_eval import statistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian_eval.types import ScoredAnswer


@dataclass(frozen=True)
class MetricRow:
    """One line of a result's table. All levels are percent.

    Attributes:
        group: The table it belongs to: `scores`, `tasks` or `sources`.
        name: Its key in that table.
        label: What people read.
        accuracy: The score.
        low: Lower end of its 95 % interval.
        high: Upper end.
        chance: What a uniform guess scores.
        best_constant: What the best single letter, always given, scores.
        parse_rate: Share of replies in which an answer was found.
        n: Number of questions.
    """

    group: str
    name: str
    label: str
    accuracy: float
    low: float
    high: float
    chance: float
    best_constant: float
    parse_rate: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """The levels without group, name and label."""
        return {
            "accuracy": self.accuracy,
            "low": self.low,
            "high": self.high,
            "chance": self.chance,
            "best_constant": self.best_constant,
            "parse_rate": self.parse_rate,
            "n": self.n,
        }


@dataclass(frozen=True)
class Metrics:
    """A task's metrics: single values by name, and rows."""

    summary: dict[str, Any]
    rows: tuple[MetricRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """The summary at the top level, the rows by group and name."""
        tables: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            tables.setdefault(row.group, {})[row.name] = row.to_dict()
        return {**self.summary, **tables}


@dataclass(frozen=True)
class WeightedAnswers:
    """Multiple-choice answers that enter a mean together, and with what weight."""

    weight: float
    answers: Sequence[ScoredAnswer]

    @property
    def stratum(self) -> statistics.Stratum:
        """Their counts."""
        return statistics.Stratum(self.weight, sum(a.score.value == 1 for a in self.answers), len(self.answers))


def choice_row(group: str, name: str, label: str, strata: Sequence[WeightedAnswers]) -> MetricRow:
    """The row of a weighted mean over strata of multiple-choice answers; weights sum to 1."""
    counts = [stratum.stratum for stratum in strata]
    interval = statistics.weighted_interval(counts)
    answers = [answer for stratum in strata for answer in stratum.answers]
    return MetricRow(
        group=group,
        name=name,
        label=label,
        accuracy=100 * statistics.weighted_mean(counts),
        low=100 * interval.low,
        high=100 * interval.high,
        chance=100 * math.fsum(stratum.weight * _chance(stratum.answers) for stratum in strata),
        best_constant=100 * _best_constant(strata),
        parse_rate=parse_rate(answers),
        n=len(answers),
    )


def plain_row(group: str, name: str, label: str, answers: Sequence[ScoredAnswer]) -> MetricRow:
    """The row of an unweighted mean."""
    return choice_row(group, name, label, [WeightedAnswers(1.0, answers)])


def parse_rate(answers: Sequence[ScoredAnswer]) -> float:
    """Percent of replies in which an answer was found."""
    return 100 * sum(answer.score.extracted is not None for answer in answers) / len(answers)


def _chance(answers: Sequence[ScoredAnswer]) -> float:
    return statistics.chance_level([len(answer.question.choices) for answer in answers])


def _best_constant(strata: Sequence[WeightedAnswers]) -> float:
    levels = [
        (stratum.weight, statistics.constant_levels([answer.question.answers[0] for answer in stratum.answers]))
        for stratum in strata
    ]
    letters = {letter for _, level in levels for letter in level}
    return max(math.fsum(weight * level.get(letter, 0.0) for weight, level in levels) for letter in sorted(letters))
