"""All benchmarks at a glance, without importing them: `listing.json` holds what each one's task says of itself.

Importing all tasks compiles every scoring rule, which takes longer than a list may. The file is made of the tasks by
`python -m cambrian_eval.listing`, and a test keeps it equal to them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cambrian_eval.task import Task

FILE = Path(__file__).with_suffix(".json")


def read_listing() -> list[dict[str, Any]]:
    """What every benchmark says of itself, in the order of their names."""
    listed: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return listed


def make_listing() -> list[dict[str, Any]]:
    """The same, asked of the tasks themselves."""
    from cambrian_eval.tasks import TASKS

    return [describe(TASKS.get(name)) for name in TASKS.names()]


def describe(task: Task) -> dict[str, Any]:
    """What is known of a benchmark without its data, as plain JSON."""
    from cambrian_eval.groups import groups_of

    return {
        "name": task.name,
        "version": task.version,
        "description": task.description,
        "groups": groups_of(task.name),
        "num_questions": task.num_questions,
        "hub": task.hub.repo,
        "revision": task.hub.revision,
        "splits": list(task.splits),
        "files": list(task.hub.files),
        "fields": list(task.fields),
        "rule": task.rule,
        "headline": task.headline,
        "metrics": _metrics(task),
        "submission": task.submission.file if task.submission else None,
    }


def write_listing() -> None:
    """Make the file anew, after a task has changed."""
    FILE.write_text(json.dumps(make_listing(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _metrics(task: Task) -> str:
    """What its metrics are, in the words of the function that makes them."""
    function = getattr(task.metrics, "func", task.metrics)
    return " ".join((function.__doc__ or "").split("\n\n")[0].split())


if __name__ == "__main__":
    write_listing()
