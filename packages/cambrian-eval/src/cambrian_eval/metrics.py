"""From scored answers to rows in percent: a score, its interval, and the two levels it has to beat.

A row is made of answers (`mean_row`, `unit_row`, `choice_row`, `plain_row`) or of other rows (`weighted_row`). Answers
without a known truth are in no score; `measure` counts them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cambrian_eval import statistics
from cambrian_eval.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from cambrian_eval.types import Question, ScoredAnswer


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One line of a result's table. Levels are percent, unless `full` is another number than 100.

    Attributes:
        group: The table it belongs to: `scores`, `tasks` or `sources`.
        name: Its key in that table.
        label: What people read.
        accuracy: The score.
        low: Lower end of its 95 % interval.
        high: Upper end.
        chance: What a uniform guess scores; None where there is nothing to choose from.
        best_constant: What the best single letter, always given, scores; None likewise.
        parse_rate: Share of replies in which an answer was found.
        n: Number of questions.
        num_units: Number of independent units among them: questions that stand alone, pictures, pairs, circular groups.
        full: What a perfect model scores.
        design_effect: Variance of the score over what it would be if all questions were independent.
    """

    group: str
    name: str
    label: str
    accuracy: float
    low: float
    high: float
    chance: float | None
    best_constant: float | None
    parse_rate: float
    n: int
    num_units: int
    full: float = 100.0
    design_effect: float = 1.0

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
            "num_units": self.num_units,
            "full": self.full,
            "design_effect": self.design_effect,
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


def measure(answers: Sequence[ScoredAnswer], *, label: str = "accuracy") -> Metrics:
    """The metrics of a plain benchmark: the mean over questions, and rows by task and source where there are several.

    Where no answer has a known truth (a test set whose answers are secret), `score` is None and there are no rows.

    Args:
        answers: All of a run.
        label: What people read beside the score.
    """
    scored = [answer for answer in answers if answer.score.value is not None]
    rows = [mean_row("scores", "score", label, scored)] if scored else []
    return Metrics(
        summary={
            "score": rows[0].accuracy if rows else None,
            "parse_rate": parse_rate(answers),
            "n_unscored": len(answers) - len(scored),
        },
        rows=(*rows, *rows_by("tasks", "task", scored), *rows_by("sources", "source", scored)),
    )


def rows_by(group: str, attribute: str, answers: Sequence[ScoredAnswer]) -> list[MetricRow]:
    """A mean row for every value of a question's attribute (`part`, `task`, `source`); none where there is only one."""
    parts: dict[str, list[ScoredAnswer]] = {}
    for answer in answers:
        if answer.score.value is not None:
            parts.setdefault(getattr(answer.question, attribute), []).append(answer)
    return [mean_row(group, name, name, parts[name]) for name in sorted(parts)] if len(parts) > 1 else []


def mean_row(
    group: str,
    name: str,
    label: str,
    answers: Sequence[ScoredAnswer],
    *,
    values: Sequence[float] | None = None,
    full: float = 100.0,
    chance: float | None = None,
    best_constant: float | None = None,
) -> MetricRow:
    """The row of a mean over questions, of which those of one `group` are not independent.

    Args:
        group: Table of the row.
        name: Its key there.
        label: What people read.
        answers: Those without a known truth are left out.
        values: What every answer is worth, from 0 to `full` / 100, if it is not the answer's own value: MME's
            accuracy plus pair accuracy, of `full` 200, say. One for each of `answers`.
        full: What a perfect model scores.
        chance: What a guess scores, for questions whose options are not among their choices, such as yes and no.
        best_constant: What the best constant reply scores, likewise.

    Raises:
        DataError: No answer has a known truth.
    """
    worth = [answer.score.value for answer in answers] if values is None else list(values)
    kept = [(a, v) for a, v in zip(answers, worth, strict=True) if a.score.value is not None and v is not None]
    _require(kept, label)
    scored, scale = [answer for answer, _ in kept], full / 100
    found = statistics.clustered_mean([value / scale for _, value in kept], [unit_of(a.question) for a in scored])
    own = values is None
    return MetricRow(
        group=group,
        name=name,
        label=label,
        accuracy=full * found.mean,
        low=full * found.low,
        high=full * found.high,
        chance=_percent(_guess(scored)) if own and chance is None else chance,
        best_constant=_percent(_constant([(1.0, scored)])) if own and best_constant is None else best_constant,
        parse_rate=parse_rate(scored),
        n=len(scored),
        num_units=found.num_units,
        full=full,
        design_effect=found.design_effect,
    )


def unit_row(group: str, name: str, label: str, answers: Sequence[ScoredAnswer]) -> MetricRow:
    """The row of a share of units, each right only if all its questions are: pairs, circular groups, acc+.

    A unit is the questions of one `group`. Its interval is Wilson's: units are independent. `n` stays the number of
    questions. A unit with an answer without a known truth is left out.

    Raises:
        DataError: No unit is scored.
    """
    units = [unit for unit in units_of(answers) if all(answer.score.value is not None for answer in unit)]
    _require(units, label)
    scored = [answer for unit in units for answer in unit]
    right = sum(all(answer.score.value == 1 for answer in unit) for unit in units)
    ends = statistics.wilson(right, len(units))
    return MetricRow(
        group=group,
        name=name,
        label=label,
        accuracy=100 * right / len(units),
        low=100 * ends.low,
        high=100 * ends.high,
        chance=_percent(_guess_units(units)),
        best_constant=_percent(_constant_units(units)),
        parse_rate=parse_rate(scored),
        n=len(scored),
        num_units=len(units),
    )


