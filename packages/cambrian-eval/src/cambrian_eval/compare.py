"""Two runs of one benchmark on the same questions: how far apart they are, whether that is luck, and why.

The difference is that of the scores as the benchmark makes them, strata, pairs and all, with an interval that counts
what is not independent as one. Runs that do not belong together are refused and not compared on what happens to match.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from cambrian_eval import estimand, reasons, statistics
from cambrian_eval.errors import EvalError
from cambrian_eval.metrics import measure, parse_rate, unit_of
from cambrian_eval.runs import pair_up, read_run

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from pathlib import Path

    from cambrian_eval.estimand import Estimand, Term
    from cambrian_eval.reasons import Pair, Reason
    from cambrian_eval.runs import Run
    from cambrian_eval.statistics import Difference
    from cambrian_eval.types import ScoredAnswer

MIN_UNITS = 30
"""A stratum with fewer independent units does not tell its own spread from that of others."""

NUM_BOOTSTRAP = 200
"""Resamples for a score that is no mean: each one costs the benchmark's metrics twice."""


class Flip(NamedTuple):
    """A question on which two runs score differently.

    Attributes:
        id: The question's.
        change: Value in the second run minus value in the first.
        truth: Accepted answers.
        replies: Of both runs.
        extracted: How both were read.
        cause: What the change comes with.
    """

    id: str
    change: float
    truth: tuple[str, ...]
    replies: tuple[str, str]
    extracted: tuple[str | None, str | None]
    cause: str


