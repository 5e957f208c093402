"""What an audit writes: `audit.json`, `audit.csv` with a row for each question, `audit.md`, and decisions to review."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import msgspec

from cambrian_data.cvbench.audit import priors
from cambrian_data.cvbench.audit.filter import Drop
from cambrian_data.cvbench.audit.report import Audit, Audited
from cambrian_data.cvbench.audit.tables import markdown
from cambrian_data.errors import DataError
from cambrian_data.scenes.generate import write_atomically, writing

JSON, CSV, MARKDOWN = "audit.json", "audit.csv", "audit.md"


def write(audited: Audited, output: Path) -> None:
    """Writes the three files; an older audit in the folder is replaced.

    Raises:
        DataError: if the folder cannot be written.
    """
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        content = msgspec.json.format(msgspec.json.encode(audited.audit), indent=2)
        write_atomically(output / JSON, content + b"\n")
        write_atomically(output / CSV, csv_table(audited).encode())
        write_atomically(output / MARKDOWN, markdown(audited.audit).encode())


def to_dict(audit: Audit) -> dict[str, Any]:
    """The content of `audit.json`."""
    plain: dict[str, Any] = msgspec.to_builtins(audit)
    return plain


def csv_table(audited: Audited) -> str:
    """A row for each question.

    `category right` is 1 where a guesser is right who goes by the category and knows all other answers, a part of 1
    where several choices seemed equally good to it, and empty where the question is not in the published wording. Of
    each model: orders of the choices, those in which it was right, and whether that was all.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{model} {column}" for model in audited.guesses for column in ("orders", "right", "flagged")]
    writer.writerow(["idx", "task", "source", "category", "answer", "text", "category right", *names, "drop"])
    by_category = category_credits(audited)
    dropped = {drop.idx for drop in audited.drops}
    for number, item in enumerate(audited.items):
        credit = by_category.get(item.idx)
        cells: list[object] = [item.idx, item.task, item.source, " / ".join(item.categories)]
        cells += [ascii_uppercase[item.place], item.answer, "" if credit is None else f"{credit:.3g}"]
        for guesses in audited.guesses.values():
            guess = guesses[number]
            cells += [len(guess.picks), guess.num_right, int(guess.flagged)]
        writer.writerow([*cells, int(item.idx in dropped)])
    return text.getvalue()


def category_credits(audited: Audited) -> dict[int, float]:
    """What a guesser by category scores in each question, by idx."""
    found: dict[int, float] = {}
    for task in sorted({item.task for item in audited.items}):
        found |= priors.guess([item for item in audited.items if item.task == task], "category")
    return found


def write_decisions(drops: Sequence[Drop], file: Path, time: str) -> None:
    """Writes the questions to drop as the decisions of a reviewer, one a line, as `cambrian cvbench review` keeps them.

    Args:
        drops: questions to drop, and why.
        file: must not exist: a reviewer's decisions are never overwritten.
        time: of the decisions, ISO 8601.

    Raises:
        DataError: if the file exists or cannot be written.
    """
    if file.exists():
        raise DataError(f"{file} exists; decisions are never overwritten. Choose another name, or delete it first.")
    with writing(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, b"".join(line + b"\n" for line in decision_lines(drops, time)))


def decision_lines(drops: Sequence[Drop], time: str) -> Iterator[bytes]:
    """One decision a line."""
    for drop in drops:
        yield msgspec.json.encode(
            {"idx": drop.idx, "decision": "reject", "reason": drop.reason, "changes": None, "time": time}
        )
