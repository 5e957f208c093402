"""BLINK: fourteen tasks of perception that people solve in the blink of an eye, with one to four pictures.

Source: BLINK-Benchmark/BLINK on the hub; BLINK (arXiv 2404.12390), whose score is the mean over the tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian_eval import suffixes
from cambrian_eval.dataset import has_split, read_split, size_note, unique
from cambrian_eval.hub import HubDataset
from cambrian_eval.macro_mean import macro_mean
from cambrian_eval.metrics import Metrics, mean_row, parse_rate, rows_by
from cambrian_eval.optional_picture import optional_picture
from cambrian_eval.prompts import ask
from cambrian_eval.scoring.letters import score_letter
from cambrian_eval.task import Task
from cambrian_eval.types import Question

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cambrian_eval.rows import Row
    from cambrian_eval.types import Prompt, ScoredAnswer

SUBTASKS = (
    "Art_Style",
    "Counting",
    "Forensic_Detection",
    "Functional_Correspondence",
    "IQ_Test",
    "Jigsaw",
    "Multi-view_Reasoning",
    "Object_Localization",
    "Relative_Depth",
    "Relative_Reflectance",
    "Semantic_Correspondence",
    "Spatial_Relation",
    "Visual_Correspondence",
    "Visual_Similarity",
)
ONE_PICTURE = (
    "Counting",
    "IQ_Test",
    "Object_Localization",
    "Relative_Depth",
    "Relative_Reflectance",
    "Spatial_Relation",
)
"""The tasks on one picture, the only ones that the reference asks."""

PICTURES = ("image_1", "image_2", "image_3", "image_4")
FIELDS = ("idx", "prompt", "choices", "answer", PICTURES[0])
MAX_NEW_TOKENS = 16
NUM_QUESTIONS = 1901


def read_questions(folder: Path, split: str = "val") -> list[Question]:
    """Read all tasks, each from its own part of the hub's folder, or from one table that holds them all.

    Raises:
        DataError: A task's split, a field or a picture is missing, or an answer is none of the choices.
    """
    if has_split(folder, split):
        rows = read_split(folder, split, (*FIELDS, "sub_task"), optional=PICTURES[1:])
        return unique(folder, (_question(row, row.one_of("sub_task", SUBTASKS)) for row in rows))
    return unique(folder, (_question(row, name) for name in SUBTASKS for row in _rows(folder, split, name)))


def render(question: Question) -> Prompt:
    """All pictures, the published prompt with its choices, then the instruction to answer with only the letter.

    Differs from the reference: it shows the first picture only, and asks six of the fourteen tasks.
    """
    return ask(question, suffixes.LETTER_ONLY, MAX_NEW_TOKENS)


def measure(answers: Sequence[ScoredAnswer]) -> Metrics:
    """The mean over tasks, the same over those on one picture, and the mean over questions; by task."""
    tasks = rows_by("tasks", "task", answers) or [mean_row("tasks", _only(answers), _only(answers), answers)]
    single = [row for row in tasks if row.name in ONE_PICTURE]
    (headline,) = macro_mean("score", "BLINK, mean over tasks", tasks)
    return Metrics(
        summary={
            "score": headline.accuracy,
            "parse_rate": parse_rate(answers),
            "n_unscored": 0,
            "n_tasks": len(tasks),
            **size_note(len(answers), NUM_QUESTIONS),
        },
        rows=(
            headline,
            *macro_mean("one_picture", "mean over the tasks on one picture", single),
            mean_row("scores", "micro", "mean over questions (not the published score)", answers),
            *tasks,
        ),
    )


def _rows(folder: Path, split: str, subtask: str) -> Iterator[Row]:
    return read_split(folder, split, FIELDS, config=subtask, optional=PICTURES[1:])


def _question(row: Row, subtask: str) -> Question:
    choices = row.choices("choices")
    others = (optional_picture(row, name) for name in PICTURES[1:])
    pictures = (row.picture(PICTURES[0], file=""), *(picture for picture in others if picture))
    return Question(
        id=row.text("idx"),
        text=row.text("prompt"),
        choices=choices,
        answers=(row.letter("answer", choices),),
        pictures=pictures,
        part=subtask,
        task=subtask,
        source="",
    )


def _only(answers: Sequence[ScoredAnswer]) -> str:
    return answers[0].question.task


TASK = Task(
    name="blink",
    version=1,
    description=f"BLINK: fourteen tasks of perception, several pictures, {NUM_QUESTIONS} questions",
    # The commit as allenai/OLMo-core pins it.
    hub=HubDataset(
        "BLINK-Benchmark/BLINK",
        tuple(f"{name}/{{split}}-*.parquet" for name in SUBTASKS),
        revision="a3666eb249237ba3d5eca8db21176cc47967e040",
    ),
    questions=read_questions,
    prompt=render,
    score=score_letter,
    metrics=measure,
    splits=("val",),
    fields=(*FIELDS[:-1], "image_1 to image_4"),
    rule="letter",
    headline="mean accuracy over tasks, %",
    num_questions=NUM_QUESTIONS,
)