@dataclass(frozen=True)
class Comparison:
    """Two runs on their shared questions; levels are in the unit of the score, percent mostly.

    Attributes:
        task: Name of the benchmark.
        runs: What is compared: labels of the first and of the second.
        folders: Theirs.
        scores: Theirs on the shared questions.
        parse_rates: Percent of their replies to these in which an answer was found.
        full: What a perfect model scores.
        difference: Second minus first, with its 95 % interval.
        what: What the difference is of.
        num_shared: Number of shared questions.
        num_only: Questions that only the first and only the second run answered.
        gained: Questions (or units) wrong in the first run and right in the second; None where values are graded.
        lost: The other way round.
        mcnemar: Exact p-value of gains against losses; None where values are graded.
        sign_flip: P-value of flipped signs of what enters the score, by group; None where exact McNemar says the same.
        test: Which of both the p-value is of.
        p: The p-value.
        flips: Questions on which they differ, losses first.
        reasons: What differs between the runs.
        unfinished: Folders of the runs that still owe answers.
    """

    task: str
    runs: tuple[str, str]
    folders: tuple[Path, Path]
    scores: tuple[float, float]
    parse_rates: tuple[float, float]
    full: float
    difference: Difference
    what: str
    num_shared: int
    num_only: tuple[int, int]
    gained: int | None
    lost: int | None
    mcnemar: float | None
    sign_flip: float | None
    test: str
    p: float
    flips: tuple[Flip, ...]
    reasons: tuple[Reason, ...]
    unfinished: tuple[Path, ...] = ()

    @property
    def causes(self) -> dict[str, int]:
        """Number of flips by what they come with, most first."""
        return dict(Counter(flip.cause for flip in self.flips).most_common())

    @property
    def detectable(self) -> float:
        """The smallest true difference that would show in four of five such comparisons."""
        return statistics.detectable(self.difference.standard_error)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; what is infinite, for want of questions, is null."""
        return {
            **{name: getattr(self, name) for name in ("task", "runs", "full", "what", "num_shared", "num_only")},
            **{name: getattr(self, name) for name in ("gained", "lost", "mcnemar", "sign_flip", "test", "p", "causes")},
            "folders": [str(folder) for folder in self.folders],
            "unfinished": [str(folder) for folder in self.unfinished],
            "scores": self.scores,
            "parse_rates": self.parse_rates,
            "difference": {
                name: value if math.isfinite(value) else None for name, value in self.difference._asdict().items()
            },
            "detectable": self.detectable if math.isfinite(self.detectable) else None,
            "flips": [flip._asdict() for flip in self.flips],
            "reasons": [reason.to_dict() for reason in self.reasons],
        }


class Family(NamedTuple):
    """Comparisons that are read together.

    Attributes:
        comparisons: One for each pair of runs.
        adjusted: Their p-values after Holm, in the same order.
    """

    comparisons: tuple[Comparison, ...]
    adjusted: tuple[float, ...]


def compare_all(folders: Sequence[Path], *, shared: bool = False) -> Family:
    """Compare the first of several runs, or folders of runs, with each of the others; see `runs.pair_up`.

    Raises:
        EvalError: As `compare` and `runs.pair_up` do.
    """
    found = [compare(*pair, shared=shared) for pair in pair_up(folders)]
    return Family(tuple(found), tuple(statistics.holm([comparison.p for comparison in found])))


def compare(first: Path, second: Path, *, shared: bool = False) -> Comparison:
    """Compare two runs of one benchmark, the second with the first.

    Args:
        first: Folder of a run.
        second: Folder of another one.
        shared: Compare on the questions that both answered, though one of the runs answered others too or is not
            finished.

    Raises:
        EvalError: The runs do not compare: other benchmarks, other questions or none in common, or not finished.
    """
    runs = read_run(first), read_run(second)
    pairs = _pairs(*runs, shared)
    sides = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    headline = _headline(*runs)
    scores = _score(runs[0], headline, sides[0]), _score(runs[1], headline, sides[1])
    found = estimand.find(headline, sides)
    measured = _measure(found, headline, sides)
    flips = sorted((_flip(pair) for pair in pairs if _change(pair)), key=lambda flip: flip.change)
    return Comparison(
        task=runs[0].task,
        runs=(runs[0].label, runs[1].label),
        folders=(first, second),
        scores=scores,
        parse_rates=(parse_rate(sides[0]), parse_rate(sides[1])),
        full=found.full if found else 100.0,
        num_shared=len(pairs),
        num_only=_only(*runs),
        unfinished=tuple(run.folder for run in runs if not run.finished),
        flips=tuple(flips),
        reasons=tuple(
            reasons.explain((runs[0].identity, runs[1].identity), (runs[0].provenance, runs[1].provenance), pairs)
        ),
        **measured,
    )


# Which runs, which questions.


def _pairs(first: Run, second: Run, shared: bool) -> list[Pair]:
    """The answers of both runs to the questions that both answered and whose truth is known."""
    names = f"{first.folder} and {second.folder}"
    if first.task != second.task:
        raise EvalError(
            f"{names}: found {first.task} and {second.task}, expected two runs of one benchmark. Scores of different "
            "benchmarks do not compare."
        )
    common = [name for name in first.answers if name in second.answers]
    if not common:
        raise EvalError(
            f"{names}: found no question that both answered ({_some_ids(first)} against {_some_ids(second)}), expected "
            "the same questions. Evaluate both on the same data, limit and seed."
        )
    only = _only(first, second)
    if any(only) and not shared:
        raise EvalError(
            f"{names}: found {only[0]} questions that only the first answered and {only[1]} that only the second did, "
            f"beside {len(common)} shared ones; expected the same questions in both ({_selection(first)} against "
            f"{_selection(second)}). Repeat one with the limit and seed of the other, finish what is not finished, or "
            "compare the shared ones with --shared."
        )
    if not shared:
        _check_finished(first, second)
    pairs = [(first.answers[name], second.answers[name]) for name in common]
    _check_same_data(names, pairs)
    known = [pair for pair in pairs if all(answer.score.value is not None for answer in pair)]
    if not known:
        raise EvalError(
            f"{names}: found no question whose truth is known, expected scores. Ask a split with public answers."
        )
    return known


def _check_finished(*runs: Run) -> None:
    """Answers that the same failures spared in both runs are not the benchmark."""
    for run in runs:
        if not run.finished:
            raise EvalError(
                f"{run.folder}: found an evaluation that is not finished, expected an answer to every question. Repeat "
                "its command, or compare what is there with --shared."
            )


def _check_same_data(names: str, pairs: Sequence[Pair]) -> None:
    """Corrected labels and another wording are differences to tell; another benchmark under the same ids is not."""
    texts = [pair for pair in pairs if not _is_same_question(*pair)]
    truths = [pair for pair in pairs if set(pair[0].question.answers) != set(pair[1].question.answers)]
    if 2 * len(texts) > len(pairs) or 4 * len(truths) > len(pairs):
        example = (texts or truths)[0][0].question.id
        raise EvalError(
            f"{names}: found other questions under the same ids: {len(texts)} of {len(pairs)} ask something else and "
            f"{len(truths)} have another truth ({example}, for one); expected the same benchmark. Evaluate both on the "
            "same data."
        )


def _is_same_question(first: ScoredAnswer, second: ScoredAnswer) -> bool:
    """The same text, or at least the same options: what another wording or order of the options leaves alone."""
    here, there = first.question, second.question
    return here.text == there.text or (bool(here.choices) and sorted(here.choices) == sorted(there.choices))


def _only(first: Run, second: Run) -> tuple[int, int]:
    return len(first.answers.keys() - second.answers.keys()), len(second.answers.keys() - first.answers.keys())


def _some_ids(run: Run) -> str:
    return ", ".join(list(run.answers)[:3]) or "none"


def _selection(run: Run) -> str:
    limit, ids = run.identity.get("limit"), run.identity.get("ids")
    return f"limit {limit}, seed {run.identity.get('seed')}" if limit else f"ids {ids}" if ids else "no limit"


# How far apart.


def _headline(first: Run, second: Run) -> Callable[[Sequence[ScoredAnswer]], float | None]:
    """The benchmark's score of some answers: its task's, the other tool's, or the plain mean for an unknown task."""
    from cambrian_eval.report.table import rules_of
    from cambrian_eval.runner import resolve
    from cambrian_eval.tasks import TASKS

    rules = {rules_of(run.identity) for run in (first, second)}
    shared = rules.pop() if len(rules) == 1 else None  # by different rules: the task's own metrics for both
    metrics = resolve(first.task, shared).metrics if first.task in TASKS.names() else measure
    return lambda answers: metrics(answers).summary.get("score")


