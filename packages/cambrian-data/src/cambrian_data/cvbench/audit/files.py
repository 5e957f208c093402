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
from cambrian_data.cvbench.audit.items import Item
from cambrian_data.cvbench.audit.report import Audit, Audited, content_hash
from cambrian_data.cvbench.audit.tables import markdown
from cambrian_data.errors import DataError
from cambrian_data.scenes.generate import write_atomically, writing

JSON, CSV, MARKDOWN = "audit.json", "audit.csv", "audit.md"
MARKER = "audit.unfinished"


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Whose audit a folder holds; `audit.json` has these fields, too.

    Attributes:
        benchmark: name of its folder.
        content_hash: SHA-256 of its questions.
    """

    benchmark: str
    content_hash: str


def claim(benchmark: Path, items: Sequence[Item], output: Path) -> None:
    """Marks a folder as that of an audit of these questions, until `write` has finished it.

    Args:
        benchmark: its folder.
        items: its questions.
        output: made if missing; must be empty, or hold an audit of the same questions, finished or not.

    Raises:
        DataError: if the folder holds something else, or cannot be written.
    """
    take(Claim(benchmark=benchmark.resolve().name, content_hash=content_hash(items)), output)


def take(wanted: Claim, output: Path) -> None:
    """Marks a folder as that of this audit; refuses one of something else."""
    if output.exists() and not output.is_dir():
        raise DataError(f"{output} is a file; expected a folder to write an audit to.")
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        held = read_claim(output)
        if held is not None and held.content_hash != wanted.content_hash:
            raise DataError(
                f"{output} holds an audit of other questions, those of {held.benchmark}; nothing is overwritten. "
                "Choose another output folder, or delete this one first."
            )
        write_atomically(output / MARKER, msgspec.json.encode(wanted))


def read_claim(output: Path) -> Claim | None:
    """Whose audit the folder holds; None if it holds nothing yet.

    Raises:
        DataError: if what it holds is no audit.
    """
    names = {path.name for path in output.iterdir()}
    if names <= {MARKER}:
        return None
    found = next((name for name in (JSON, MARKER) if name in names), None)
    if found is None:
        raise DataError(f"{output} is not empty and holds no audit; choose an empty or a new output folder.")
    try:
        return msgspec.json.decode((output / found).read_bytes(), type=Claim)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{output / found} is none of an audit ({error}); choose another output folder.") from error


def write(audited: Audited, output: Path) -> None:
    """Writes the three files; an older audit of the same questions in the folder is replaced.

    Raises:
        DataError: if the folder holds something else, or cannot be written.
    """
    take(Claim(benchmark=audited.audit.benchmark, content_hash=audited.audit.content_hash), output)
    with writing(output):
        content = msgspec.json.format(msgspec.json.encode(audited.audit), indent=2)
        write_atomically(output / JSON, content + b"\n")
        write_atomically(output / CSV, csv_table(audited).encode())
        write_atomically(output / MARKDOWN, markdown(audited.audit).encode())
        (output / MARKER).unlink()


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
