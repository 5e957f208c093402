"""What an evaluation left in its folder, as the result that it was when it was written."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from cambrian_eval import hub, metrics, results
from cambrian_eval.errors import DataError, EvalError
from cambrian_eval.log import read_answers
from cambrian_eval.metrics import MetricRow, Metrics
from cambrian_eval.picture import Picture
from cambrian_eval.report.table import rules_of
from cambrian_eval.runs import read_run
from cambrian_eval.types import Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from cambrian_eval.task import Task
    from cambrian_eval.types import ScoredAnswer

CHECKS = ("truncation_rate", "num_halved", "verify_batching", "warnings", "judge", "rescored")
"""What a result says of its run beside the scores."""

_NO_METRICS = frozenset({"task", "task_version", "model", "mode", "n", "n_failed", "complete", "provenance", *CHECKS})
_LEVELS = ("accuracy", "low", "high", "chance", "best_constant", "parse_rate", "n")


class Recorded(NamedTuple):
    """An evaluation on disk.

    Attributes:
        identity: Its `run.json`.
        result: What its `metrics.json` says; of an evaluation that was interrupted, what its log gives.
        answers: Its log.
    """

    identity: Mapping[str, Any]
    result: Result
    answers: list[ScoredAnswer]


def read_recorded(folder: Path, data: Path | None = None) -> Recorded:
    """Read an evaluation.

    Args:
        folder: The run's.
        data: The benchmark's folder, for pages that show pictures; without it answers know their pictures' hashes only.

    Raises:
        EvalError: The folder holds none, it is damaged or holds no answer yet, or the data is not that of the run.
    """
    identity = read_run(folder).identity
    answers = read_answers(folder)
    if not answers:
        raise EvalError(f"{folder}: found no answer in its log, expected some. Repeat its command to go on with it.")
    if data is not None:
        answers = _illustrate(folder, identity, answers, data)
    held = folder / results.METRICS
    document = json.loads(held.read_bytes()) if held.is_file() else None
    result = _interrupted(folder, identity, answers) if document is None else _finished(folder, document, answers)
    return Recorded(identity, result, answers)


def task_of(identity: Mapping[str, Any]) -> Task | None:
    """The task by whose rules a run was scored, another tool's if so; None for one that is not registered."""
    from cambrian_eval.runner import resolve
    from cambrian_eval.tasks import TASKS

    name = str(identity["task"])
    return resolve(name, rules_of(identity)) if name in TASKS.names() else None


@contextlib.contextmanager
def with_details(folder: Path, task: Task) -> Iterator[None]:
    """Around what scores or measures a log: an older one may lack a detail of its questions that the task goes by.

    Raises:
        EvalError: It does.
    """
    try:
        yield
    except KeyError as error:
        raise EvalError(
            f"{folder}: its questions have no detail {error} in the log, by which version {task.version} of "
            f"{task.name} scores. Evaluate it again."
        ) from error


def _illustrate(
    folder: Path, identity: Mapping[str, Any], answers: Sequence[ScoredAnswer], data: Path
) -> list[ScoredAnswer]:
    """The answers with their pictures, found in the benchmark's folder by their hashes."""
    task = task_of(identity)
    if task is None:
        raise DataError(f"{folder}: found task {identity['task']!r}, expected one that is listed, to read its data by.")
    split = identity.get("split") or task.splits[0]
    questions = task.questions(hub.locate(task.hub, data, None, split).path, split)
    pictures = {picture.sha256: picture for question in questions for picture in question.pictures}
    shown = {picture.sha256 for answer in answers for picture in answer.prompt.pictures}
    if shown and not shown & pictures.keys():
        raise DataError(
            f"{data}: found none of the {len(shown)} pictures that {folder} has shown, expected the data of that run."
        )
    return [_with_pictures(answer, pictures) for answer in answers]


def _with_pictures(answer: ScoredAnswer, pictures: Mapping[str, Picture]) -> ScoredAnswer:
    content = tuple(
        pictures.get(part.sha256, part) if isinstance(part, Picture) else part for part in answer.prompt.content
    )
    return dataclasses.replace(answer, prompt=dataclasses.replace(answer.prompt, content=content))


def _finished(folder: Path, document: dict[str, Any], answers: Sequence[ScoredAnswer]) -> Result:
    missing = sorted({"task", "task_version", "model", "mode", "n", "n_failed", "provenance"} - document.keys())
    if missing:
        raise EvalError(f"{folder / results.METRICS}: missing {missing[0]}, expected what `cambrian eval` writes.")
    checks = {name: document[name] for name in CHECKS if name in document}
    if not document["n_failed"] and not document.get("complete", True):
        checks["complete"] = False
    return Result(
        task=document["task"],
        task_version=document["task_version"],
        model=document["model"],
        mode=document["mode"],
        metrics=_metrics(document, _labels(folder, document, answers)),
        num_answered=document["n"],
        num_failed=document["n_failed"],
        output=folder,
        provenance=document["provenance"],
        checks=checks,
    )


def _interrupted(folder: Path, identity: Mapping[str, Any], answers: Sequence[ScoredAnswer]) -> Result:
    """How many questions are open is not known: the log holds only those that were answered."""
    task = task_of(identity)
    measured = metrics.measure(answers) if task is None else _measure(folder, task, answers)
    warning = "this evaluation was interrupted: the numbers are those of the answers so far. Repeat its command."
    return Result(
        task=str(identity["task"]),
        task_version=int(identity.get("task_version", 0)),
        model=str(identity["model"]),
        mode=identity.get("mode", "normal"),
        metrics=measured,
        num_answered=len(answers),
        num_failed=0,
        output=folder,
        provenance={"run": dict(identity)},
        # Stands in for the count of failures, by which a result is complete otherwise.
        checks={"complete": False, "warnings": [warning]},
    )


def _metrics(document: dict[str, Any], labels: Mapping[tuple[str, str], str]) -> Metrics:
    """Rows are the tables of `metrics.json`; the rest is the summary."""
    tables = {name: table for name, table in document.items() if name not in _NO_METRICS and _is_table(table)}
    rows = [
        MetricRow(group=group, name=name, label=labels.get((group, name), name), **{"num_units": levels["n"], **levels})
        for group, table in tables.items()
        for name, levels in table.items()
    ]
    summary = {name: value for name, value in document.items() if name not in _NO_METRICS and name not in tables}
    return Metrics(summary, tuple(rows))


def _is_table(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(row, dict) and row.keys() >= set(_LEVELS) for row in value.values())
    )


def _labels(folder: Path, document: dict[str, Any], answers: Sequence[ScoredAnswer]) -> dict[tuple[str, str], str]:
    """What people read beside a row, which `metrics.json` does not hold: from making the rows again.

    A run of another version of its task may lack what this one makes them of; it keeps the rows' names.
    """
    identity = document["provenance"].get("run", {})
    task = task_of(identity) if "task" in identity else None
    if task is None or task.version != document["task_version"]:
        return {("scores", "score"): str(document["task"])}
    return {(row.group, row.name): row.label for row in _measure(folder, task, answers).rows}


def _measure(folder: Path, task: Task, answers: Sequence[ScoredAnswer]) -> Metrics:
    with with_details(folder, task):
        return results.measure(task, answers)
