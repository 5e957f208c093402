"""Several runs as one table: a column for each model and way of asking, a row for each benchmark.

Only scores that compare share a row: another version of a task, split or data has a row of its own, and whatever else
sets a run apart (a limit, no pictures, another prompt or other rules) stands in the head of its column. Published
scores have columns of their own that say so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cambrian_eval import summary
from cambrian_eval.groups import GROUPS, WHOLE, Level
from cambrian_eval.registry import unknown_name
from cambrian_eval.report.csv import LEVELS, row_cells, write_csv
from cambrian_eval.report.markdown import markdown_cell, markdown_table
from cambrian_eval.report.recorded import read_recorded
from cambrian_eval.report.table import asked, count, level
from cambrian_eval.runs import is_published_order, runs_below

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cambrian_eval.analysis.published import PublishedModel
    from cambrian_eval.metrics import MetricRow
    from cambrian_eval.report.recorded import Recorded
    from cambrian_eval.types import Result

ALL = "all"
WHOLE_CVBENCH = "cvbench"  # the paper publishes its two parts, which are benchmarks of their own too
CSV_COLUMNS = (
    *("column", "published", "folder", "model", "task", "task_version", "complete"),
    *("group", "name", "label"),
    *LEVELS,
)

RowKey = tuple[str, str]
"""A benchmark, and which of its versions, splits and data: what must be equal for scores to share a row."""


@dataclass
class Column:
    """One model, asked in one way.

    Attributes:
        label: Its head.
        runs: Its runs, by row.
        published: The paper's model whose printed scores these are; None for runs.
    """

    label: str
    runs: dict[RowKey, Recorded] = field(default_factory=dict)
    published: PublishedModel | None = None


@dataclass(frozen=True)
class Cell:
    """A score in the table.

    Attributes:
        level: With its interval, if it is known.
        row: What it is from; None for what is published and for averages.
        parse_rate: Share of replies in which an answer was found; None for what is published.
        is_complete: Whether all questions were answered.
    """

    level: Level
    row: MetricRow | None = None
    parse_rate: float | None = None
    is_complete: bool = True

    @property
    def text(self) -> str:
        """What people read: score, interval, and the parse rate it goes with."""
        of = "" if self.level.full == 100 else f" of {self.level.full:g}"
        ends = _interval(self.level)
        read = "" if self.parse_rate is None else f"; parsed {self.parse_rate:.1f} %"
        num = "" if self.row is None else f", n {count(self.row)}"
        return f"{self.level.score:.1f}{of}{ends}{read}{num}{'' if self.is_complete else '; INCOMPLETE'}"


@dataclass(frozen=True)
class Line:
    """A row of the table.

    Attributes:
        label: What people read.
        cells: One for each column; None where there is no such score.
    """

    label: str
    cells: tuple[Cell | None, ...]

    @property
    def chance(self) -> str:
        """Of the runs in this row; says so if they differ, as they do with a limit."""
        return _same([cell.row.chance for cell in self.cells if cell is not None and cell.row is not None])

    @property
    def best_constant(self) -> str:
        """Likewise."""
        return _same([cell.row.best_constant for cell in self.cells if cell is not None and cell.row is not None])


@dataclass(frozen=True)
class SideBySide:
    """Several runs as tables.

    Attributes:
        columns: Models and ways of asking.
        headlines: The score of each benchmark.
        averages: The paper's averages, of columns with all of a group's benchmarks.
        parts: All rows of each benchmark that has more than its score, by its label.
        notes: What to know before comparing.
    """

    columns: tuple[Column, ...]
    headlines: tuple[Line, ...]
    averages: tuple[Line, ...]
    parts: Mapping[str, tuple[Line, ...]]
    notes: tuple[str, ...]

    @property
    def head(self) -> list[str]:
        """The names of a table's columns."""
        return ["", *(column.label for column in self.columns), "chance", "best constant"]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "columns": [column.label for column in self.columns],
            "scores": [_as_dict(line) for line in self.headlines],
            "averages": [_as_dict(line) for line in self.averages],
            "runs": {column.label: [str(run.result.output) for run in column.runs.values()] for column in self.columns},
            "notes": list(self.notes),
        }


