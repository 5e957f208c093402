"""How far reviewers agree: as often as it happens, and beyond chance.

Two reviewers: Cohen's kappa. More: Krippendorff's alpha for nominal labels, which allows that not everybody decided
everything. Only questions that two reviewers or more decided are compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations

import msgspec

from cambrian_data.cvbench.review.benchmark import Benchmark
from cambrian_data.cvbench.review.decisions import count_kinds
from cambrian_data.cvbench.review.verdicts import Decisions

Labels = Sequence[str]
"""What the reviewers of one question decided, in the order of their names."""


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """Agreement on some questions.

    Attributes:
        questions: that were compared.
        unanimous: of these, on which all decisions are of one kind.
        raw: the part of pairs of decisions about one question that are of one kind, averaged over the questions; None
            where none was compared.
        coefficient: beyond chance, 1 at best; None where it is undefined, as every decision is of one kind.
    """

    questions: int
    unanimous: int
    raw: float | None
    coefficient: float | None


class Disagreement(msgspec.Struct, frozen=True, kw_only=True):
    """A question that was decided differently, or changed differently; the decisions, by reviewer."""

    idx: int
    task: str
    decisions: dict[str, str]


class AgreementSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Agreement of all reviewers of a benchmark.

    Attributes:
        reviewers: how many questions each accepted, modified and rejected.
        coefficient: its name.
        overall: on all questions.
        tasks: on those of each task.
        disagreements: in the order of the tables.
        changed_differently: the `idx` that all modified, but not in the same way; they count as agreement above.
    """

    reviewers: dict[str, dict[str, int]]
    coefficient: str
    overall: Agreement
    tasks: dict[str, Agreement]
    disagreements: list[Disagreement]
    changed_differently: list[int]


def measure_agreement(benchmark: Benchmark, decisions: Decisions) -> AgreementSummary:
    """Compares the decisions of all reviewers."""
    names = sorted(decisions)
    labels: dict[str, list[Labels]] = {item.asked.task: [] for item in benchmark.items.values()}
    disagreements, changed_differently = [], []
    for idx, item in benchmark.items.items():
        found = {name: decisions[name][idx] for name in names if idx in decisions[name]}
        kinds = {name: decision.decision for name, decision in found.items()}
        labels[item.asked.task].append(list(kinds.values()))
        if len(set(kinds.values())) > 1:
            disagreements.append(Disagreement(idx=idx, task=item.asked.task, decisions=dict(kinds)))
        elif len({decision.changes for decision in found.values()}) > 1:
            changed_differently.append(idx)
    return AgreementSummary(
        reviewers={name: count_kinds(decisions[name]) for name in names},
        coefficient="Cohen's kappa" if len(names) == 2 else "Krippendorff's alpha",
        overall=agree([one for task in labels.values() for one in task], len(names)),
        tasks={task: agree(found, len(names)) for task, found in labels.items()},
        disagreements=disagreements,
        changed_differently=changed_differently,
    )


def agree(labels: Iterable[Labels], num_reviewers: int) -> Agreement:
    """Agreement on questions, of which those with fewer than two labels are left out."""
    compared = [of_question for of_question in labels if len(of_question) > 1]
    if num_reviewers == 2:
        coefficient = cohen_kappa([(first, second) for first, second in compared])
    else:
        coefficient = krippendorff_alpha(compared)
    return Agreement(
        questions=len(compared),
        unanimous=sum(len(set(of_question)) == 1 for of_question in compared),
        raw=raw_agreement(compared),
        coefficient=coefficient,
    )


def raw_agreement(labels: Sequence[Labels]) -> float | None:
    """The part of pairs that are equal, averaged over the questions; None without questions."""
    if not labels:
        return None
    parts = []
    for of_question in labels:
        pairs = list(combinations(of_question, 2))
        parts.append(sum(first == second for first, second in pairs) / len(pairs))
    return sum(parts) / len(parts)


def cohen_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's kappa of two raters; None without pairs, or where both gave one and the same label throughout.

    Source: Cohen, A coefficient of agreement for nominal scales, Educational and Psychological Measurement 20(1), 1960.
    """
    if not pairs:
        return None
    count = len(pairs)
    observed = sum(first == second for first, second in pairs) / count
    firsts, seconds = Counter(first for first, _ in pairs), Counter(second for _, second in pairs)
    expected = sum(firsts[label] * seconds[label] for label in firsts) / count**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


def krippendorff_alpha(labels: Sequence[Labels]) -> float | None:
    """Krippendorff's alpha for nominal labels; None where there is no pair, or only one label.

    Source: Krippendorff, Computing Krippendorff's alpha-reliability, University of Pennsylvania, 2011, section C.
    """
    pairable = [of_unit for of_unit in labels if len(of_unit) > 1]
    totals = Counter(label for of_unit in pairable for label in of_unit)
    num_labels = totals.total()
    expected = num_labels**2 - sum(count**2 for count in totals.values())
    if expected == 0:
        return None
    observed = 0.0
    for of_unit in pairable:
        counts = Counter(of_unit)
        differing = len(of_unit) ** 2 - sum(count**2 for count in counts.values())
        observed += differing / (len(of_unit) - 1)
    return 1 - (num_labels - 1) * observed / expected
