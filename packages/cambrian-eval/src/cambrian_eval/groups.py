"""Groups of benchmarks and the paper's averages over them.

MME counts with its perception score over 20, so that every benchmark lies between 0 and 100; a category is the mean of
its four, and the whole is the mean of the four categories.

Source: Cambrian-1 (arXiv 2406.16860), sections 3.1.3 and 5, tables of final models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cambrian_eval import statistics
from cambrian_eval.errors import DataError
from cambrian_eval.registry import unknown_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

CATEGORIES: dict[str, tuple[str, ...]] = {
    "general": ("mme", "mmbench-en", "seed", "gqa"),
    "knowledge": ("scienceqa", "mmmu", "mathvista", "ai2d"),
    "ocr-chart": ("chartqa", "ocrbench", "textvqa", "docvqa"),
    "vision-centric": ("mmvp", "realworldqa", "cvbench-2d", "cvbench-3d"),
}
WHOLE = "cambrian-16"
GROUPS: dict[str, tuple[str, ...]] = {
    **CATEGORIES,
    WHOLE: tuple(task for tasks in CATEGORIES.values() for task in tasks),
}


@dataclass(frozen=True)
class Level:
    """A score and its 95 % interval, if it is known, in a unit in which a perfect model scores `full`."""

    score: float
    low: float | None = None
    high: float | None = None
    full: float = 100.0

    def in_percent(self) -> Level:
        """The same as a share of what a perfect model scores: of MME, the perception score over 20."""
        scale = 100 / self.full
        low, high = (None if end is None else scale * end for end in (self.low, self.high))
        return Level(scale * self.score, low, high)

    def to_dict(self) -> dict[str, float | None]:
        """Plain JSON."""
        return {"score": self.score, "low": self.low, "high": self.high, "full": self.full}


@dataclass(frozen=True)
class GroupMetrics:
    """The averages of one group. All levels are percent.

    Attributes:
        group: Its name.
        overall: The mean of its categories.
        categories: The mean of each category's tasks; of a category that is asked alone, that one.
        tasks: Every task's own level.
        missing: Tasks of the group without a result; empty unless a partial average was asked for.
    """

    group: str
    overall: Level
    categories: Mapping[str, Level]
    tasks: Mapping[str, Level]
    missing: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The group's name, saying so if tasks are missing."""
        total = len(self.tasks) + len(self.missing)
        return f"{self.group} (partial: {len(self.tasks)} of {total} tasks)" if self.missing else self.group

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "group": self.group,
            "label": self.label,
            "partial": bool(self.missing),
            "missing": list(self.missing),
            "overall": self.overall.to_dict(),
            "categories": {name: level.to_dict() for name, level in self.categories.items()},
            "tasks": {name: level.to_dict() for name, level in self.tasks.items()},
        }


def members(group: str) -> tuple[str, ...]:
    """The tasks of a group.

    Raises:
        UnknownNameError: No such group.
    """
    if group not in GROUPS:
        raise unknown_name("group", group, GROUPS)
    return GROUPS[group]


def groups_of(task: str) -> list[str]:
    """The groups that a task is in, categories first."""
    return [group for group, tasks in GROUPS.items() if task in tasks]


def combine(group: str, results: Mapping[str, Level], *, partial: bool = False) -> GroupMetrics:
    """The paper's averages of a group.

    Intervals add as those of independent scores do; an average has one only if all that enters it have.

    Args:
        group: A name of `GROUPS`.
        results: Headline levels by task; those of other tasks are left out.
        partial: Whether to average what is there if tasks are missing. The result says so.

    Raises:
        DataError: Tasks are missing and `partial` is false, or all are missing.
        UnknownNameError: No such group.
    """
    wanted = members(group)
    missing = tuple(task for task in wanted if task not in results)
    if missing and (not partial or len(missing) == len(wanted)):
        raise DataError(_incomplete(group, wanted, missing, partial=partial))
    tasks = {task: results[task].in_percent() for task in wanted if task in results}
    parts = CATEGORIES if group == WHOLE else {group: wanted}
    categories = {
        name: _mean([tasks[task] for task in members_of if task in tasks])
        for name, members_of in parts.items()
        if any(task in tasks for task in members_of)
    }
    return GroupMetrics(group, _mean(list(categories.values())), categories, tasks, missing)


def headlines(documents: Iterable[Mapping[str, Any]]) -> dict[str, Level]:
    """Headline levels by task, of results as `metrics.json` holds them, all of one model and mode.

    The whole of CV-Bench stands for its two parts where these have no results of their own.

    Raises:
        DataError: Results of different models or modes, two of one task, an unfinished one, or one without a score.
    """
    found: dict[str, Level] = {}
    parts: dict[str, Level] = {}
    asked: tuple[Any, Any] | None = None
    for document in documents:
        task = document["task"]
        now = (document["model"], document["mode"])
        if asked is not None and now != asked:
            raise DataError(
                f"found results of {_run(asked)} and of {_run(now)}; an average needs one model and one mode."
            )
        if not document.get("complete", True):
            failed = document.get("n_failed")
            raise DataError(f"{task}: found an unfinished result, {failed} questions have no answer; run it again.")
        if task in found:
            raise DataError(f"found two results of {task}; an average needs one of each task.")
        asked = now
        found[task] = _headline(document, "score")
        if task == "cvbench" and "score_2d" in document["scores"]:  # another tool's metrics have no parts
            parts = {f"cvbench-{part}": _headline(document, f"score_{part}") for part in ("2d", "3d")}
    return {**parts, **found}


def _headline(document: Mapping[str, Any], name: str) -> Level:
    row = document.get("scores", {}).get(name)
    if row is None:
        raise DataError(f"{document['task']}: found no score {name!r}; score it again with this version.")
    return Level(row["accuracy"], row["low"], row["high"], row.get("full", 100.0))


def _mean(levels: Sequence[Level]) -> Level:
    weight = 1 / len(levels)
    score = weight * math.fsum(level.score for level in levels)
    known = [
        (weight, level.score, level.low, level.high)
        for level in levels
        if level.low is not None and level.high is not None
    ]
    if len(known) < len(levels):
        return Level(score)
    ends = statistics.combine(known)
    return Level(score, max(0.0, ends.low), min(100.0, ends.high))


def _incomplete(group: str, wanted: Sequence[str], missing: Sequence[str], *, partial: bool) -> str:
    advice = "Evaluate them too" if partial else "Evaluate them too, or ask for a partial average"
    there = len(wanted) - len(missing)
    return f"{group}: found results of {there} of {len(wanted)} tasks; missing: {', '.join(missing)}. {advice}."


def _run(asked: tuple[Any, Any]) -> str:
    return f"{asked[0]} ({asked[1]})"