def read_runs(folders: Sequence[Path], data: Path | None = None) -> list[Recorded]:
    """The runs in folders or below them.

    Args:
        folders: Runs, or folders of runs.
        data: The benchmark's folder, to show pictures.

    Raises:
        EvalError: A folder without runs, or a damaged run.
    """
    found = {path.resolve(): path for folder in folders for path in runs_below(folder).values()}
    return [read_recorded(path, data) for path in found.values()]


def arrange(runs: Sequence[Recorded], published: str | None = None) -> SideBySide:
    """Put runs side by side.

    Args:
        runs: Of any models and benchmarks.
        published: A model of the paper's table, or `all`.

    Raises:
        UnknownNameError: The paper has no such model.
    """
    columns = [*_columns(runs), *_published(published)]
    keys = list(dict.fromkeys(key for column in columns for key in column.runs))
    labels = _row_labels(keys, columns)
    headlines = [line for key in sorted(keys, key=_order) for line in _headlines(labels[key], columns, key)]
    parts = {labels[key]: tuple(_parts(columns, key)) for key in sorted(keys, key=_order)}
    return SideBySide(
        columns=tuple(columns),
        headlines=tuple(headlines),
        averages=tuple(_averages(columns)),
        parts={label: lines for label, lines in parts.items() if len(lines) > 1},
        notes=tuple(_notes(columns, headlines)),
    )


def table(lines: Iterable[Line]) -> list[list[str]]:
    """The cells of a table with the columns `SideBySide.head`."""
    return [
        [line.label, *("" if cell is None else cell.text for cell in line.cells), line.chance, line.best_constant]
        for line in lines
    ]


def markdown(found: SideBySide) -> str:
    """A Markdown page with everything."""
    parts = ["# Scores, with 95 % intervals\n", markdown_table(found.head, table(found.headlines))]
    if found.averages:
        parts += ["## Averages of groups\n", markdown_table(found.head, table(found.averages))]
    parts.append("".join(f"- {markdown_cell(note)}\n" for note in found.notes))
    for label, lines in found.parts.items():
        parts += [f"## {markdown_cell(label)}\n", markdown_table(found.head, table(lines))]
    return "\n".join(filter(None, parts))


def csv_text(found: SideBySide) -> str:
    """All rows of all runs, one on each line, and the published scores, to full precision."""
    return write_csv(CSV_COLUMNS, (cells for column in found.columns for cells in _csv_rows(column)))


# Columns.


def _columns(runs: Sequence[Recorded]) -> list[Column]:
    """Runs of one model, asked in one way, share a column; a second run of the same benchmark begins another."""
    made: list[tuple[tuple[Any, ...], Column]] = []
    for run in runs:
        key = (run.identity.get("model_fingerprint"), *_asked(run))
        row = _key(run)
        column = next((column for held, column in made if held == key and row not in column.runs), None)
        if column is None:
            column = Column(", ".join([run.result.model, *_asked(run)]))
            made.append((key, column))
        column.runs[row] = run
    columns = [column for _, column in made]
    for label in [column.label for column in columns]:
        same = [column for column in columns if column.label == label]
        for column in same if len(same) > 1 else ():
            column.label = f"{label} [{next(iter(column.runs.values())).result.output}]"
    return columns


def _asked(run: Recorded) -> list[str]:
    cap = run.identity.get("max_new_tokens")
    return [*asked({**run.identity, "mode": run.result.mode}), *([f"at most {cap} tokens"] if cap else [])]


def _published(name: str | None) -> list[Column]:
    if name is None:
        return []
    from cambrian_eval.analysis.published import published_models

    models = {_slug(model): found for model, found in published_models().items()}
    if name != ALL and _slug(name) not in models:
        raise unknown_name("published model", name, [*models, ALL])
    chosen = models.values() if name == ALL else [models[_slug(name)]]
    return [Column(f"{model.name} (published)", published=model) for model in chosen]


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


# Rows.


def _key(run: Recorded) -> RowKey:
    identity = run.identity
    return str(identity["task"]), f"{run.result.task_version} {identity.get('split')} {identity.get('data_sha256')}"


