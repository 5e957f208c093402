"""The paper's own numbers, as data, each with its source.

Numbers are those that are printed. Every row of the backbones was checked against the average printed beside it, and
the averages of categories against the data of the project page's plot; both agree within rounding.
"""

from __future__ import annotations

import csv
import dataclasses
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cambrian_eval.analysis.scores import ScoreTable, read_csv
from cambrian_eval.groups import CATEGORIES, WHOLE, Level, combine
from cambrian_eval.registry import unknown_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cambrian_eval.groups import GroupMetrics

MME_FULL = 2000.0
PAPER = "Cambrian-1 (arXiv 2406.16860, NeurIPS 2024)"
SETTINGS = ("0M", "0.5M", "1.2M", "1.2M unfrozen", "1.2M combined")
"""Samples of the alignment stage; whether the encoder was trained afterwards, or several encoders were combined."""
SCORE_TABLES = ("backbones", "final-models")


@dataclass(frozen=True)
class Published:
    """A table that ships with the package.

    Attributes:
        name: What users call it.
        title: What it holds.
        source: Where its numbers are from.
        note: What to know before using it.
    """

    name: str
    title: str
    source: str
    note: str

    @property
    def file(self) -> Path:
        """The CSV file."""
        return Path(str(resources.files("cambrian_eval") / "analysis" / "data" / f"{self.name.replace('-', '_')}.csv"))

    def rows(self) -> list[dict[str, str]]:
        """Its lines as printed, by column."""
        with self.file.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))


PUBLISHED = {
    table.name: table
    for table in (
        Published(
            "backbones",
            "models with 23 vision backbones (and seven combinations) on 16 benchmarks",
            f"{PAPER}, appendix F: tables 9 to 12 and 14 of the NeurIPS text; combinations also on the project page",
            "Vicuna-1.5-7B, MLP projector, 737K instruction mix. All 23 backbones have scores without an alignment "
            "stage (0M), 18 with 0.5M and with 1.2M samples of it, 13 with 1.2M and a trained encoder; 7 combinations. "
            "DINOv2 ViT-L/14@518, MAE ViT-H, SAM ViT-L, MiDaS 3.1 and SupViT ViT-H have no other setting than 0M; "
            "DINOv2 ViT-L/14@518 at 1.2M is only in the paper's figure 5, as averages: see the table categories. "
            "I-JEPA is printed as ViT-L/14 in the table of 0.5M and as ViT-H/14 elsewhere; it is called ViT-H/14 here.",
        ),
        Published(
            "final-models",
            "final models on 16 benchmarks, with the averages as printed",
            f"{PAPER}, table 4 of the NeurIPS text; also on the project page",
            "Scores of other models are the paper's, gathered or measured by its authors. MME is the perception score.",
        ),
        Published(
            "categories",
            "averages of four categories, 19 backbones with 1.2M samples of alignment, frozen",
            "data of the interactive plot on the project page (cambrian-mllm.github.io/cambrian-1), to full precision",
            "The only place with numbers of DINOv2 ViT-L/14@518 at 1.2M. Names are the plot's: there, I-JEPA is /16.",
        ),
        Published(
            "correlations",
            "correlations of 15 benchmarks over models, CV-Bench in one",
            f"{PAPER}, figure 10 of the NeurIPS text",
            'Over "one-stage, two-stage finetune-only and hybrid models"; which ones is not said, and no set of whole '
            "settings of the backbones' table gives these numbers exactly.",
        ),
        Published(
            "blind-gaps",
            "score with pictures minus score without, averaged over models, of 14 benchmarks",
            f"{PAPER}, figure 3 (left): read from the plot by eye, for the numbers are printed nowhere",
            "Good to about one point. CV-Bench is not in the figure.",
        ),
    )
}


@dataclass(frozen=True)
class PublishedModel:
    """One row of the paper's table of final models.

    Attributes:
        name: What the paper calls it.
        visual_tokens: Tokens of one picture; None where they are not known.
        scores: By task, as printed (MME: the perception score); None where there is none.
        averages: Of the categories, as printed.
    """

    name: str
    visual_tokens: int | None
    scores: Mapping[str, float | None]
    averages: Mapping[str, float | None]

    def group(self, name: str) -> GroupMetrics:
        """The average of a group, made of the scores.

        Raises:
            DataError: A score is missing.
            UnknownNameError: No such group.
        """
        known = {task: score for task, score in self.scores.items() if score is not None}
        return combine(
            name, {task: Level(score, full=MME_FULL if task == "mme" else 100.0) for task, score in known.items()}
        )


def find(name: str) -> Published:
    """A table by its name.

    Raises:
        UnknownNameError: There is none of that name.
    """
    if name not in PUBLISHED:
        raise unknown_name("published table", name, PUBLISHED)
    return PUBLISHED[name]


def published_models() -> dict[str, PublishedModel]:
    """The paper's table of final models, by name."""
    rows = PUBLISHED["final-models"].rows()
    return {row["model"]: _model(row) for row in rows}


def backbones(setting: str | None = None) -> ScoreTable:
    """The scores of models with different vision backbones, one row for each backbone and setting.

    Raises:
        UnknownNameError: There is no such setting.
    """
    if setting is not None and setting not in SETTINGS:
        raise unknown_name("setting", setting, SETTINGS)
    rows = [row for row in PUBLISHED["backbones"].rows() if setting in (None, row["setting"])]
    tasks = tuple(task for tasks in CATEGORIES.values() for task in tasks)
    return ScoreTable(
        "backbones of the paper" + (f", {setting}" if setting else ""),
        tuple(row["backbone"] + ("" if setting else f", {row['setting']}") for row in rows),
        tasks,
        tuple(tuple(float(row[task]) for task in tasks) for row in rows),
    )


def score_table(name: str, setting: str | None = None) -> ScoreTable:
    """A published table of scores by benchmark: `backbones` or `final-models`.

    Raises:
        UnknownNameError: No such table of scores, or no such setting.
    """
    if name == "backbones":
        return backbones(setting)
    if name != "final-models":
        raise unknown_name("table of scores", name, SCORE_TABLES)
    table = dataclasses.replace(read_csv(PUBLISHED[name].file), title="final models of the paper")
    return table.select(benchmarks=[task for tasks in CATEGORIES.values() for task in tasks])


def recomputed(model: PublishedModel) -> dict[str, Any]:
    """A model's averages made of its scores: the categories and the whole; None where scores are missing."""
    complete = {name: all(model.scores[task] is not None for task in tasks) for name, tasks in CATEGORIES.items()}
    found: dict[str, Any] = {
        name: model.group(name).overall.score if whole else None for name, whole in complete.items()
    }
    return {**found, WHOLE: model.group(WHOLE).overall.score if all(complete.values()) else None}


def _model(row: Mapping[str, str]) -> PublishedModel:
    tasks = [task for tasks in CATEGORIES.values() for task in tasks]
    return PublishedModel(
        name=row["model"],
        visual_tokens=int(row["visual_tokens"]) if row["visual_tokens"] else None,
        scores={task: _level(row[task]) for task in tasks},
        averages={name: _level(row[name]) for name in CATEGORIES},
    )


def _level(cell: str) -> float | None:
    return float(cell) if cell else None
