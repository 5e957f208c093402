"""SEED-Bench, its image part (SEED-I): nine abilities, four options, one picture; video questions are left out.

Source: lmms-lab/SEED-Bench on the hub; SEED-Bench (arXiv 2307.16125).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cambrian_eval import metrics, suffixes
from cambrian_eval.dataset import read_split, sized, unique
from cambrian_eval.errors import DataError
from cambrian_eval.hub import HubDataset
from cambrian_eval.prompts import ask, options
from cambrian_eval.scoring.letters import score_letter
from cambrian_eval.task import Task
from cambrian_eval.types import Question

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian_eval.metrics import Metrics
    from cambrian_eval.rows import Row
    from cambrian_eval.types import Prompt, ScoredAnswer

CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")
FIELDS = ("question_id", "question", *CHOICES, "answer", "question_type_id", "image")
MAX_NEW_TOKENS = 16
NUM_QUESTIONS = 14_233
ABILITIES = (
    "Scene Understanding",
    "Instance Identity",
    "Instance Attribute",
    "Instance Location",
    "Instance Counting",
    "Spatial Relation",
    "Instance Interaction",
    "Visual Reasoning",
    "Text Recognition",
)
"""By `question_type_id`, from 1 on; the types after these are of videos."""


def read_questions(folder: Path, split: str = "test") -> list[Question]:
    """Read the questions on one picture; every one carries the number of rows that were left out.

    Raises:
        DataError: The split, a field or a picture is missing, or all rows are of videos.
    """
    rows = read_split(folder, split, FIELDS, optional=("data_type", "file_name"))
    num_rows = 0
    found = []
    for row in rows:
        num_rows += 1
        if not _is_video(row):
            found.append(_question(row))
    if not found:
        raise DataError(f"{folder}: found {num_rows} questions on videos only, expected some on one picture.")
    questions = unique(folder, found)
    left_out = {"num_left_out": num_rows - len(questions)}
    return [dataclasses.replace(question, details=left_out) for question in questions]


def render(question: Question) -> Prompt:
    """The options below the question, then the instruction to answer with a letter."""
    return ask(question, suffixes.LETTER, MAX_NEW_TOKENS)


def measure(answers: Sequence[ScoredAnswer]) -> Metrics:
    """Accuracy over questions, and by ability."""
    found = sized(metrics.measure(answers, label="SEED-Bench, image part"), NUM_QUESTIONS)
    left_out = {"n_left_out": answers[0].question.details["num_left_out"]}
    return dataclasses.replace(found, summary={**found.summary, **left_out})


def _is_video(row: Row) -> bool:
    """Several frames are a video. Their bytes are never kept."""
    frames = row.values.get("image")
    return row.values["data_type"] == "video" or (isinstance(frames, list) and len(frames) > 1)


def _question(row: Row) -> Question:
    choices = tuple(row.text(name) for name in CHOICES)
    pictures = row.pictures("image") if isinstance(row.values.get("image"), list) else (row.picture("image"),)
    return Question(
        id=row.key("question_id"),
        text=f"{row.text('question')} Options:\n{options(choices)}",
        choices=choices,
        answers=(row.letter("answer", choices),),
        pictures=pictures,
        part="SEED-I",
        task=_ability(row),
        source="",
        group=pictures[0].sha256,
    )


def _ability(row: Row) -> str:
    number = row.key("question_type_id")
    if not number.isdecimal() or not 1 <= int(number) <= len(ABILITIES):
        raise row.error("question_type_id", f"a number from 1 to {len(ABILITIES)} for a question on one picture")
    return ABILITIES[int(number) - 1]


TASK = Task(
    name="seed",
    version=1,
    description=f"SEED-Bench, image part (SEED-I): nine abilities, {NUM_QUESTIONS} questions",
    # The commit as the hub's pages show it.
    hub=HubDataset(
        "lmms-lab/SEED-Bench", ("data/{split}-*.parquet",), revision="74c4ea0cee96786739e4ccb97d227818a05ae752"
    ),
    questions=read_questions,
    prompt=render,
    score=score_letter,
    metrics=measure,
    splits=("test",),
    fields=FIELDS,
    rule="letter",
    headline="accuracy, %",
    num_questions=NUM_QUESTIONS,
)