def _row_labels(keys: Sequence[RowKey], columns: Sequence[Column]) -> dict[RowKey, str]:
    """The benchmark's name, and what sets its rows apart where it has several."""
    labels = {}
    for key in keys:
        run = next(column.runs[key] for column in columns if key in column.runs)
        others = [other for other in keys if other[0] == key[0]]
        data = str(run.identity.get("data_sha256"))[:8]
        apart = f" (version {run.result.task_version}, {run.identity.get('split')}, data {data})"
        labels[key] = key[0] + (apart if len(others) > 1 else "")
    return labels


def _order(key: RowKey) -> tuple[int, str]:
    """As in the paper's table; other benchmarks behind."""
    known = GROUPS[WHOLE]
    return (known.index(key[0]) if key[0] in known else len(known), key[0])


def _headlines(label: str, columns: Sequence[Column], key: RowKey) -> Iterator[Line]:
    """The score, and of CV-Bench those of its two parts, which the paper publishes."""
    yield Line(label, tuple(_headline(column, key, "score") for column in columns))
    if key[0] == WHOLE_CVBENCH:
        for part in ("2d", "3d"):
            cells = tuple(_headline(column, key, f"score_{part}") for column in columns)
            if any(cell is not None and cell.row is not None for cell in cells):  # another tool may not tell them apart
                yield Line(f"{label}, {part.upper()}", cells)


def _headline(column: Column, key: RowKey, name: str) -> Cell | None:
    if column.published is None:
        return _cell(column.runs.get(key), "scores", name)
    parts = [column.published.scores.get(f"{WHOLE_CVBENCH}-{part}") for part in ("2d", "3d")]
    if key[0] == WHOLE_CVBENCH:
        score = {"score": _mean(parts), "score_2d": parts[0], "score_3d": parts[1]}[name]
    else:
        score = column.published.scores.get(key[0])
    return None if score is None else Cell(_level(key[0], score))


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known and len(known) == len(scores) else None


def _level(task: str, score: float) -> Level:
    from cambrian_eval.analysis.published import MME_FULL

    return Level(score, full=MME_FULL if task == "mme" else 100.0)


def _cell(run: Recorded | None, group: str, name: str) -> Cell | None:
    if run is None:
        return None
    row = next((row for row in run.result.metrics.rows if (row.group, row.name) == (group, name)), None)
    complete = bool(run.result.to_dict()["complete"])
    return (
        None if row is None else Cell(Level(row.accuracy, row.low, row.high, row.full), row, row.parse_rate, complete)
    )


def _parts(columns: Sequence[Column], key: RowKey) -> Iterator[Line]:
    runs = [column.runs[key] for column in columns if key in column.runs]
    names = dict.fromkeys((row.group, row.name) for run in runs for row in run.result.metrics.rows)
    labels = {(row.group, row.name): row.label for run in runs for row in run.result.metrics.rows}
    for group, name in names:
        yield Line(labels[group, name], tuple(_cell(column.runs.get(key), group, name) for column in columns))


def _averages(columns: Sequence[Column]) -> Iterator[Line]:
    found = [_groups(column) for column in columns]
    for name in GROUPS:
        cells = tuple(levels.get(name) for levels in found)
        if any(cell is not None and cell.parse_rate is not None for cell in cells):  # of a run, not only of the paper
            yield Line(f"mean: {name}", cells)


def _groups(column: Column) -> dict[str, Cell]:
    """The averages that a column has all benchmarks for, with the mean of their parse rates."""
    if column.published is not None:
        from cambrian_eval.analysis.published import recomputed

        return {name: Cell(Level(score)) for name, score in recomputed(column.published).items() if score is not None}
    results = {run.result.task: run.result for run in column.runs.values() if _can_be_averaged(run.result)}
    if len({run.result.task for run in column.runs.values()}) < len(column.runs) or not results:
        return {}  # two versions of one benchmark: which one is meant is not for us to say
    made = summary.summarise(list(results.values()), list(GROUPS)).groups
    return {
        name: Cell(averages.overall, parse_rate=_parse_rate(list(averages.tasks), results))
        for name, averages in made.items()
    }


