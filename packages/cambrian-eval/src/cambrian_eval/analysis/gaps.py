"""What pictures add: a model's score with them minus its score without, beside what a guess scores.

A benchmark that is solved nearly as well without pictures measures the language model. A score without pictures below
chance, or far above it, tells of habits in how its questions are made.

Source: Cambrian-1 (arXiv 2406.16860), section 3.1 and figure 3.
"""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cambrian_eval.compare import compare
from cambrian_eval.errors import DataError
from cambrian_eval.results import METRICS
from cambrian_eval.runs import read_run, runs_below
from cambrian_eval.statistics import paired_difference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cambrian_eval.runs import Run
    from cambrian_eval.statistics import Difference

FIELDS = ("benchmark", "enabled", "disabled")

_OWN = frozenset({"mode", "prompts_sha256", "seed", "verify_batching"})
"""What of `run.json` may differ between a run with pictures and the one without; another seed has other ids."""


@dataclass(frozen=True)
class Gap:
    """One benchmark with and without pictures; levels in its own unit.

    Attributes:
        benchmark: Its name.
        model: Whose scores these are; the number of models where they are averaged.
        enabled: Score with pictures.
        disabled: Score without.
        interval: The 95 % interval of the gap; None where there is nothing to make it of.
        chance: What a guess scores; None where it is not known or there is nothing to guess.
        num: Number of questions, or of models.
        full: What a perfect model scores.
        basis: What the interval is over: "questions" or "models".
        parse_rates: Percent of replies in which an answer was found, with pictures and without; None where not known.
    """

    benchmark: str
    model: str
    enabled: float
    disabled: float
    interval: tuple[float, float] | None
    chance: float | None
    num: int
    basis: str
    full: float = 100.0
    parse_rates: tuple[float, float] | None = None

    @property
    def gap(self) -> float:
        """What pictures add."""
        return self.enabled - self.disabled

    @property
    def above_chance(self) -> float | None:
        """What is known without pictures."""
        return None if self.chance is None else self.disabled - self.chance

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "gap": self.gap, "above_chance": self.above_chance}


def gaps_of_runs(folders: Sequence[Path]) -> list[Gap]:
    """The gap of every benchmark and model of which there is a run with pictures and one without.

    Both are of the same weights and data, asked and read in the same way: pictures are all that a gap is made of.

    Args:
        folders: Runs, or folders of runs.

    Raises:
        DataError: Two runs of one kind, or a run without its counterpart.
        EvalError: Runs that do not compare.
    """
    runs: dict[str, dict[str, Run]] = {}
    for run in [read_run(run) for folder in folders for run in runs_below(folder).values()]:
        mode = str(run.identity.get("mode", "normal"))
        shared = {name: value for name, value in run.identity.items() if name not in _OWN}
        held = runs.setdefault(json.dumps(shared, sort_keys=True), {})
        if mode in held:
            raise DataError(
                f"{run.folder} and {held[mode].folder}: found two runs of {run.task}, mode {mode}, expected one."
            )
        if mode in ("normal", "blind"):
            held[mode] = run
    for held in runs.values():
        if len(held) == 1:
            mode, run = next(iter(held.items()))
            needed = "cambrian eval --blind" if mode == "normal" else "cambrian eval without --blind"
            raise DataError(
                f"{run.folder}: found {run.task} by {run.identity['model']}, {mode}, without its counterpart of the "
                f"same weights, data, prompt and rules. Add it with {needed}."
            )
    found = [_gap(held["blind"], held["normal"]) for held in runs.values() if held]
    return sorted(found, key=_share)


def read_gaps(path: Path) -> list[Gap]:
    """Gaps of a CSV file with the columns benchmark, enabled, disabled and, if wanted, chance and model.

    Several models of one benchmark are averaged; the interval is that of a paired t test over them.

    Raises:
        DataError: No such file, a column is missing, or a cell is no number.
    """
    lines: dict[str, list[dict[str, str]]] = {}
    for line in _lines(path):
        lines.setdefault(line["benchmark"], []).append(line)
    return sorted((_average(path, name, rows) for name, rows in lines.items()), key=_share)


def average(gaps: Sequence[Gap]) -> list[Gap]:
    """The gaps of several models averaged by benchmark, with intervals over models where there are two or more."""
    by_benchmark: dict[str, list[Gap]] = {}
    for gap in gaps:
        by_benchmark.setdefault(gap.benchmark, []).append(gap)
    found = [
        _over_models(name, [(g.enabled, g.disabled) for g in own], own[0].chance, own[0].full)
        for name, own in by_benchmark.items()
    ]
    return sorted(found, key=_share)


def _share(gap: Gap) -> float:
    """A gap in percent, whatever its benchmark's unit."""
    return 100 * gap.gap / gap.full


def _gap(blind: Run, normal: Run) -> Gap:
    found = compare(blind.folder, normal.folder)
    disabled, enabled = found.scores
    return Gap(
        benchmark=found.task,
        model=normal.label,
        enabled=enabled,
        disabled=disabled,
        interval=_interval(found.difference),
        chance=_chance(normal.folder),
        num=found.num_shared,
        basis="questions",
        full=found.full,
        parse_rates=(found.parse_rates[1], found.parse_rates[0]),
    )


def _interval(found: Difference) -> tuple[float, float] | None:
    return (found.low, found.high) if math.isfinite(found.low) else None


def _chance(run: Path) -> float | None:
    """What a guess scores on the run's benchmark, as its metrics say."""
    path = run / METRICS
    document: Mapping[str, Any] = json.loads(path.read_bytes()) if path.is_file() else {}
    return document.get("scores", {}).get("score", {}).get("chance")


def _lines(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns, lines = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV file in UTF-8 ({error}).") from error
    missing = [name for name in FIELDS if name not in columns]
    if missing:
        raise DataError(
            f"{path}: missing column {', '.join(missing)}; found {', '.join(columns)}, needed {', '.join(FIELDS)}."
        )
    if not lines:
        raise DataError(f"{path}: found no line below the header, expected one for each benchmark and model.")
    return lines


def _average(path: Path, name: str, rows: Sequence[Mapping[str, str]]) -> Gap:
    pairs = [(_number(path, row, "enabled"), _number(path, row, "disabled")) for row in rows]
    chances = {_number(path, row, "chance") for row in rows if row.get("chance")}
    if len(chances) > 1:
        raise DataError(f"{path}: found chance {', '.join(map(str, sorted(chances)))} for {name}, expected one level.")
    return _over_models(name, pairs, chances.pop() if chances else None)


def _over_models(name: str, pairs: Sequence[tuple[float, float]], chance: float | None, full: float = 100.0) -> Gap:
    changes = [(enabled - disabled) / full for enabled, disabled in pairs]
    found = paired_difference(changes, range(len(pairs)), weights={"": full})
    means = [math.fsum(side) / len(pairs) for side in zip(*pairs, strict=True)]
    label = f"{len(pairs)} models" if len(pairs) > 1 else "1 model"
    return Gap(name, label, means[0], means[1], _interval(found), chance, len(pairs), "models", full)


def _number(path: Path, row: Mapping[str, str], column: str) -> float:
    try:
        number = float(row[column])
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(
            f"{path}: found {row[column]!r} as {column} of {row['benchmark']}, expected a number such as 71.2."
        )
    return number
