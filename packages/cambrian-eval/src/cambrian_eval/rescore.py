"""Score the logged replies of a run again, by today's rules or another tool's: no model, no data, no GPU.

What the new rules read otherwise is listed. A run whose rules have not changed is left as it is; the replies are never
touched.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from cambrian_eval import results
from cambrian_eval.atomic import write_atomically
from cambrian_eval.conditions import Conditions
from cambrian_eval.errors import EvalError
from cambrian_eval.judge import VERDICTS, agreement, judge, judged
from cambrian_eval.log import PART, RUN, SAMPLES, SampleLog, hold
from cambrian_eval.prompt_forms import score_reply
from cambrian_eval.report.recorded import read_recorded, task_of, with_details
from cambrian_eval.report.table import rules_of
from cambrian_eval.report.verdicts import read_judgements
from cambrian_eval.rubric import rubric_for
from cambrian_eval.runner import resolve
from cambrian_eval.runs import read_run
from cambrian_eval.types import Failure, Score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cambrian_eval.endpoint.client import ChatClient
    from cambrian_eval.judge import Judgement
    from cambrian_eval.report.recorded import Recorded
    from cambrian_eval.task import Task
    from cambrian_eval.types import Result, ScoredAnswer

CHANGES = "rescored.jsonl"


@dataclass(frozen=True)
class Change:
    """A reply that is scored otherwise than before, if only by a rule of another name.

    Attributes:
        id: The question's.
        reply: What the model said.
        old: How it was read.
        new: How it is read.
    """

    id: str
    reply: str
    old: Score
    new: Score

    @property
    def is_read_otherwise(self) -> bool:
        """Whether more than the rule's name is new."""
        return (self.old.extracted, self.old.value) != (self.new.extracted, self.new.value)

    @property
    def gain(self) -> float:
        """What the reply is worth more."""
        return (self.new.value or 0.0) - (self.old.value or 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Rescored:
    """A run scored again.

    Attributes:
        result: By the new rules.
        changes: Replies that are scored otherwise: those worth more or less first, then those that are read otherwise,
            then those that a rule of another name reads in the same way.
        old_score: The headline before; None where there was none.
        written: Folder that the new files are in; None where nothing was written.
        why: Why they were written, or not.
    """

    result: Result
    changes: tuple[Change, ...]
    old_score: float | None
    written: Path | None
    why: str

    @property
    def num_read_otherwise(self) -> int:
        """Replies from which something else is read than before."""
        return sum(change.is_read_otherwise for change in self.changes)

    @property
    def num_gained(self) -> int:
        """Replies that are worth more than before."""
        return sum(change.gain > 0 for change in self.changes)

    @property
    def num_lost(self) -> int:
        """Replies that are worth less."""
        return sum(change.gain < 0 for change in self.changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "result": self.result.to_dict(),
            "old_score": self.old_score,
            "new_score": self.result.metrics.summary.get("score"),
            "num_changes": len(self.changes),
            "num_read_otherwise": self.num_read_otherwise,
            "num_gained": self.num_gained,
            "num_lost": self.num_lost,
            "changes": [change.to_dict() for change in self.changes],
            "written": None if self.written is None else str(self.written),
            "why": self.why,
        }


def rescore(
    folder: Path,
    *,
    compat: str | None = None,
    data: Path | None = None,
    output: Path | None = None,
    client: ChatClient | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Rescored:
    """Score a run's replies again.

    Without `output` the run's own files are written anew, and only if something changed; `rescored.jsonl` then keeps
    what every changed reply was before. Another tool's rules never take the place of a run's own: without `output`,
    nothing is written.

    Args:
        folder: The run's.
        compat: Another tool whose parser and metrics are used on the replies; the run's own prompt stays what it was.
        data: The benchmark's folder, to show pictures in the report again.
        output: Another folder for the result.
        client: A judge, whose verdicts are reported beside the rule's score.
        progress: Called with the number of answers judged and the number of all.

    Raises:
        EvalError: The run cannot be read or scored, or the output is in use.
    """
    _check(folder, output)
    with contextlib.ExitStack() as stack:
        if output is None:
            stack.enter_context(hold(folder))  # what is written is what was read: nobody adds to the log in between
        held = read_recorded(folder, data)
        compat = None if compat == rules_of(held.identity) else compat
        target = output or (folder if compat is None else None)
        if target is not None and target != folder:
            target.mkdir(parents=True, exist_ok=True)
            stack.enter_context(hold(target))
        return _rescore(folder, held, compat, target, client, progress)


def _rescore(
    folder: Path,
    held: Recorded,
    compat: str | None,
    target: Path | None,
    client: ChatClient | None,
    progress: Callable[[int, int], None] | None,
) -> Rescored:
    task = _task(folder, held, compat)
    with with_details(folder, task):
        scored = [_score(task, held, answer) for answer in held.answers]
        result = _result(folder, task, held, scored, compat, target)
    changes = tuple(sorted(_changes(held.answers, scored), key=_weight))
    old = _headline(held.result)
    if target is not None and target != folder:
        _copy_logs(folder, target)
    result = _with_judge(result, task, scored, client, target, progress)
    if target is None:
        return Rescored(result, changes, old, None, f"the run keeps its own rules; give an output to keep {compat}'s")
    why = _reason(folder, held, result, changes, client)
    if why is None and target == folder:
        return Rescored(result, changes, old, None, "nothing changed: the run is left as it is")
    _write(target, task, result, scored, changes, _failures(folder, held))
    return Rescored(result, changes, old, target, why or "every reply is read as before")


def _check(folder: Path, output: Path | None) -> None:
    read_run(folder)
    if list(folder.glob(PART.format("*"))):
        raise EvalError(
            f"{folder}: found the logs of several processes, expected one: this evaluation is not finished. Repeat its "
            "command, then rescore it."
        )
    if output is None or not output.exists():
        return
    if output.resolve() == folder.resolve():
        raise EvalError(f"{output}: found the run's own folder; leave --output out, or name another folder.")
    if not output.is_dir() or any(output.iterdir()):
        kind = "files in it" if output.is_dir() else "a file"
        raise EvalError(f"{output}: found {kind}, expected a new or empty folder. Choose another output.")


def _task(folder: Path, held: Recorded, compat: str | None) -> Task:
    """Whose rules are used."""
    run = held.identity
    own = task_of(run)
    if own is None:
        raise EvalError(
            f"{folder}: found task {run['task']!r}, expected one that `cambrian tasks list` lists: its rules are not "
            "known here. Score it where it is defined."
        )
    if compat is None:
        return own
    form, scoring = run.get("prompt", "direct"), run.get("scoring", "generate")
    if form == "cot" or scoring != "generate":
        raise EvalError(
            f"{folder}: found replies to prompt {form}, scoring {scoring}; {compat} reads neither thoughts nor "
            "likelihoods. Rescore a run with a direct or bare prompt and scoring generate."
        )
    return resolve(str(run["task"]), compat)


def _score(task: Task, held: Recorded, answer: ScoredAnswer) -> ScoredAnswer:
    score = score_reply(task.score, held.identity.get("prompt", "direct"), answer.question, answer.answer.text)
    return dataclasses.replace(answer, score=score)


def _changes(before: Sequence[ScoredAnswer], after: Sequence[ScoredAnswer]) -> Iterator[Change]:
    for old, new in zip(before, after, strict=True):
        if old.score != new.score:
            yield Change(old.question.id, old.answer.text, old.score, new.score)


def _weight(change: Change) -> tuple[float, bool]:
    return -abs(change.gain), not change.is_read_otherwise


def _result(
    folder: Path, task: Task, held: Recorded, scored: Sequence[ScoredAnswer], compat: str | None, target: Path | None
) -> Result:
    rules = {
        "task_version": task.version,
        "cambrian-eval": metadata.version("cambrian-eval"),
        "compat": compat or rules_of(held.identity),
    }
    run = {**held.identity, "task_version": task.version}
    if target != folder:
        run["rescored"] = rules
    failures = _failures(folder, held)
    checks = {name: value for name, value in held.result.checks.items() if name != "judge"}
    return results.summarise(
        task,
        Conditions(mode=held.result.mode),
        {**held.result.provenance, "run": run},
        scored,
        failures,
        {**checks, "rescored": rules},
        target or folder,
    )


def _failures(folder: Path, held: Recorded) -> dict[str, Failure]:
    """Questions that the run has no answer to, as far as it knows."""
    path = folder / results.FAILURES
    reasons = json.loads(path.read_bytes()) if path.is_file() else {}
    answered = {answer.question.id for answer in held.answers}
    return {name: Failure(reason) for name, reason in reasons.items() if name not in answered}


def _copy_logs(folder: Path, target: Path) -> None:
    """What rescoring does not make: how often batches were halved, and what a judge has said already."""
    for name in (SAMPLES, VERDICTS):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)


def _with_judge(
    result: Result,
    task: Task,
    scored: Sequence[ScoredAnswer],
    client: ChatClient | None,
    target: Path | None,
    progress: Callable[[int, int], None] | None,
) -> Result:
    """The result with what a judge says beside it: the one that is asked, or the last one of the log."""
    known = [answer for answer in scored if answer.question.answers]
    if client is None:
        logged = read_judgements(result.output, known)
        found = {} if not logged else {"judge": _judged(task, known, logged[-1])}
        return dataclasses.replace(result, checks={**result.checks, **found})
    if not known:
        raise EvalError(f"{task.name}: found no question whose truth is known, expected some to judge replies by.")
    log = None if target is None else target / VERDICTS
    judgement = judge(known, client, log=log, rubric=rubric_for(task.name), progress=progress)
    told = [*result.checks.get("warnings", ()), *_unjudged(judgement, len(known))]
    return dataclasses.replace(
        result, checks={**result.checks, "judge": _judged(task, known, judgement), "warnings": told}
    )


def _unjudged(judgement: Judgement, num_known: int) -> Iterator[str]:
    if judgement.failures:
        yield (
            f"the judge did not answer on {len(judgement.failures)} of {num_known} answers "
            f"({next(iter(judgement.failures.values()))}); rescore again to ask it about these."
        )


def _judged(task: Task, known: Sequence[ScoredAnswer], judgement: Judgement) -> dict[str, Any]:
    """The judge's score as the task makes it of values, and how far rule and judge agree."""
    read = [answer for answer in judged(known, judgement) if answer.score.value is not None]
    found = agreement(known, judgement)
    return {
        "judge": judgement.judge,
        "rubric": judgement.rubric,
        "n": len(read),
        "n_unread": judgement.num_unread,
        "n_failed": len(judgement.failures),
        "score": results.measure(task, read).summary.get("score") if len(read) == len(known) else None,
        "agreement": None if found is None else found.to_dict(),
    }


def _reason(
    folder: Path, held: Recorded, new: Result, changes: Sequence[Change], client: ChatClient | None
) -> str | None:
    """Why the files are written; None if they would say the same as before."""
    before, after = held.result.metrics.to_dict(), new.metrics.to_dict()
    reasons = (
        (bool(changes), f"{len(changes)} replies are scored otherwise"),
        (client is not None, "a judge was asked"),
        (not (folder / results.METRICS).is_file(), "the run had no metrics yet"),
        (_as_json(before) != _as_json(after), "every reply is read as before; the metrics are made otherwise"),
        (held.result.task_version != new.task_version, f"every reply is read as before, by version {new.task_version}"),
        (_has_pictures(held), "every reply is read as before; the page shows pictures again"),
    )
    return next((reason for holds, reason in reasons if holds), None)


def _has_pictures(held: Recorded) -> bool:
    """Whether pictures are at hand, and not only their hashes."""
    pictures = (picture for answer in held.answers for picture in answer.prompt.pictures)
    return any(picture.data is not None or picture.path is not None for picture in pictures)


def _as_json(values: Any) -> str:
    return json.dumps(values, sort_keys=True)


def _headline(result: Result) -> float | None:
    score = result.metrics.summary.get("score")
    return None if score is None else float(score)


def _write(
    folder: Path,
    task: Task,
    result: Result,
    scored: Sequence[ScoredAnswer],
    changes: Sequence[Change],
    failures: dict[str, Failure],
) -> None:
    """The files of a run; which rules they are by stands in `run.json`, what they replace in `rescored.jsonl`."""
    if changes:  # first of all: what is replaced must not be lost
        with (folder / CHANGES).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(change.to_dict()) + "\n" for change in changes)
    write_atomically(folder / RUN, json.dumps(result.provenance["run"], indent=2, sort_keys=True) + "\n")
    SampleLog(folder, result.provenance["run"]).finish(scored)
    results.write_result(task, result, scored, failures)