def _can_be_averaged(result: Result) -> bool:
    """Whether it has a score, and of CV-Bench its parts; scored as another tool does, it may not."""
    names = {row.name for row in result.metrics.rows if row.group == "scores"}
    return names >= ({"score", "score_2d", "score_3d"} if result.task == WHOLE_CVBENCH else {"score"})


def _parse_rate(tasks: Sequence[str], results: Mapping[str, Result]) -> float:
    """The mean over benchmarks; the whole of CV-Bench stands for its two parts."""
    whole = results.get(WHOLE_CVBENCH)
    found = [results.get(task, whole) for task in tasks]
    rates = [one.metrics.summary["parse_rate"] for one in found if one is not None]
    return sum(rates) / len(rates)


def _notes(columns: Sequence[Column], headlines: Sequence[Line]) -> Iterator[str]:
    if any(column.published for column in columns):
        from cambrian_eval.analysis.published import PUBLISHED

        table = PUBLISHED["final-models"]
        yield f"published: {table.source}; no intervals are published. {table.note}"
        yield "averages of published scores are made of the printed scores by the same rule as those of runs"
        for column in columns:
            yield from (f"{column.label}, {note}" for run in column.runs.values() for note in _other_questions(run))
    if any(cell is not None and not cell.is_complete for line in headlines for cell in line.cells):
        yield "INCOMPLETE: questions were not answered, and are in no number"
    for column in columns:
        for run in column.runs.values():
            yield from (f"{column.label}, {run.result.task}: {note}" for note in _notes_of(run.result))


def _other_questions(run: Recorded) -> Iterator[str]:
    """Why a run's score does not compare with published ones: a limit, or data of one's own."""
    from cambrian_eval.tasks import TASKS

    task, num = run.result.task, sum(map(is_published_order, run.answers)) + run.result.num_failed
    published = TASKS.get(task).num_questions if task in TASKS.names() else num
    if num != published:
        yield f"{task}: {num} questions; the published scores are of {published}, and do not compare"
    elif run.result.metrics.summary.get("published") is False:
        yield f"{task}: other data than the published, and so not to be compared with published scores"


def _notes_of(result: Result) -> Iterator[str]:
    """What the cell of one run does not say: why there is no score, what a judge found, and warnings."""
    summary = result.metrics.summary
    if summary.get("score") is None:
        yield (
            f"no score, for no reply has a value by rule; {result.num_answered} replies, "
            f"parsed {summary.get('parse_rate', 0.0):.1f} %"
        )
    judged = result.checks.get("judge")
    if judged is not None and judged["score"] is not None:
        yield f"{judged['score']:.1f} by the judge {judged['judge']} ({judged['rubric']}, n {judged['n']})"
    yield from result.checks.get("warnings", ())


# Cells.


def _interval(found: Level) -> str:
    return "" if found.low is None or found.high is None else f" ({found.low:.1f} to {found.high:.1f})"


def _same(levels: Sequence[float | None]) -> str:
    shown = dict.fromkeys(level(value) for value in levels)
    return next(iter(shown), "") if len(shown) < 2 else "differs"


def _as_dict(line: Line) -> dict[str, Any]:
    return {
        "label": line.label,
        "cells": [
            None
            if cell is None
            else {
                **cell.level.to_dict(),
                "complete": cell.is_complete,
                **({} if cell.row is None else cell.row.to_dict()),
            }
            for cell in line.cells
        ],
    }


def _csv_rows(column: Column) -> Iterator[list[str | float | None]]:
    told: list[str | float | None]
    for run in column.runs.values():
        result = run.result
        complete = str(result.to_dict()["complete"]).lower()
        told = [column.label, "false", str(result.output), result.model, result.task, result.task_version, complete]
        yield from ([*told, *row_cells(row)] for row in result.metrics.rows)
    model = column.published
    for task, score in model.scores.items() if model is not None else ():
        if model is not None and score is not None:
            levels = {"accuracy": score, "full": _level(task, score).full}
            told = [column.label, "true", None, model.name, task, None, None, "scores", "score", task]
            yield [*told, *map(levels.get, LEVELS)]
