"""A table of scores: models in rows, benchmarks in columns, from a CSV file or from runs. What is missing stays so."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cambrian_eval.errors import DataError
from cambrian_eval.registry import unknown_name

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

Missing = Literal["models", "benchmarks", "pairwise"]
"""Leave out models without all scores, or benchmarks without all scores, or use what each pair of benchmarks shares."""

MIN_MODELS = 3
_EMPTY = ("", "-", "n/a", "nan", "none")


@dataclass(frozen=True)
class ScoreTable:
    """Scores of models on benchmarks.

    Attributes:
        title: What it is, for people.
        models: Names of the rows.
        benchmarks: Names of the columns.
        scores: By row and column, in each benchmark's own unit; None where there is none.
        notes: What reading it left out.
    """

    title: str
    models: tuple[str, ...]
    benchmarks: tuple[str, ...]
    scores: tuple[tuple[float | None, ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def matrix(self) -> NDArray[Any]:
        """The scores, NaN where there is none."""
        import numpy as np

        return np.array([[math.nan if score is None else score for score in row] for row in self.scores], dtype=float)

    @property
    def num_missing(self) -> int:
        """Number of empty cells."""
        return sum(score is None for row in self.scores for score in row)

    def select(self, models: Collection[str] | None = None, benchmarks: Collection[str] | None = None) -> ScoreTable:
        """Some rows and columns, in the table's order; all where None."""
        rows = [place for place, name in enumerate(self.models) if models is None or name in models]
        columns = [place for place, name in enumerate(self.benchmarks) if benchmarks is None or name in benchmarks]
        return ScoreTable(
            self.title,
            tuple(self.models[row] for row in rows),
            tuple(self.benchmarks[column] for column in columns),
            tuple(tuple(self.scores[row][column] for column in columns) for row in rows),
            self.notes,
        )

    def without(self, benchmarks: Sequence[str]) -> ScoreTable:
        """The table without some columns.

        Raises:
            UnknownNameError: One that the table has not.
        """
        for name in benchmarks:
            if name not in self.benchmarks:
                raise unknown_name("benchmark", name, self.benchmarks)
        return self.select(benchmarks=[name for name in self.benchmarks if name not in benchmarks])


def read_csv(path: Path) -> ScoreTable:
    """Read a table: the first column names models, the others are benchmarks.

    An empty cell, `-`, `n/a`, `nan` or `none` is a missing score. Columns without a single number are left out and
    named in the notes.

    Raises:
        DataError: No such file, no table in it, a name twice, or a cell that is neither a number nor missing.
    """
    header, rows = _rows(path)
    columns = [place for place in range(1, len(header)) if any(_number(row[place]) is not None for _, row in rows)]
    if not columns:
        raise DataError(f"{path}: found no column with a number, expected a model and its scores on each line.")
    names = [header[place] for place in columns]
    models = [row[0] for _, row in rows]
    for kind, found in (("benchmark", names), ("model", models)):
        twice = [name for name in dict.fromkeys(found) if found.count(name) > 1]
        if twice:
            raise DataError(f'{path}: found {kind} "{twice[0]}" twice, expected each name once. Rename or remove one.')
    scores = tuple(tuple(_score(path, number, row, header, place) for place in columns) for number, row in rows)
    texts = [header[place] for place in range(1, len(header)) if place not in columns]
    notes = (f"columns without numbers are left out: {', '.join(texts)}",) if texts else ()
    return ScoreTable(path.stem, tuple(models), tuple(names), scores, notes)


def read_runs(folders: Sequence[Path]) -> ScoreTable:
    """The table of finished runs, found in folders or below: a row for each model and way of asking.

    Raises:
        DataError: A run that is not finished or without a score, or two of one model and benchmark.
        EvalError: A folder without runs.
    """
    from cambrian_eval.runs import runs_below

    scores: dict[str, dict[str, float]] = {}
    for run in [run for folder in folders for run in runs_below(folder).values()]:
        model, task, score = _headline(run)
        if task in scores.setdefault(model, {}):
            raise DataError(f"{run}: found a second run of {task} by {model}, expected one. Leave one of both out.")
        scores[model][task] = score
    tasks = tuple(dict.fromkeys(task for row in scores.values() for task in row))
    return ScoreTable(
        "runs", tuple(scores), tasks, tuple(tuple(row.get(task) for task in tasks) for row in scores.values())
    )


