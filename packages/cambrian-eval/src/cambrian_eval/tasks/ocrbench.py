"""OCRBench: reading text in scenes, documents, receipts and handwritten formulas; five parts, 1000 questions.

Published: the number of right answers of 1000, which is ten times the score in percent that stands here. The number is
given as `points`, and what it is out of as `points_of`: a run of fewer questions is never divided by 1000.

Source: echo840/OCRBench on the hub; Liu et al. 2023 (arXiv 2305.07895).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian_eval import suffixes
from cambrian_eval.dataset import read_split, sized, unique
from cambrian_eval.hub import HubDataset
from cambrian_eval.metrics import Metrics, rows_by
from cambrian_eval.metrics import measure as measure_plainly
from cambrian_eval.prompts import ask
from cambrian_eval.scoring.containment import score_contains
from cambrian_eval.task import Task
from cambrian_eval.types import Question

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian_eval.rows import Row
    from cambrian_eval.types import Prompt, ScoredAnswer

SPLIT = "test"
FIELDS = ("question_type", "question", "answer", "image")
FORMULAS = "Handwritten Mathematical Expression Recognition"
PARTS = {
    "Text Recognition": (
        "Regular Text Recognition",
        "Irregular Text Recognition",
        "Artistic Text Recognition",
        "Handwriting Recognition",
        "Digit String Recognition",
        "Non-Semantic Text Recognition",
    ),
    "Scene Text-centric VQA": ("Scene Text-centric VQA",),
    "Doc-oriented VQA": ("Doc-oriented VQA",),
    "Key Information Extraction": ("Key Information Extraction",),
    FORMULAS: (FORMULAS,),
}
MAX_NEW_TOKENS = 128
NUM_QUESTIONS = 1000

_PART = {name: part for part, names in PARTS.items() for name in names}


def read_questions(folder: Path, split: str = SPLIT) -> list[Question]:
    """Read the questions; the data has no ids, so they are numbered, from 0.

    Raises:
        DataError: A file, a field or a picture is missing, or a row is not a question with its answers.
    """
    rows = enumerate(read_split(folder, split, FIELDS))
    return unique(folder, (_question(number, row) for number, row in rows))


def render(question: Question) -> Prompt:
    """The question and the instruction to give the short answer."""
    return ask(question, suffixes.SHORT, MAX_NEW_TOKENS)


def measure(answers: Sequence[ScoredAnswer]) -> Metrics:
    """Percent right, overall, in the five parts and by type of question; the points beside it."""
    found = sized(measure_plainly(answers, label="OCRBench"), NUM_QUESTIONS)
    right = sum(answer.score.value == 1 for answer in answers)
    points = {"points": right, "points_of": len(answers)}
    return Metrics(
        {**found.summary, **points},
        (*found.rows[:1], *rows_by("parts", "part", answers), *found.rows[1:]),
    )


def _question(number: int, row: Row) -> Question:
    kind = row.one_of("question_type", tuple(_PART))
    picture = row.picture("image")
    return Question(
        id=str(number),
        text=row.text("question"),
        choices=(),
        answers=_answers(row),
        pictures=(picture,),
        part=_PART[kind],
        task=kind,
        source="",
        group=picture.sha256,
        details={"formula": True} if kind == FORMULAS else {},
    )


def _answers(row: Row) -> tuple[str, ...]:
    """One accepted answer or a list of them."""
    if isinstance(row.values["answer"], str):
        return (row.text("answer"),)
    answers = row.optional_texts("answer")
    if not answers:
        raise row.error("answer", "at least one accepted answer")
    return answers


TASK = Task(
    name="ocrbench",
    version=1,
    description=f"OCRBench: reading text in five kinds of pictures, {NUM_QUESTIONS} questions",
    # The commit as DogukanUrker/BenchKit pins it.
    hub=HubDataset(
        "echo840/OCRBench", ("data/{split}-*.parquet",), revision="92a54bd1384387c178d5a07140a2d85e0a3d12e1"
    ),
    questions=read_questions,
    prompt=render,
    score=score_contains,
    metrics=measure,
    splits=(SPLIT,),
    fields=FIELDS,
    rule="containment",
    headline="right answers, % (points of 1000, divided by 10)",
    num_questions=NUM_QUESTIONS,
)
