"""Several results of one model as one table, with the paper's averages of the groups that were asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cambrian_eval import groups
from cambrian_eval.atomic import write_atomically
from cambrian_eval.report.markdown import markdown_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cambrian_eval.groups import GroupMetrics, Level
    from cambrian_eval.types import Result

SUMMARY = "summary.json"
SUMMARY_TABLE = "summary.md"
HEADER = ("", "score", "95 % interval", "of", "n", "not answered")


@dataclass(frozen=True)
class Summary:
    """The headlines of several results.

    Attributes:
        results: One of each task.
        levels: Their headline scores; a task whose answers are secret has none.
        groups: The averages of the groups that are whole, by name.
        incomplete: Groups without an average, because a task of theirs is not answered in full or has no score.
    """

    results: tuple[Result, ...]
    levels: Mapping[str, Level]
    groups: Mapping[str, GroupMetrics]
    incomplete: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "model": self.results[0].model,
            "mode": self.results[0].mode,
            "tasks": {
                result.task: {
                    **(self.levels[result.task].to_dict() if result.task in self.levels else {"score": None}),
                    "n": result.num_answered,
                    "n_failed": result.num_failed,
                }
                for result in self.results
            },
            "groups": {name: averages.to_dict() for name, averages in self.groups.items()},
            "incomplete_groups": list(self.incomplete),
        }

    def rows(self) -> list[tuple[str, ...]]:
        """The cells of a table with the columns `HEADER`: tasks, then categories and groups."""
        shown: list[tuple[str, ...]] = [
            (result.task, *_cells(self.levels.get(result.task)), str(result.num_answered), str(result.num_failed))
            for result in self.results
        ]
        for name, averages in self.groups.items():
            others = {key: level for key, level in averages.categories.items() if key != name}
            for label, level in {**others, name: averages.overall}.items():
                shown.append((f"mean: {label}", *_cells(level), "", ""))
        return shown


def summarise(results: Sequence[Result], wanted: Sequence[str]) -> Summary:
    """Put results of one model together.

    Args:
        results: One of each task.
        wanted: Groups to average.
    """
    whole = [document for result in results if (document := result.to_dict())["complete"] and _is_scored(document)]
    levels = groups.headlines(whole)
    found = {name: groups.combine(name, levels) for name in wanted if set(groups.members(name)) <= set(levels)}
    return Summary(tuple(results), levels, found, tuple(name for name in wanted if name not in found))


def write_summary(folder: Path, summary: Summary) -> None:
    """Write `summary.json` and `summary.md`."""
    write_atomically(folder / SUMMARY, json.dumps(summary.to_dict(), indent=2) + "\n")
    write_atomically(folder / SUMMARY_TABLE, markdown_table(HEADER, summary.rows()))


def _is_scored(document: Mapping[str, Any]) -> bool:
    return document.get("score") is not None


def _cells(level: Level | None) -> tuple[str, str, str]:
    if level is None:
        return ("", "", "")
    interval = "" if level.low is None or level.high is None else f"{level.low:.1f} to {level.high:.1f}"
    return (f"{level.score:.1f}", interval, f"{level.full:g}")
