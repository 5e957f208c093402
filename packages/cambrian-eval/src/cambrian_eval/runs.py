"""Evaluations on disk: one folder each, and which of two sets of folders belong together."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cambrian_eval import permutation
from cambrian_eval.errors import EvalError
from cambrian_eval.log import PART, RUN, read_answers
from cambrian_eval.report.table import asked
from cambrian_eval.results import METRICS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from cambrian_eval.types import ScoredAnswer


@dataclass(frozen=True)
class Run:
    """What an evaluation left in its folder.

    Attributes:
        folder: Where.
        identity: Its `run.json`.
        provenance: What its `metrics.json` says of data, versions and hardware; empty where there is none yet.
        answers: By question id; of a permuted run those in the published order.
        finished: Whether it has an answer to every question that it was to ask.
    """

    folder: Path
    identity: Mapping[str, Any]
    provenance: Mapping[str, Any]
    answers: Mapping[str, ScoredAnswer]
    finished: bool

    @property
    def task(self) -> str:
        """Name of the benchmark."""
        return str(self.identity["task"])

    @property
    def label(self) -> str:
        """Model and what sets this run apart from a plain one."""
        return ", ".join([str(self.identity["model"]), *asked(self.identity)])


def read_run(folder: Path) -> Run:
    """Read an evaluation.

    Raises:
        EvalError: The folder holds none, or it is damaged.
    """
    if not (folder / RUN).is_file():
        raise EvalError(
            f"{folder}: found no {RUN}, expected the folder of an evaluation. Name the folder that holds it."
        )
    identity = _read_json(folder / RUN)
    missing = sorted({"task", "model"} - identity.keys())
    if missing:
        raise EvalError(f"{folder / RUN}: missing {missing[0]}, expected what `cambrian eval` writes.")
    held = folder / METRICS
    document: dict[str, Any] = _read_json(held) if held.is_file() else {"complete": False}
    finished = bool(document.get("complete", True)) and not any(folder.glob(PART.format("*")))
    published = [permutation.restore(answer) for answer in read_answers(folder) if is_published_order(answer)]
    by_id = {answer.question.id: answer for answer in published}
    return Run(folder, identity, document.get("provenance") or {}, by_id, finished)


def pair_up(folders: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Which runs are compared: the first of the arguments with each other one, benchmark by benchmark.

    Each argument is a run or a folder of runs, one for each benchmark, however deep. Runs of two folders belong
    together if they lie at the same place below; failing that, if they are the only ones of their benchmark.

    Raises:
        EvalError: Fewer than two arguments; one that holds no run; no runs that belong together; or a run that is left.
    """
    if len(folders) < 2:
        raise EvalError(
            f"found {len(folders)} runs, expected two or more: the first is what the others are compared with."
        )
    (first, found), *others = [(folder, runs_below(folder)) for folder in folders]
    return [pair for other, below in others for pair in _match(first, found, other, below)]


def runs_below(folder: Path) -> dict[str, Path]:
    """Folders of runs by their place below a folder; the folder itself at place "." if it is one.

    Raises:
        EvalError: There is no such folder, or no run in it.
    """
    if (folder / RUN).is_file():
        return {".": folder}
    if not folder.is_dir():
        raise EvalError(f"{folder}: found no such folder, expected a run or a folder of runs.")
    runs = {path.parent.relative_to(folder).as_posix(): path.parent for path in sorted(folder.rglob(RUN))}
    if not runs:
        raise EvalError(f"{folder}: found no {RUN} in it or below, expected a run or a folder of runs.")
    return runs


def _match(first: Path, ours: dict[str, Path], second: Path, theirs: dict[str, Path]) -> list[tuple[Path, Path]]:
    if len(ours) == len(theirs) == 1:
        return [(next(iter(ours.values())), next(iter(theirs.values())))]
    matched = {place: place for place in ours if place in theirs}
    open_ours, open_theirs = _by_task(ours, matched.keys()), _by_task(theirs, matched.values())
    for task, places in open_ours.items():
        if len(places) == 1 and len(open_theirs.get(task, ())) == 1:
            matched[places[0]] = open_theirs[task][0]
    left = [str(ours[place]) for place in ours if place not in matched]
    left += [str(theirs[place]) for place in theirs if place not in matched.values()]
    if left:
        raise EvalError(
            f"{first} and {second}: found no counterpart for {', '.join(left)}; expected each run at the same place in "
            "both folders, or as the only one of its benchmark. Name the runs one by one, or move the others away."
        )
    return [(ours[place], theirs[other]) for place, other in sorted(matched.items())]


def _by_task(runs: dict[str, Path], taken: Collection[str]) -> dict[str, list[str]]:
    tasks: dict[str, list[str]] = {}
    for place, folder in runs.items():
        if place not in taken:
            tasks.setdefault(str(_read_json(folder / RUN).get("task")), []).append(place)
    return tasks


def is_published_order(answer: ScoredAnswer) -> bool:
    """Whether its options stood as the benchmark has them, and not as `--permute` turned them."""
    return not answer.question.details.get(permutation.KEY, {"number": 0})["number"]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise EvalError(
            f"{path}: cannot be read as JSON ({error}). Repeat the evaluation, or restore the file."
        ) from error
    if not isinstance(held, dict):
        raise EvalError(f"{path}: found a {type(held).__name__}, expected an object. Restore the file.")
    return held
