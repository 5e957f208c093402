"""The log of one reviewer's decisions: `review/<reviewer>.jsonl`, one decision a line, only ever appended to.

The last decision about a question counts. A line is on disk (fsync) before anybody is told that it is stored. Whoever
appends holds a lock on the file and writes the line whole, so several pages, or several servers, of one reviewer do not
mix their lines. A crash can leave the last line cut; it was never reported as stored. It is not removed: the next
append closes it with a mark, and it is skipped and reported from then on.
"""

from __future__ import annotations

import fcntl
import getpass
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from cambrian_data.cvbench.review.benchmark import Benchmark
from cambrian_data.cvbench.review.changes import Changes, check_changes
from cambrian_data.errors import DataError

FOLDER = "review"
CUT_MARK = b" <cut>"
"""Ends a line that a crash has cut; a whole line ends with a brace."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

Kind = Literal["accept", "modify", "reject", "withdraw"]


class Decision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of the log.

    Attributes:
        idx: of the question.
        decision: `withdraw` makes it undecided again.
        reason: why; never empty for `reject`.
        changes: the question as it should be, for `modify` alone.
        time: when, in UTC, ISO 8601.
        question: the question's fingerprint, so that a decision is never taken for one about another build; None in
            lines that something other than the page has written.
        undo: whether this line takes back the one before it that was not yet taken back.
    """

    idx: int
    decision: Kind
    reason: str = ""
    changes: Changes | None = None
    time: str
    question: str | None = None
    undo: bool = False


class Log(NamedTuple):
    """The content of a log.

    Attributes:
        decisions: in order, each with its line from 1.
        cut: the lines that a crash has cut.
    """

    decisions: tuple[tuple[int, Decision], ...]
    cut: tuple[int, ...]


class Undone(NamedTuple):
    """An undo: the decision that was taken back, and the line that did it."""

    taken_back: Decision
    line: Decision


def log_path(folder: Path, reviewer: str) -> Path:
    """The log of a reviewer.

    Raises:
        DataError: if the name does not do for a file.
    """
    if not NAME.fullmatch(reviewer):
        raise DataError(
            f'reviewer "{reviewer}" names no log; expected up to 64 letters, digits, "-", "_" and ".", '
            "a letter or digit first."
        )
    return folder / FOLDER / f"{reviewer}.jsonl"


def default_reviewer() -> str:
    """The name of the user who runs this.

    Raises:
        DataError: if the machine knows none.
    """
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:
        raise DataError(f"this machine tells no user name ({error}); give the reviewer's.") from error


def reviewers(folder: Path) -> list[str]:
    """Who has a log in a benchmark's folder, by name."""
    return sorted(path.stem for path in (folder / FOLDER).glob("*.jsonl"))


def read_log(path: Path) -> Log:
    """The decisions of a log; of one that is not there yet, none.

    Raises:
        DataError: if the file cannot be read, or a line is neither a decision nor cut.
    """
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # a line that is being written is not taken for a cut one
            content = file.read()
    except FileNotFoundError:
        return Log((), ())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}.") from error
    return parse_log(path, content)


def cut_lines(folder: Path) -> dict[str, list[int]]:
    """The lines that a crash has cut in the logs of a benchmark's folder, by reviewer; who has none is left out."""
    found = {name: list(read_log(log_path(folder, name)).cut) for name in reviewers(folder)}
    return {name: cut for name, cut in found.items() if cut}


def cut_notices(name: str, cut: Sequence[int]) -> list[str]:
    """What to know of lines that a crash has cut.

    Args:
        name: of the log.
        cut: the lines.
    """
    return [
        f"Line {line} of {name} was cut by a crash and is skipped; its decision was never reported as stored. "
        "Decide that question again if it is undecided."
        for line in cut
    ]


def parse_log(path: Path, content: bytes) -> Log:
    """The decisions in a log's bytes."""
    *lines, last = content.split(b"\n")
    decisions: list[tuple[int, Decision]] = []
    cut: list[int] = []
    for number, line in enumerate(lines, start=1):
        if line.endswith(CUT_MARK):
            cut.append(number)
        else:
            decisions.append((number, parse_line(path, number, line)))
    if last and is_whole(last):
        decisions.append((len(lines) + 1, parse_line(path, len(lines) + 1, last)))
    elif last:
        cut.append(len(lines) + 1)
    return Log(tuple(decisions), tuple(cut))


def parse_line(path: Path, number: int, line: bytes) -> Decision:
    """The decision on a line.

    Raises:
        DataError: if there is none.
    """
    try:
        return msgspec.json.decode(line, type=Decision)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}:{number}: is no decision ({error}). The log was changed by something else; restore the line."
        ) from error


