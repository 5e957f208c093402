"""The audit of a benchmark: what can be guessed of it, by priors and by models that see no picture."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from cambrian_data.cvbench.audit import blind, priors
from cambrian_data.cvbench.audit.blind import BlindResult, Guess
from cambrian_data.cvbench.audit.chance import ALPHA, Trial, correct, detectable, wilson
from cambrian_data.cvbench.audit.filter import Drop, to_drop
from cambrian_data.cvbench.audit.items import Item, read_items
from cambrian_data.cvbench.audit.orders import Guesser, ask, check_orders
from cambrian_data.cvbench.audit.priors import PRIORS, SHOWN, PriorResult, Share

FORMAT_VERSION = 1


class Constant(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer, always given, scores in a task; shares are 0 to 1.

    Attributes:
        answer: the letter or the text that scores best; looking for the best makes it look better than luck.
        score: share of the task's questions that it gets right.
        low: lower end of the 95 % interval.
        high: upper end.
    """

    answer: str
    score: float
    low: float
    high: float


class TaskLevels(msgspec.Struct, frozen=True, kw_only=True):
    """What a task's score must be compared with; shares are 0 to 1.

    Attributes:
        task: its name.
        questions: in it.
        chance: mean of one over the number of choices.
        letter: the best letter.
        text: the best answer.
        category: what a guesser scores who knows the category and the answers of all other questions; None if no
            question is in the published wording.
        detectable: share of the questions that must give themselves away for four of five audits to find it, to a
            guesser who is settled in all of them; None if not even all of them would do.
    """

    task: str
    questions: int
    chance: float
    letter: Constant
    text: Constant
    category: float | None
    detectable: float | None


class ModelResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one model did.

    Attributes:
        name: of the model.
        groups: of questions, the whole first.
        flagged: idx of the questions whose right choice it picked in every order.
    """

    name: str
    groups: list[BlindResult]
    flagged: list[int]


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was found.

    Attributes:
        benchmark: name of its folder.
        content_hash: SHA-256 of its questions.
        questions: in it.
        orders: of the choices of each question, at most; None for as many as it has choices.
        seed: of the lots.
        alpha: how likely the audit finds anything at all in a benchmark without bias, at most.
        tests: that could have found something; p is corrected for them.
        findings: what is more than luck, in words; empty if nothing is.
        tasks: levels of each task.
        priors: what guessers score by them.
        shares: how often a letter, answer or place is right.
        models: what they did without pictures.
        drops: number of questions that would have to go for every model to be left with its luck.
    """

    benchmark: str
    content_hash: str
    questions: int
    orders: int | None
    seed: int
    alpha: float
    tests: int
    findings: list[str]
    tasks: list[TaskLevels]
    priors: list[PriorResult]
    shares: list[Share]
    models: list[ModelResult]
    drops: int
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True, slots=True)
class Audited:
    """An audit and what it is made of.

    Attributes:
        audit: the result.
        items: questions, in the order of the tables.
        guesses: of each model, in the same order.
        drops: questions to drop, and why.
    """

    audit: Audit
    items: list[Item]
    guesses: dict[str, list[Guess]]
    drops: list[Drop]


def audit(
    folder: Path, guessers: Mapping[str, Guesser] | None = None, *, orders: int | None = None, seed: int = 0
) -> Audited:
    """Audits a benchmark in the hub's layout.

    Args:
        folder: of the benchmark; its pictures are not read.
        guessers: models that see no picture, by name.
        orders: of the choices of each question, at most; None for as many as it has choices.
        seed: of what is drawn by lot; the same benchmark, models and seed give the same audit.

    Raises:
        DataError: if the folder holds no benchmark that can be audited, or a model's replies are not usable.
    """
    check_orders(orders)
    items = read_items(folder)
    by_task = {name: [item for item in items if item.task == name] for name in sorted({item.task for item in items})}
    guesses = {name: guess_all(guesser, items, orders, name) for name, guesser in (guessers or {}).items()}
    found = corrected(
        [result for of_task in by_task.values() for result in measure_priors(of_task, seed)],
        {
            name: [blind.measure(level, group, members) for level, group, members in blind.groups(of_model)]
            for name, of_model in guesses.items()
        },
    )
    models = {name: with_power(of_model, guesses[name], found.alpha) for name, of_model in found.models.items()}
    drops = to_drop(guesses, models, found.alpha, seed)
    result = Audit(
        benchmark=folder.resolve().name,
        content_hash=content_hash(items),
        questions=len(items),
        orders=orders,
        seed=seed,
        alpha=ALPHA,
        tests=found.tests,
        findings=[*prior_findings(found.priors), *blind_findings(models)],
        tasks=[levels(of_task, found.alpha) for of_task in by_task.values()],
        priors=found.priors,
        shares=[share for of_task in by_task.values() for prior in SHOWN for share in priors.shares(of_task, prior)],
        models=[
            ModelResult(
                name=name,
                groups=models[name],
                flagged=[guess.item.idx for guess in of_model if guess.flagged],
            )
            for name, of_model in guesses.items()
        ],
        drops=len(drops),
    )
    return Audited(result, items, guesses, drops)


def guess_all(guesser: Guesser, items: Sequence[Item], orders: int | None, name: str) -> list[Guess]:
    """What a model picks, in the order of the questions."""
    return [Guess(item, picks) for item, picks in zip(items, ask(guesser, items, orders, name), strict=True)]