def complete(table: ScoreTable, missing: Missing | None) -> tuple[ScoreTable, list[str]]:
    """Settle what becomes of missing scores, and tell it.

    Args:
        table: With or without empty cells.
        missing: What to do about them; None refuses them.

    Returns:
        The table, without empty cells unless these are dealt with pairwise; and sentences for people.

    Raises:
        DataError: Cells are empty and nothing was said about them, or too few models are left.
    """
    notes = list(table.notes)
    if table.num_missing:
        table, told = _settle(table, missing)
        notes.append(told)
    if len(table.models) < MIN_MODELS or len(table.benchmarks) < 2:
        raise DataError(
            f"{table.title}: found {len(table.models)} models and {len(table.benchmarks)} benchmarks, expected "
            f"at least {MIN_MODELS} and 2 to compare benchmarks by. Add scores"
            + ("; " + notes[-1] if notes else "")
            + "."
        )
    return table, notes


def _settle(table: ScoreTable, missing: Missing | None) -> tuple[ScoreTable, str]:
    models = [name for name, row in zip(table.models, table.scores, strict=True) if None not in row]
    columns = zip(table.benchmarks, zip(*table.scores, strict=True), strict=True)
    benchmarks = [name for name, column in columns if None not in column]
    if missing is None:
        raise DataError(
            f"{table.title}: {table.num_missing} of {len(table.models) * len(table.benchmarks)} scores are missing. "
            f"Say what to do: --missing models keeps the {len(models)} of {len(table.models)} models with all scores, "
            f"--missing benchmarks keeps the {len(benchmarks)} of {len(table.benchmarks)} benchmarks with all scores, "
            "--missing pairwise compares every two benchmarks on the models that have both."
        )
    if missing == "pairwise":
        return (
            table,
            f"{table.num_missing} scores are missing; every two benchmarks are compared on the models with both",
        )
    if missing == "models":
        left = [name for name in table.models if name not in models]
        return table.select(models=models), f"models without all scores are left out: {', '.join(left)}"
    left = [name for name in table.benchmarks if name not in benchmarks]
    return table.select(benchmarks=benchmarks), f"benchmarks without all scores are left out: {', '.join(left)}"


def _rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and each line with its number, all equally long."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [(number, [cell.strip() for cell in row]) for number, row in enumerate(csv.reader(file), 1) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV file in UTF-8 ({error}).") from error
    if len(lines) < 2 or len(lines[0][1]) < 2:
        raise DataError(f"{path}: found no table, expected a header and lines such as MODEL,71.2,64.0.")
    header = lines[0][1]
    for number, row in lines[1:]:
        if len(row) != len(header):
            raise DataError(f"{path}:{number}: found {len(row)} cells, expected {len(header)} as in the header.")
    return header, lines[1:]


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _score(path: Path, number: int, row: Sequence[str], header: Sequence[str], place: int) -> float | None:
    found = _number(row[place])
    if found is None and row[place].lower() not in _EMPTY:
        raise DataError(
            f"{path}:{number}: found {row[place]!r} as score on {header[place]}, expected a number such as 71.2, or "
            "nothing."
        )
    return found


def _headline(run: Path) -> tuple[str, str, float]:
    """A run's row, its column and its score."""
    from cambrian_eval.results import METRICS
    from cambrian_eval.runs import read_run

    found = read_run(run)
    path = run / METRICS
    document: Mapping[str, Any] = json.loads(path.read_bytes()) if path.is_file() else {}
    if not document.get("complete"):
        raise DataError(f"{run}: found an evaluation that is not finished, expected a whole one. Repeat its command.")
    if document.get("score") is None:
        raise DataError(f"{run}: found no score, for the answers of {found.task} are secret. Leave this run out.")
    return found.label, found.task, float(document["score"])
