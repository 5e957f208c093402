"""The dataset card of a reviewed set: where its files are, who decided what, what is left, and how far they agreed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cambrian_data.cvbench.markdown import table
from cambrian_data.cvbench.review.agreement import AgreementSummary
from cambrian_data.cvbench.review.verdicts import Outcome, Rule, Verdict

BEFORE = "benchmark.md"
"""The card of the benchmark as it was reviewed, kept beside the reviewed set's own: it has the rules and the fields."""

RULES = {
    Rule.UNANIMOUS: "all who decided a question said the same",
    Rule.MAJORITY: "more than half of those who decided a question said the same",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a card tells.

    Attributes:
        name: of the benchmark that was reviewed.
        card: of that benchmark; None if it has none.
        rule: by which several reviewers came to one verdict.
        include_undecided: whether questions that nobody decided are in the set.
        outcomes: of each task.
        reviewers: what each decided.
        agreement: of the reviewers; None if there is but one.
    """

    name: str
    card: str | None
    rule: Rule
    include_undecided: bool
    outcomes: dict[str, dict[str, int]]
    reviewers: dict[str, dict[str, int]]
    agreement: AgreementSummary | None


def write_card(account: Account, kept: Sequence[Verdict]) -> str:
    """The card, with the front matter that the hub and `datasets.load_dataset` read."""
    parts = list(dict.fromkeys(one.item.asked.type for one in kept))
    text = [
        *front_matter(account.card, parts),
        f"# {account.name}, reviewed",
        "",
        f"{len(kept)} questions in the layout of CV-Bench, kept by people who looked at {total(account.outcomes)} of "
        f"the benchmark `{account.name}`.",
        "",
        f"A question is in the set if {RULES[account.rule]}, and that was to accept or to modify it"
        f"{'; questions that nobody decided are in it as they stood' if account.include_undecided else ''}. "
        "What is left out, and why, stands in `review.json`.",
        "",
        "The pictures and their annotations keep the licences of their sources."
        f"{f' How the benchmark was made, and what its fields hold, stands in `{BEFORE}`.' if account.card else ''}",
        "",
        "## Verdicts",
        "",
        table(["task", *map(str, Outcome), "in this set"], verdict_rows(account, kept)),
        "## Reviewers",
        "",
        table(["reviewer", "accepted", "modified", "rejected"], reviewer_rows(account)),
        *agreement_section(account.agreement),
        "## Answers",
        "",
        table(["task", "source", "questions", "letters"], answer_rows(kept)),
    ]
    return "\n".join(text)


def front_matter(card: str | None, parts: Sequence[str]) -> Iterator[str]:
    """What machines read of the card; the licence is that of the benchmark's own card, if it names one."""
    yield "---"
    licence = None if card is None else licence_line(card)
    if licence is not None:
        yield licence
    yield "task_categories:"
    yield "- visual-question-answering"
    yield "configs:"
    for name in ("default", *parts):
        yield f"- config_name: {name if name == 'default' else repr(name)}"
        yield "  data_files:"
        yield "  - split: test"
        yield "    path:"
        for part in parts if name == "default" else [name]:
            yield f"    - test_{part.lower()}.parquet"
    yield "---"


def licence_line(card: str) -> str | None:
    """The line of a card's front matter that names its licence."""
    matter = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
    line = matter and re.search(r"^license: *\S.*$", matter[1], re.MULTILINE)
    return line[0] if line else None


def verdict_rows(account: Account, kept: Sequence[Verdict]) -> list[list[object]]:
    """A row for each task, and their sum."""
    inside = [one.item.asked.task for one in kept]
    rows: list[list[object]] = [
        [task, *counts.values(), inside.count(task)] for task, counts in account.outcomes.items()
    ]
    sums = [sum(counts[outcome] for counts in account.outcomes.values()) for outcome in Outcome]
    return [*rows, ["all", *sums, len(inside)]]


def reviewer_rows(account: Account) -> list[list[object]]:
    """A row for each reviewer."""
    return [[name, counts["accept"], counts["modify"], counts["reject"]] for name, counts in account.reviewers.items()]


def agreement_section(agreement: AgreementSummary | None) -> list[str]:
    """How far several reviewers agreed."""
    if agreement is None:
        return []
    rows: list[list[object]] = [
        [task, one.questions, shown(one.raw), shown(one.coefficient)]
        for task, one in [*agreement.tasks.items(), ("all", agreement.overall)]
    ]
    return [
        "## Agreement",
        "",
        "On questions that two reviewers or more decided:",
        "",
        table(["task", "questions", "raw agreement", agreement.coefficient], rows),
    ]


def answer_rows(kept: Sequence[Verdict]) -> list[list[object]]:
    """How many questions of each task and source there are, and how often each letter is right."""
    groups: dict[tuple[str, str], list[str]] = {}
    for one in kept:
        groups.setdefault((one.item.asked.task, one.item.asked.source), []).append(one.row["answer"][1])
    return [
        [task, source, len(letters), ", ".join(f"{letter} {letters.count(letter)}" for letter in sorted(set(letters)))]
        for (task, source), letters in groups.items()
    ]


def shown(value: float | None) -> str:
    """A number with three places."""
    return "undefined" if value is None else f"{value:.3f}"


def total(outcomes: Mapping[str, Mapping[str, int]]) -> str:
    """How many questions were decided, of how many."""
    everything = sum(sum(counts.values()) for counts in outcomes.values())
    undecided = sum(counts[Outcome.UNDECIDED] for counts in outcomes.values())
    return f"{everything - undecided} of the {everything} questions"