def _score(
    run: Run, headline: Callable[[Sequence[ScoredAnswer]], float | None], answers: Sequence[ScoredAnswer]
) -> float:
    """A run's own score, made before all that rests on it.

    Raises:
        EvalError: The questions make none, or the log is too old for the benchmark's metrics.
    """
    from cambrian_eval.report.recorded import task_of, with_details

    task = task_of(run.identity)
    with with_details(run.folder, task) if task is not None else contextlib.nullcontext():
        score = headline(answers)
    if score is None:
        raise EvalError(
            f"{run.folder}: the {len(answers)} shared questions make no score of {run.task}, such as where it counts "
            "pairs and no pair is whole. Compare runs that share more questions."
        )
    return score


def _measure(
    found: Estimand | None,
    headline: Callable[[Sequence[ScoredAnswer]], float | None],
    sides: tuple[Sequence[ScoredAnswer], Sequence[ScoredAnswer]],
) -> dict[str, Any]:
    """Difference, tests and what they are of."""
    if found is None:
        plain = dict.fromkeys((answer.question.stratum for answer in sides[0]), 1.0)
        counted = estimand.Estimand("questions", plain, 100.0)
        tested = _test(counted, sides, [1.0] * len(sides[0]))
        return {"difference": _bootstrap(headline, sides), "what": "the score, which is no mean", **tested}
    first, second = (found.terms(side) for side in sides)
    terms = list(first.values())
    changes = [second[key].value - first[key].value for key in first]
    weights = _weights(found, terms)
    strata = _strata(terms, weights, changes)
    totals: Counter[Hashable] = Counter()
    for name, weight in zip(strata, weights, strict=True):
        totals[name] += weight  # type: ignore[assignment]
    weighted = f" weighted over {len(totals)} strata" if len(set(weights)) > 1 else ""
    return {
        "difference": statistics.paired_difference(changes, [term.group for term in terms], strata, totals),
        "what": f"the score, a mean of {found.count}{weighted}",
        **_test(found, sides, weights),
    }