def weighted_row(group: str, name: str, label: str, parts: Sequence[tuple[float, MetricRow]]) -> MetricRow:
    """The row of a weighted sum of rows of different questions; weights 1/k give a mean of k rows.

    Intervals add as those of independent scores do, so rows made of the same answers must not be added this way: give
    `mean_row` the sum as values instead. `full` is the weighted sum of theirs, the design effect the mean of theirs by
    the squared widths of their intervals.

    Raises:
        DataError: There are no rows.
    """
    _require(parts, label)
    interval = statistics.combine([(weight, row.accuracy, row.low, row.high) for weight, row in parts])
    full = math.fsum(weight * row.full for weight, row in parts)
    n = sum(row.n for _, row in parts)
    spreads = [(weight * (row.high - row.low)) ** 2 for weight, row in parts]
    effects = math.fsum(spread * row.design_effect for spread, (_, row) in zip(spreads, parts, strict=True))
    return MetricRow(
        group=group,
        name=name,
        label=label,
        accuracy=math.fsum(weight * row.accuracy for weight, row in parts),
        low=max(0.0, interval.low),
        high=min(full, interval.high),
        chance=_weighted([(weight, row.chance) for weight, row in parts]),
        # A constant reply is one letter for all of them, so the sum of the rows' best ones is not it.
        best_constant=None,
        parse_rate=math.fsum(row.parse_rate * row.n for _, row in parts) / n,
        n=n,
        num_units=sum(row.num_units for _, row in parts),
        full=full,
        design_effect=effects / math.fsum(spreads) if any(spreads) else 1.0,
    )


def choice_row(group: str, name: str, label: str, strata: Sequence[WeightedAnswers]) -> MetricRow:
    """The row of a weighted mean over strata of multiple-choice answers that stand alone; weights sum to 1."""
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
        best_constant=_percent(_constant([(stratum.weight, stratum.answers) for stratum in strata])),
        parse_rate=parse_rate(answers),
        n=len(answers),
        num_units=len(answers),
    )


def plain_row(group: str, name: str, label: str, answers: Sequence[ScoredAnswer]) -> MetricRow:
    """The row of an unweighted mean over multiple-choice answers that stand alone."""
    return choice_row(group, name, label, [WeightedAnswers(1.0, answers)])


def parse_rate(answers: Sequence[ScoredAnswer]) -> float:
    """Percent of replies in which an answer was found; 0 where there are none."""
    return 100 * sum(answer.score.extracted is not None for answer in answers) / max(1, len(answers))


def unit_of(question: Question) -> Hashable:
    """What the question is not independent of: its group, or itself where it stands alone."""
    return ("group", question.group) if question.group else ("question", question.id)


def units_of(answers: Sequence[ScoredAnswer]) -> list[list[ScoredAnswer]]:
    """Answers by unit, in the order in which the units begin."""
    units: dict[Hashable, list[ScoredAnswer]] = {}
    for answer in answers:
        units.setdefault(unit_of(answer.question), []).append(answer)
    return list(units.values())


def _require(found: Sequence[Any], label: str) -> None:
    if not found:
        raise DataError(f"{label}: found no answer to a question whose truth is known, expected at least one.")


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _weighted(parts: Sequence[tuple[float, float | None]]) -> float | None:
    """The weighted sum; None where a part has no such level."""
    known = [(weight, level) for weight, level in parts if level is not None]
    return math.fsum(weight * level for weight, level in known) if len(known) == len(parts) else None


def _chance(answers: Sequence[ScoredAnswer]) -> float:
    return statistics.chance_level([len(answer.question.choices) for answer in answers])


def _guess(answers: Sequence[ScoredAnswer]) -> float | None:
    """What a uniform guess scores; an open question among others counts 0, for nobody guesses its answer."""
    shares = [_guess_one(answer) for answer in answers]
    return math.fsum(shares) / len(shares) if any(shares) else None


def _guess_units(units: Sequence[Sequence[ScoredAnswer]]) -> float | None:
    shares = [math.prod(map(_guess_one, unit)) for unit in units]
    return math.fsum(shares) / len(shares) if any(shares) else None


def _guess_one(answer: ScoredAnswer) -> float:
    return 1 / len(answer.question.choices) if answer.question.choices else 0.0


def _constant(strata: Sequence[tuple[float, Sequence[ScoredAnswer]]]) -> float | None:
    """What the best letter, always given, scores; None where no question has choices."""
    levels = [(weight, _letter_levels(answers)) for weight, answers in strata]
    letters = {letter for _, level in levels for letter in level}
    scores = [math.fsum(weight * level.get(letter, 0.0) for weight, level in levels) for letter in sorted(letters)]
    return max(scores, default=None)


def _letter_levels(answers: Sequence[ScoredAnswer]) -> dict[str, float]:
    truths = [answer.question.answers[0] if answer.question.choices else "" for answer in answers]
    return {letter: level for letter, level in statistics.constant_levels(truths).items() if letter}


def _constant_units(units: Sequence[Sequence[ScoredAnswer]]) -> float | None:
    if not any(answer.question.choices for unit in units for answer in unit):
        return None
    truths = [{answer.question.answers[0] if answer.question.choices else "" for answer in unit} for unit in units]
    same = statistics.constant_levels([truth.pop() if len(truth) == 1 else "" for truth in truths])
    return max((level for letter, level in same.items() if letter), default=0.0)