def measure_priors(items: Sequence[Item], seed: int) -> list[PriorResult]:
    """What guessers score in one task by each prior that applies and sorts the questions as none before it."""
    found: list[PriorResult] = []
    seen: set[tuple[bytes, ...]] = set()
    for prior in PRIORS:
        layout = priors.lay_out(items, prior)
        if layout is None:
            continue
        sorting = layout.cells.tobytes(), repr([item.idx for item in layout.items]).encode()
        if sorting not in seen:
            seen.add(sorting)
            found.append(priors.measure(layout, prior, seed))
    return found


class Corrected(NamedTuple):
    """Results whose tests are corrected for each other.

    Attributes:
        priors: of all tasks.
        models: by name.
        tests: that could have found something.
        alpha: the level at which the first test of all but categories must find something.
    """

    priors: list[PriorResult]
    models: dict[str, list[BlindResult]]
    tests: int
    alpha: float


def corrected(measured: Sequence[PriorResult], models: Mapping[str, Sequence[BlindResult]]) -> Corrected:
    """The same results, all tests corrected for each other.

    Categories, of which there may be hundreds, are a family of their own and have half of ALPHA, so that they do not
    blunt the tests of priors, tasks and sources.
    """
    results = [result for of_model in models.values() for result in of_model]
    large, small = [result.trial for result in measured], list[Trial]()
    for result in results:
        (small if result.level == "category" else large).append(result.flagged_trial)
        large += [] if result.accuracy_trial is None else [result.accuracy_trial]
    part = 0.5 if small else 1.0
    done, of_categories = correct(large, part), correct(small, part)
    able = sum(trial.p_holm is not None for trial in done)
    following, following_small = iter(done), iter(of_categories)

    def with_trials(result: BlindResult) -> BlindResult:
        flagged = next(following_small if result.level == "category" else following)
        return replace(
            result, flagged_trial=flagged, accuracy_trial=None if result.accuracy_trial is None else next(following)
        )

    return Corrected(
        [replace(result, trial=next(following)) for result in measured],
        {name: [with_trials(result) for result in of_model] for name, of_model in models.items()},
        able + sum(trial.p_holm is not None for trial in of_categories),
        part * ALPHA / max(1, able),
    )


def with_power(results: Sequence[BlindResult], guesses: Sequence[Guess], alpha: float) -> list[BlindResult]:
    """The same results with what could have been found, but for categories, of which there may be hundreds."""
    settled = {
        (level, name): [guess.item.chance for guess in members if guess.settled]
        for level, name, members in blind.groups(guesses)
        if level != "category"
    }
    return [
        replace(result, detectable=detectable(settled[result.level, result.group], alpha))
        if result.level != "category"
        else result
        for result in results
    ]


def levels(items: Sequence[Item], alpha: float) -> TaskLevels:
    """What the score of one task must be compared with."""
    chances = [item.chance for item in items]
    by_category = priors.guess(items, "category")
    return TaskLevels(
        task=items[0].task,
        questions=len(items),
        chance=sum(chances) / len(items),
        letter=best(ascii_uppercase[item.place] for item in items),
        text=best(item.answer for item in items),
        category=sum(by_category.values()) / len(by_category) if by_category else None,
        detectable=detectable(chances, alpha),
    )


def best(answers: Iterable[str]) -> Constant:
    """The most frequent answer, the first in alphabetical order of several."""
    counts = Counter(answers)
    answer, right = min(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    interval = wilson(right, counts.total())
    return Constant(answer=answer, score=right / counts.total(), low=interval.low, high=interval.high)


def prior_findings(measured: Iterable[PriorResult]) -> list[str]:
    """The priors that are worth more than luck, in words."""
    return [
        f"{found.task}: who goes by {found.prior} is right in {found.score:.1%} of {found.questions} questions, with "
        f"answers drawn by lot in {found.luck_low:.1%} to {found.luck_high:.1%} (corrected p {found.trial.p_holm:.2g})"
        for found in measured
        if found.trial.finds
    ]


def blind_findings(results: Mapping[str, Sequence[BlindResult]]) -> list[str]:
    """The groups that a model answers better than luck explains, in words."""
    found = []
    for name, of_model in results.items():
        for result in of_model:
            if result.flagged_trial.finds:
                found.append(
                    f"{name}, {result.group}: right in every order in {result.flagged} questions, "
                    f"{result.expected:.1f} by luck ({result.expected_low:.0f} to {result.expected_high:.0f}; "
                    f"corrected p {result.flagged_trial.p_holm:.2g})"
                )
            if result.accuracy_trial is not None and result.accuracy_trial.finds:
                found.append(
                    f"{name}, {result.group}: {result.accuracy_all:.1%} of all replies are right, by luck "
                    f"{result.luck_low:.1%} to {result.luck_high:.1%} (corrected p {result.accuracy_trial.p_holm:.2g})"
                )
    return found


def content_hash(items: Sequence[Item]) -> str:
    """SHA-256 of the questions, in order; pictures are not in it."""
    encoder = msgspec.json.Encoder()
    digest = hashlib.sha256()
    for item in items:
        digest.update(encoder.encode([getattr(item, name) for name in Item.__slots__]) + b"\n")
    return digest.hexdigest()
