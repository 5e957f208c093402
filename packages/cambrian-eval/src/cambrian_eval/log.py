"""The log of a run: `run.json` says which run the folder holds, `samples.jsonl` has one line for each answer.

Lines are appended and flushed to disk batch by batch, so a killed run loses at most the batch in flight. A line torn by
the kill is dropped when the log is opened again. When a run ends, the lines are put into the order of the data: the
file then does not depend on how often the run was interrupted.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from cambrian_eval.atomic import write_atomically
from cambrian_eval.errors import EvalError, RunMismatchError
from cambrian_eval.types import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cambrian_eval.types import ScoredAnswer

SAMPLES = "samples.jsonl"
RUN = "run.json"
LOCK = ".lock"


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Makes the folder if need be and keeps other evaluations out of it; a killed one lets go by itself.

    Raises:
        EvalError: It is a file, cannot be made or locked, or another evaluation writes there.
    """
    import fcntl

    if folder.exists() and not folder.is_dir():
        raise EvalError(f"{folder}: found a file, expected a folder for the run. Choose another output.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, FileExistsError) as error:  # inside /proc, or a link that leads nowhere
        raise EvalError(f"{folder}: the folder cannot be made ({error.strerror}). Choose another output.") from error
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EvalError(
                f"{folder}: another evaluation is writing here. Wait until it has ended, or choose another output."
            ) from error
        except OSError as error:
            raise EvalError(
                f"{folder}: cannot be locked ({error.strerror}). Choose an output on another disk."
            ) from error
        yield


class SampleLog:
    """The answers of one run, kept in its folder.

    Attributes:
        answers: What has been answered so far, by question id.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        """Open the folder's log, or start one.

        Raises:
            RunMismatchError: The folder holds another run.
            EvalError: Its log is damaged.
        """
        self._path = folder / SAMPLES
        _claim(folder, identity)
        self.answers: dict[str, Answer] = self._read()

    def append(self, scored: Sequence[ScoredAnswer]) -> None:
        """Add answers and wait until the disk has them."""
        with self._path.open("ab") as file:
            file.write(b"".join(_line(answer) for answer in scored))
            file.flush()
            os.fsync(file.fileno())
        self.answers.update((answer.question.id, answer.answer) for answer in scored)

    def finish(self, scored: Sequence[ScoredAnswer]) -> None:
        """Rewrite the log in the order of the data."""
        write_atomically(self._path, b"".join(_line(answer) for answer in scored).decode())

    def _read(self) -> dict[str, Answer]:
        if not self._path.exists():
            return {}
        written = self._path.read_bytes()
        whole = written[: written.rfind(b"\n") + 1]
        if len(whole) < len(written):
            os.truncate(self._path, len(whole))
        lines = [self._parse(number, line) for number, line in enumerate(whole.split(b"\n")[:-1], start=1)]
        return dict(reversed(lines))  # should a question have been logged twice, its first answer counts

    def _parse(self, number: int, line: bytes) -> tuple[str, Answer]:
        try:
            entry = json.loads(line)
            if not isinstance(entry["reply"], str):
                raise TypeError("the reply is not a text")
            return entry["id"], Answer(entry["reply"], entry["truncated"])
        except (ValueError, KeyError, TypeError) as error:
            raise EvalError(
                f"{self._path}:{number}: found a line that is not an answer of this log ({error!r}). "
                "Delete the line to have its question asked again, or choose another output."
            ) from error


def _claim(folder: Path, identity: dict[str, Any]) -> None:
    """Make sure that the folder holds this run: the same one as before, or none yet."""
    path = folder / RUN
    if not path.exists():
        if (folder / SAMPLES).exists():
            raise RunMismatchError(f"{folder}: found {SAMPLES} without {RUN}; choose another output or remove it.")
        write_atomically(path, json.dumps(identity, indent=2, sort_keys=True) + "\n")
        return
    try:
        held = json.loads(path.read_bytes())
    except ValueError as error:
        raise RunMismatchError(f"{path}: not JSON ({error}); choose another output.") from error
    if held != identity:
        names = sorted(name for name in {*held, *identity} if held.get(name) != identity.get(name))
        changes = "; ".join(f"{name}: found {held.get(name)!r}, now {identity.get(name)!r}" for name in names)
        raise RunMismatchError(f"{folder} holds another run ({changes}). Choose another output or repeat that run.")


def _line(scored: ScoredAnswer) -> bytes:
    question, prompt = scored.question, scored.prompt
    entry = {
        "id": question.id,
        "part": question.part,
        "task": question.task,
        "source": question.source,
        "prompt": prompt.text,
        "choices": question.choices,
        "pictures": [picture.sha256 for picture in prompt.pictures],
        "truth": question.answers[0] if len(question.answers) == 1 else question.answers,
        "reply": scored.answer.text,
        "truncated": scored.answer.truncated,
        "extracted": scored.score.extracted,
        "rule": scored.score.rule,
        "value": scored.score.value,
    }
    return json.dumps(entry).encode() + b"\n"
