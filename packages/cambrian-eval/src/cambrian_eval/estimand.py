"""What a benchmark's score is a mean of, so that the difference of two runs is the difference of their scores.

CV-Bench weighs sources, MMVP counts pairs, MME adds questions and pairs. Instead of telling this a second time for each
benchmark, it is found by asking the benchmark's own metrics what they make of answers that are right in one stratum and
wrong elsewhere, and then checked on answers of which every third is right and on those of the runs.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from cambrian_eval.metrics import unit_of, units_of
from cambrian_eval.whole_units import SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    from cambrian_eval.types import ScoredAnswer

Stratum = tuple[str, str, str]
Count = Literal["questions", "units", "questions and units"]

TOLERANCE = 1e-9
"""Of a score's full value: sums taken in another order differ by less."""


class Term(NamedTuple):
    """One thing that is counted: its value from 0 to 1, its stratum, and what it is not independent of."""

    value: float
    stratum: Stratum
    group: Hashable


@dataclass(frozen=True)
class Estimand:
    """A score as a weighted mean.

    Attributes:
        count: What is counted: questions, units that are right only as a whole, or the mean of both.
        weights: Of every stratum; their sum is what a perfect model scores.
        full: That sum.
    """

    count: Count
    weights: Mapping[Stratum, float]
    full: float

    def terms(self, answers: Sequence[ScoredAnswer]) -> dict[Hashable, Term]:
        """What is counted of a run, by a key that is the same in every run; strata without weight are left out."""
        return {key: term for key, term in _terms(self.count, answers).items() if self.weights.get(term.stratum)}


def find(
    headline: Callable[[Sequence[ScoredAnswer]], float | None], runs: Sequence[Sequence[ScoredAnswer]]
) -> Estimand | None:
    """What the score counts; None if it is not a weighted mean (an F1, say), or not the same one for all runs.

    Args:
        headline: A benchmark's score of some answers.
        runs: Answers to the same questions, all with known truths.
    """
    weights, patterns = _weights(headline, runs[0]), [*runs, _third(runs[0])]
    if weights is None:
        return None
    for count in get_args(Count):
        if all(_fits(headline, count, weights, answers) for answers in patterns):
            return Estimand(count, weights, math.fsum(weights.values()))
    return None


def _weights(
    headline: Callable[[Sequence[ScoredAnswer]], float | None], answers: Sequence[ScoredAnswer]
) -> dict[Stratum, float] | None:
    """Of every stratum, what the score is where it alone is right; None where the score is none."""
    strata = {answer.question.stratum: None for answer in answers}
    levels = {name: headline([_set(answer, answer.question.stratum == name) for answer in answers]) for name in strata}
    known = {name: level for name, level in levels.items() if level is not None}
    return known if len(known) == len(levels) else None


def _fits(
    headline: Callable[[Sequence[ScoredAnswer]], float | None],
    count: Count,
    weights: Mapping[Stratum, float],
    answers: Sequence[ScoredAnswer],
) -> bool:
    score, full = headline(answers), math.fsum(weights.values())
    parts: dict[Stratum, list[float]] = {}
    for term in _terms(count, answers).values():
        parts.setdefault(term.stratum, []).append(term.value)
    if score is None or not full or any(weight and name not in parts for name, weight in weights.items()):
        return False
    mean = math.fsum(weights[name] * math.fsum(values) / len(values) for name, values in parts.items())
    return abs(mean - score) <= TOLERANCE * full


def _terms(count: Count, answers: Sequence[ScoredAnswer]) -> dict[Hashable, Term]:
    return dict(_count_units(answers) if count == "units" else _count_questions(count, answers))


def _count_questions(count: Count, answers: Sequence[ScoredAnswer]) -> Iterable[tuple[Hashable, Term]]:
    units = units_of(answers) if count == "questions" else _whole(answers)
    for unit in units:
        whole = all(answer.score.value == 1 for answer in unit)
        for answer in unit:
            value = answer.score.value or 0.0
            counted = value if count == "questions" else (value + whole) / 2
            yield answer.question.id, Term(counted, answer.question.stratum, unit_of(answer.question))


def _count_units(answers: Sequence[ScoredAnswer]) -> Iterable[tuple[Hashable, Term]]:
    for unit in _whole(answers):
        first = unit[0].question
        whole = float(all(answer.score.value == 1 for answer in unit))
        yield unit_of(first), Term(whole, first.stratum, unit_of(first))


def _whole(answers: Sequence[ScoredAnswer]) -> list[list[ScoredAnswer]]:
    """Units of which every question was asked; the others count in no score of units."""
    return [unit for unit in units_of(answers) if len(unit) == unit[0].question.details.get(SIZE, len(unit))]


def _third(answers: Sequence[ScoredAnswer]) -> list[ScoredAnswer]:
    """Answers of which every third unit is right and of the next only one question."""
    changed: list[ScoredAnswer] = []
    for number, unit in enumerate(units_of(answers)):
        changed += [
            _set(answer, number % 3 == 0 or (number % 3 == 1 and place == 0)) for place, answer in enumerate(unit)
        ]
    return changed


def _set(answer: ScoredAnswer, right: bool) -> ScoredAnswer:
    return dataclasses.replace(answer, score=dataclasses.replace(answer.score, value=float(right)))
