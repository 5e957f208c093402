"""ScienceQA: school science with two to five options. The headline is the questions with a picture (SQA-I).

Source: derek-thomas/ScienceQA on the hub; "Learn to Explain" (arXiv 2209.09513).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian_eval import suffixes
from cambrian_eval.dataset import read_split, size_note, unique
from cambrian_eval.hub import HubDataset
from cambrian_eval.labelled_options import counted_letter
from cambrian_eval.metrics import Metrics, mean_row, parse_rate, rows_by
from cambrian_eval.optional_picture import optional_picture
from cambrian_eval.prompts import ask, options
from cambrian_eval.scoring.letters import score_letter
from cambrian_eval.task import Task
from cambrian_eval.types import Question

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cambrian_eval.metrics import MetricRow
    from cambrian_eval.rows import Row
    from cambrian_eval.types import Prompt, ScoredAnswer

FIELDS = ("question", "choices", "answer", "hint", "image")
MAX_NEW_TOKENS = 16
NUM_QUESTIONS = 4241
WITH_PICTURE, WITHOUT_PICTURE = "with picture", "without picture"


def read_questions(folder: Path, split: str = "test") -> list[Question]:
    """Read the questions, also those without a picture.

    Raises:
        DataError: The split or a field is missing, or the answer is not the number of a choice.
    """
    rows = read_split(folder, split, FIELDS, optional=("subject", "grade", "file_name"))
    return unique(folder, (_question(row, number) for number, row in enumerate(rows)))


def render(question: Question) -> Prompt:
    """Hint and question, the options, then the instruction to answer with only the letter."""
    return ask(question, suffixes.LETTER_ONLY, MAX_NEW_TOKENS)


def measure(answers: Sequence[ScoredAnswer]) -> Metrics:
    """Accuracy over the questions with a picture, over all and over the others; by subject and grade.

    Differs from the reference: its overall accuracy counts every question with a picture twice.
    """
    seen = [answer for answer in answers if answer.question.part == WITH_PICTURE]
    read = [answer for answer in answers if answer.question.part == WITHOUT_PICTURE]
    headline = [mean_row("scores", "score", "ScienceQA, questions with a picture", seen)] if seen else []
    return Metrics(
        summary={
            "score": headline[0].accuracy if headline else None,
            "parse_rate": parse_rate(answers),
            "n_unscored": 0,
            **size_note(len(answers), NUM_QUESTIONS),
        },
        rows=(
            *headline,
            mean_row("scores", "all", "all questions", answers),
            *([mean_row("scores", "text", "questions without a picture", read)] if read else []),
            *rows_by("tasks", "task", answers),
            *_grade_rows(answers),
        ),
    )


def _question(row: Row, number: int) -> Question:
    choices = row.choices("choices")
    hint = row.optional_text("hint")
    asked = row.text("question")
    picture = optional_picture(row, "image", file="file_name")
    return Question(
        id=str(number),
        text=f"{hint} {asked}\n{options(choices)}" if hint else f"{asked}\n{options(choices)}",
        choices=choices,
        answers=(counted_letter(row, "answer", choices),),
        pictures=(picture,) if picture else (),
        part=WITH_PICTURE if picture else WITHOUT_PICTURE,
        task=row.optional_text("subject"),
        source="",
        group=picture.sha256 if picture else "",
        details={"grade": row.optional_text("grade")},
    )


def _grade_rows(answers: Sequence[ScoredAnswer]) -> Iterator[MetricRow]:
    """The grades of the school, which the reference lists too; the data writes them as "grade7"."""
    for grade in sorted({answer.question.details["grade"] for answer in answers} - {""}, key=_grade_order):
        own = [answer for answer in answers if answer.question.details["grade"] == grade]
        yield mean_row("grades", grade, grade, own)


def _grade_order(grade: str) -> tuple[int, str]:
    number = grade.removeprefix("grade")
    return (int(number) if number.isdecimal() else 0, grade)


TASK = Task(
    name="scienceqa",
    version=1,
    description=f"ScienceQA: school science, with and without pictures, {NUM_QUESTIONS} questions",
    # The commit as sileod/tasksource pins it.
    hub=HubDataset(
        "derek-thomas/ScienceQA", ("data/{split}-*.parquet",), revision="f18b0a70359ebfb41f658fd564208d0355b013f4"
    ),
    questions=read_questions,
    prompt=render,
    score=score_letter,
    metrics=measure,
    splits=("test",),
    fields=FIELDS,
    rule="letter",
    headline="accuracy with picture, %",
    num_questions=NUM_QUESTIONS,
)
