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
from cambrian_eval.picture import Picture
from cambrian_eval.types import Answer, Prompt, Question, Score, ScoredAnswer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

SAMPLES = "samples.jsonl"
PART = "samples.{}.jsonl"
RUN = "run.json"
LOCK = ".lock"

_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "group", "part", "task", "source", "question", "prompt", "instruction", "reply"), (str,)),
    **dict.fromkeys(("max_new_tokens", "halved"), (int,)),
    **dict.fromkeys(("choices", "pictures", "option_scores"), (list,)),
    **dict.fromkeys(("image_tokens", "reply_tokens"), (int, type(None))),
    "truth": (str, list),
    "details": (dict,),
    "truncated": (bool,),
    "extracted": (str, type(None)),
    "rule": (str,),
    "value": (int, float, type(None)),
}


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

    Several processes on several machines may add to one log: each has a part of it, a file of its own. Whoever opens
    the log reads all parts that are there, whoever left them.

    Attributes:
        answers: What has been answered so far, by question id.
        num_halved: How often a batch was halved for want of memory, by the id of the batch's first answer.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], part: int | None = None) -> None:
        """Open the folder's log, or start one.

        Args:
            folder: The run's.
            identity: What tells this run from another.
            part: Which of several processes adds to it; None where there is one.

        Raises:
            RunMismatchError: The folder holds another run.
            EvalError: Its log is damaged.
        """
        self._folder = folder
        self._path = folder / SAMPLES if part is None else folder / PART.format(part)
        claim(folder, identity)
        self.answers: dict[str, Answer] = {}
        self.num_halved: dict[str, int] = {}
        _drop_torn_line(self._path)
        self.read()

    def read(self) -> None:
        """Read what all processes have written so far."""
        for path in (self._folder / SAMPLES, *_parts(self._folder)):
            for entry in _entries(path):  # should a question have been logged twice, its first answer counts
                self.answers.setdefault(entry["id"], _answer(entry))
                self.num_halved.setdefault(entry["id"], entry["halved"])

    def append(self, scored: Sequence[ScoredAnswer], num_halved: Mapping[str, int]) -> None:
        """Add the answers of one batch and wait until the disk has them.

        Args:
            scored: Those that the log does not hold yet.
            num_halved: How often the batch was halved, by the id of its first answer.
        """
        if not scored:
            return
        with self._path.open("ab") as file:
            file.write(b"".join(_line(answer, num_halved.get(answer.question.id, 0)) for answer in scored))
            file.flush()
            os.fsync(file.fileno())
        self.answers.update((answer.question.id, answer.answer) for answer in scored)
        for answer in scored:
            self.num_halved[answer.question.id] = num_halved.get(answer.question.id, 0)

    def finish(self, scored: Sequence[ScoredAnswer]) -> None:
        """Rewrite the log in the order of the data, as one file."""
        lines = [_line(answer, self.num_halved.get(answer.question.id, 0)) for answer in scored]
        write_atomically(self._folder / SAMPLES, b"".join(lines).decode())
        for path in _parts(self._folder):
            path.unlink()


def read_answers(folder: Path) -> list[ScoredAnswer]:
    """What a run has answered and how it was read, from its log alone: pictures are known by their hash only.

    Raises:
        EvalError: There is no log, or it is damaged.
    """
    path = folder / SAMPLES
    if not path.is_file():
        raise EvalError(f"{folder}: found no {SAMPLES}, expected the folder of an evaluation.")
    return [_scored(entry) for entry in _entries(path)]


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob(PART.format("*")))


def _drop_torn_line(path: Path) -> None:
    if not path.exists():
        return
    written = path.read_bytes()
    whole = written.rfind(b"\n") + 1
    if whole < len(written):
        os.truncate(path, whole)


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file; what stands after the last line's end was torn off, or is being written."""
    if not path.exists():
        return
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            entry = json.loads(line)
            _check_entry(entry)
        except (ValueError, KeyError, TypeError) as error:
            raise EvalError(
                f"{path}:{number}: found a line that is not an answer of this log ({error!r}). "
                "Delete the line to have its question asked again, or choose another output."
            ) from error
        yield entry


def _check_entry(entry: Any) -> None:
    if not isinstance(entry, dict):
        raise TypeError("not an object")
    missing = sorted(_TYPES.keys() - entry.keys())
    if missing:
        raise KeyError(missing[0])
    for key, kinds in _TYPES.items():
        if not isinstance(entry[key], kinds):
            raise TypeError(f"{key} is a {type(entry[key]).__name__}")
    if not all(isinstance(score, int | float) for score in entry["option_scores"]):
        raise TypeError("option_scores are no numbers")


def _answer(entry: dict[str, Any]) -> Answer:
    return Answer(
        entry["reply"],
        entry["truncated"],
        entry["image_tokens"],
        entry["reply_tokens"],
        tuple(entry["option_scores"]),
    )


def _scored(entry: dict[str, Any]) -> ScoredAnswer:
    pictures = tuple(Picture(sha256[:12], sha256) for sha256 in entry["pictures"])
    truth, choices = entry["truth"], tuple(entry["choices"])
    question = Question(
        id=entry["id"],
        text=entry["question"],
        choices=choices,
        answers=(truth,) if isinstance(truth, str) else tuple(truth),
        pictures=pictures,
        part=entry["part"],
        task=entry["task"],
        source=entry["source"],
        group=entry["group"],
        details=entry["details"],
    )
    content = (*pictures, entry["prompt"])
    prompt = Prompt(entry["id"], content, choices, entry["max_new_tokens"], entry["instruction"])
    return ScoredAnswer(question, prompt, _answer(entry), Score(entry["value"], entry["extracted"], entry["rule"]))


def claim(folder: Path, identity: dict[str, Any]) -> None:
    """Make sure that the folder holds this run: the same one as before, or none yet.

    Raises:
        RunMismatchError: It holds another one.
    """
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
    if not isinstance(held, dict):
        raise RunMismatchError(f"{path}: found a {type(held).__name__}, expected an object; choose another output.")
    if held != identity:
        names = sorted(name for name in {*held, *identity} if held.get(name) != identity.get(name))
        changes = "; ".join(f"{name}: found {held.get(name)!r}, now {identity.get(name)!r}" for name in names)
        raise RunMismatchError(f"{folder} holds another run ({changes}). Choose another output or repeat that run.")


def _line(scored: ScoredAnswer, num_halved: int) -> bytes:
    question, prompt = scored.question, scored.prompt
    entry = {
        "id": question.id,
        "group": question.group,
        "part": question.part,
        "task": question.task,
        "source": question.source,
        "question": question.text,
        "prompt": prompt.text,
        "instruction": prompt.instruction,
        "max_new_tokens": prompt.max_new_tokens,
        "choices": question.choices,
        "pictures": [picture.sha256 for picture in prompt.pictures],
        "truth": question.answers[0] if len(question.answers) == 1 else question.answers,
        "details": question.details,
        "reply": scored.answer.text,
        "truncated": scored.answer.truncated,
        "image_tokens": scored.answer.image_tokens,
        "reply_tokens": scored.answer.reply_tokens,
        "option_scores": scored.answer.option_scores,
        "extracted": scored.score.extracted,
        "rule": scored.score.rule,
        "value": scored.score.value,
        "halved": num_halved,
    }
    return json.dumps(entry).encode() + b"\n"