def _weights(found: Estimand, terms: Sequence[Term]) -> list[float]:
    """How much each thing counts in the score, rounded: equal weights, summed in another order, are still equal."""
    sizes = Counter(term.stratum for term in terms)
    each = {name: float(f"{found.weights[name] / count:.9g}") for name, count in sizes.items()}
    return [each[term.stratum] for term in terms]


def _strata(terms: Sequence[Term], weights: Sequence[float], changes: Sequence[float]) -> list[Hashable]:
    """The stratum whose spread each change adds to: its own, or one of all that weighs as much if its own shows none.

    Subjects of a plain benchmark, of which a limit leaves a few questions each or in which nothing flips, have no
    spread to speak of by themselves and need none.
    """
    units: dict[Hashable, set[Hashable]] = {}
    found: dict[Hashable, set[float]] = {}
    for term, change in zip(terms, changes, strict=True):
        units.setdefault(term.stratum, set()).add(term.group)
        found.setdefault(term.stratum, set()).add(change)
    alone = {name for name in units if len(units[name]) >= MIN_UNITS and len(found[name]) > 1}
    pooled = {weight for term, weight in zip(terms, weights, strict=True) if term.stratum not in alone}
    return [weight if weight in pooled else term.stratum for term, weight in zip(terms, weights, strict=True)]


def _test(
    found: Estimand, sides: tuple[Sequence[ScoredAnswer], Sequence[ScoredAnswer]], weights: Sequence[float]
) -> dict[str, Any]:
    """Exact McNemar for right and wrong; signs flipped by group for graded values and for what is not independent."""
    first, second = (found.terms(side) for side in sides)
    changes = [second[key].value - first[key].value for key in first]
    groups = [term.group for term in first.values()]
    binary = all(term.value in (0, 1) for side in (first, second) for term in side.values())
    gained, lost = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
    exact = binary and len(set(groups)) == len(groups)
    alike = exact and len(set(weights)) == 1
    mcnemar = statistics.mcnemar(gained, lost) if binary else None
    flipped = None if alike else statistics.sign_flip(changes, groups, weights)
    return {
        "gained": gained if binary else None,
        "lost": lost if binary else None,
        "mcnemar": mcnemar,
        "sign_flip": flipped,
        "test": "exact McNemar" if exact else "sign flips by group" if binary else "sign flips",
        "p": mcnemar if exact else flipped,
    }


def _bootstrap(
    headline: Callable[[Sequence[ScoredAnswer]], float | None],
    sides: tuple[Sequence[ScoredAnswer], Sequence[ScoredAnswer]],
) -> Difference:
    """The difference of two scores that are no means, with the percentile interval of resampled groups."""
    units: dict[Hashable, list[int]] = {}
    for place, answer in enumerate(sides[0]):
        units.setdefault(unit_of(answer.question), []).append(place)
    members = list(units.values())

    def difference(drawn: Sequence[int]) -> float:
        places = [place for unit in drawn for place in members[unit]]
        scores = [headline([side[place] for place in places]) for side in sides]
        return math.nan if None in scores else scores[1] - scores[0]  # type: ignore[operator]

    mean = difference(range(len(members)))
    interval = statistics.bootstrap(len(members), difference, num_resamples=NUM_BOOTSTRAP)
    return statistics.Difference(mean, *interval, math.nan, math.nan, len(members), math.nan)


def _change(pair: Pair) -> float:
    return (pair[1].score.value or 0.0) - (pair[0].score.value or 0.0)


def _flip(pair: Pair) -> Flip:
    first, second = pair
    return Flip(
        id=first.question.id,
        change=_change(pair),
        truth=first.question.answers,
        replies=(first.answer.text, second.answer.text),
        extracted=(first.score.extracted, second.score.extracted),
        cause=reasons.cause(pair),
    )
