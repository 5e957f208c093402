"""An audit for people: tables, what follows from them, and what does not. How it is drawn is the caller's business."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cambrian_data.cvbench.audit.blind import BlindResult
from cambrian_data.cvbench.audit.chance import Trial
from cambrian_data.cvbench.audit.report import Audit, Constant, ModelResult
from cambrian_data.cvbench.markdown import table

UNREADABLE = 0.5  # share of readable replies below which a model's silence must be pointed out


class Table(NamedTuple):
    """Cells as text."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def tabulate(audit: Audit, *, everything: bool = False) -> Iterator[Table]:
    """The tables of an audit.

    Args:
        audit: the result.
        everything: with the shares of letters and answers, and with all categories; otherwise only those found.
    """
    yield level_table(audit)
    yield prior_table(audit)
    if everything:
        yield share_table(audit)
    for model in audit.models:
        yield flag_table(model, everything)
        yield accuracy_table(model)


def level_table(audit: Audit) -> Table:
    """What a score must be compared with."""
    return Table(
        "Without pictures and models: % right, with 95 % intervals",
        ["task", "questions", "chance", "best letter", "best answer", "by category", "finds leaks from"],
        [
            [
                task.task,
                str(task.questions),
                percent(task.chance),
                constant(task.letter),
                constant(task.text),
                "" if task.category is None else percent(task.category),
                leak(task.detectable),
            ]
            for task in audit.tasks
        ],
    )


def prior_table(audit: Audit) -> Table:
    """What guessers score by what they go by."""
    return Table(
        "Who knows all other answers and goes by ...: % right",
        [
            "task",
            "going by",
            "questions",
            "right (95 %)",
            "chance",
            "answers drawn by lot (95 %)",
            "p",
            "corrected p",
            "",
        ],
        [
            [
                found.task,
                found.prior,
                str(found.questions),
                spread(found.score, found.low, found.high),
                percent(found.chance),
                f"{percent(found.luck_low)} to {percent(found.luck_high)}",
                *verdict(found.trial),
            ]
            for found in audit.priors
        ],
    )


def share_table(audit: Audit) -> Table:
    """How often each letter, answer, number and place is right where it is offered."""
    return Table(
        "How often it is right where it is offered: %",
        ["task", "of", "among", "which", "offered", "right", "% right (95 %)", "even"],
        [
            [
                share.task,
                share.prior,
                share.group,
                share.cue,
                str(share.offered),
                str(share.right),
                spread(share.right / share.offered, share.low, share.high),
                percent(share.expected),
            ]
            for share in audit.shares
        ],
    )


def flag_table(model: ModelResult, everything: bool) -> Table:
    """Questions that a model answers in every order."""
    return Table(
        f"{model.name}, without pictures: right in every order of the choices",
        [
            "",
            "questions",
            "same choice always",
            "right always",
            "by luck (95 %)",
            "p",
            "corrected p",
            "",
            "finds leaks from",
        ],
        [
            [
                found.group,
                str(found.questions),
                str(found.settled),
                str(found.flagged),
                f"{found.expected:.1f} ({found.expected_low:.0f} to {found.expected_high:.0f})",
                *verdict(found.flagged_trial),
                "" if found.level == "category" else leak(found.detectable),
            ]
            for found in chosen(model, everything)
        ],
    )


def accuracy_table(model: ModelResult) -> Table:
    """How often a model is right."""
    return Table(
        f"{model.name}, without pictures: % right",
        [
            "",
            "questions",
            "readable",
            "published order (95 %)",
            "chance",
            "all orders",
            "by luck (95 %)",
            "p",
            "corrected p",
            "",
        ],
        [
            [
                found.group,
                str(found.questions),
                percent(found.readable),
                spread(found.accuracy, found.accuracy_low, found.accuracy_high),
                percent(found.chance),
                percent(found.accuracy_all),
                spread(found.luck, found.luck_low, found.luck_high),
                *verdict(found.accuracy_trial),
            ]
            for found in model.groups
            if found.accuracy_trial is not None
        ],
    )


def chosen(model: ModelResult, everything: bool) -> list[BlindResult]:
    """The groups to show: of categories only those in which something was found, unless everything is wanted."""
    return [found for found in model.groups if everything or found.level != "category" or found.flagged_trial.finds]


def notes(audit: Audit) -> list[str]:
    """What follows, and what does not."""
    found = [f"found: {finding}" for finding in audit.findings]
    if not found:
        found.append("found: nothing that luck does not explain")
    counted = "1 test" if audit.tests == 1 else f"{audit.tests} tests, corrected together"
    found.append(
        f"{counted}: a benchmark without bias gives a finding with a probability of "
        f"{audit.alpha:.0%} at most. A leak smaller than stated may have been missed, and another model may know more."
    )
    if not audit.models:
        found.append("no model was asked: only priors were looked at")
    for model in audit.models:
        whole = model.groups[0]
        if whole.readable < UNREADABLE:
            found.append(
                f"{model.name}: only {whole.readable:.0%} of its replies give a letter; it says little of the benchmark"
            )
        elif not whole.settled:
            found.append(f"{model.name}: never picks the same choice in every order; it says nothing of the benchmark")
    if audit.drops:
        found.append(
            f"{audit.drops} questions would have to go for these models to be left with their luck; better is to find "
            "the cause and to build the benchmark anew"
        )
    return found


def markdown(audit: Audit) -> str:
    """The whole audit as a page."""
    lines = [f"# Audit of {audit.benchmark}", ""]
    lines += [f"{audit.questions} questions. What the columns mean: docs/cvbench/audit.md.", ""]
    lines += [f"- {note}" for note in notes(audit)]
    tables = [f"\n## {one.title}\n\n{table(one.columns, one.rows)}" for one in tabulate(audit, everything=True)]
    return "\n".join([*lines, ""]) + "".join(tables)


def percent(share: float) -> str:
    """A share as percent, without the sign."""
    return f"{100 * share:.1f}"


def spread(share: float, low: float, high: float) -> str:
    """A share with its interval, percent."""
    return f"{percent(share)} ({percent(low)} to {percent(high)})"


def constant(found: Constant) -> str:
    """An answer and what it scores."""
    return f"{found.answer}: {spread(found.score, found.low, found.high)}"


def leak(share: float | None) -> str:
    """The share of questions that would have been found."""
    return "none" if share is None else f"{100 * share:.0f} %"


def verdict(trial: Trial) -> tuple[str, str, str]:
    """p, corrected p, and what they say."""
    if trial.p_holm is None:
        return f"{trial.p:.2g}", "", "cannot tell"
    return f"{trial.p:.2g}", f"{trial.p_holm:.2g}", "not luck" if trial.finds else "luck"