def is_whole(line: bytes) -> bool:
    """Whether the line is JSON to its end: of a whole line only the line break can be missing."""
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def standing(decisions: Sequence[tuple[int, Decision]]) -> dict[int, Decision]:
    """The decision that counts for each question that is decided."""
    last = {decision.idx: decision for _, decision in decisions}
    return {idx: decision for idx, decision in last.items() if decision.decision != "withdraw"}


def read_decisions(benchmark: Benchmark, reviewer: str) -> dict[int, Decision]:
    """What a reviewer has decided, checked against the benchmark.

    Raises:
        DataError: if the log is damaged, or tells of other questions.
    """
    path = log_path(benchmark.folder, reviewer)
    log = read_log(path)
    check_log(benchmark, path, log)
    return standing(log.decisions)


def check_log(benchmark: Benchmark, path: Path, log: Log) -> None:
    """Raises DataError unless every decision is about a question of the benchmark, as it stands there."""
    for line, decision in log.decisions:
        item = benchmark.items.get(decision.idx)
        if item is None or decision.question not in (None, item.fingerprint):
            raise DataError(
                f"{path}:{line}: decides question {decision.idx} of another benchmark; the one in {benchmark.folder} "
                f"{'has no such question' if item is None else 'asks something else there'}. "
                f"Restore the benchmark that was reviewed, or move {FOLDER}/ away and begin anew."
            )
        try:
            check_decision(decision)
            if decision.changes is not None:
                check_changes(decision.changes, item.row)
        except DataError as error:
            raise DataError(f"{path}:{line}: question {decision.idx}: {error}") from error


def check_decision(decision: Decision) -> None:
    """Raises DataError unless a rejection has a reason, and a modification, and nothing else, has changes."""
    if decision.decision == "reject" and not decision.reason.strip():
        raise DataError("a rejection needs a reason; none was given.")
    if (decision.decision == "modify") != (decision.changes is not None):
        raise DataError(
            f"{decision.decision} comes {'with' if decision.changes else 'without'} changes; only modify has."
        )


def append(path: Path, decision: Decision) -> None:
    """Stores a decision; when this returns, it is on disk.

    Raises:
        DataError: if the decision is incomplete or cannot be stored.
    """
    check_decision(decision)
    with locked(path) as file:
        write_line(path, file, decision)


def undo(path: Path, time: str) -> Undone | None:
    """Stores a new line that restores what stood before the last decision that is not yet taken back.

    Args:
        path: of the log.
        time: of the new line.

    Returns:
        What was done, or None if there is nothing left to take back.

    Raises:
        DataError: if the log is damaged or the line cannot be stored.
    """
    with locked(path) as file:
        file.seek(0)
        stack = to_take_back([decision for _, decision in parse_log(path, file.read()).decisions])
        if not stack:
            return None
        last, before = stack[-1]
        restored = before or Decision(idx=last.idx, decision="withdraw", time=time, question=last.question)
        line = msgspec.structs.replace(restored, time=time, undo=True)
        write_line(path, file, line)
    return Undone(last, line)


def to_take_back(decisions: Sequence[Decision]) -> list[tuple[Decision, Decision | None]]:
    """The decisions that are not taken back, in order, each with what stood before it."""
    stack: list[tuple[Decision, Decision | None]] = []
    now: dict[int, Decision] = {}
    for decision in decisions:
        if not decision.undo:
            stack.append((decision, now.get(decision.idx)))
        elif stack:
            stack.pop()
        now[decision.idx] = decision
    return stack


@contextmanager
def locked(path: Path) -> Iterator[FileIO]:
    """The log, open for reading and appending, made if it is not there; nobody else appends meanwhile."""
    try:
        path.parent.mkdir(exist_ok=True)
        is_new = not path.exists()
        with path.open("ab+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # freed when the file is closed, also by a crash
            if is_new:
                sync_folders(path.parent)
            yield file
    except OSError as error:
        raise DataError(
            f"cannot store in {path}: {error.strerror or error}. Nothing is recorded; mend that and decide again."
        ) from error


def sync_folders(folder: Path) -> None:
    """Makes the names of a new log and its folder last."""
    for place in (folder, folder.parent):
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_line(path: Path, file: FileIO, decision: Decision) -> None:
    """Appends a decision to a locked log, after closing a line that a crash has cut, and waits for the disk."""
    file.seek(0)
    content = file.read()
    parse_log(path, content)  # never build upon a damaged log
    last = content.rsplit(b"\n", 1)[-1]
    closing = b"" if not last else b"\n" if is_whole(last) else CUT_MARK + b"\n"
    remaining = memoryview(closing + msgspec.json.encode(decision) + b"\n")
    while remaining:  # a disk that fills takes a part before it refuses
        remaining = remaining[file.write(remaining) :]
    os.fsync(file.fileno())


def count_kinds(decisions: Mapping[int, Decision]) -> dict[str, int]:
    """How many questions were accepted, modified and rejected."""
    kinds = [decision.decision for decision in decisions.values()]
    return {kind: kinds.count(kind) for kind in ("accept", "modify", "reject")}
