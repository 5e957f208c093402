"""GQA, the balanced development test: compositional questions on scene graphs, answered with a word or two.

The hub keeps questions and pictures in two tables, joined by the picture's id; 398 pictures bear 12,578 questions, so
intervals are clustered by picture. Published: accuracy over all questions.

Source: lmms-lab/GQA on the hub; Hudson and Manning 2019 (arXiv 1902.09506).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian_eval import suffixes
from cambrian_eval.dataset import has_split, read_split, sized, unique
from cambrian_eval.errors import DataError
from cambrian_eval.hub import HubDataset
from cambrian_eval.metrics import Metrics, mean_row
from cambrian_eval.metrics import measure as measure_plainly
from cambrian_eval.prompts import ask
from cambrian_eval.scoring.exact import score_exact
from cambrian_eval.task import Task
from cambrian_eval.types import Question

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cambrian_eval.metrics import MetricRow
    from cambrian_eval.picture import Picture
    from cambrian_eval.rows import Row
    from cambrian_eval.types import Prompt, ScoredAnswer

SPLIT = "testdev"
FIELDS = ("id", "imageId", "question", "answer", "types")
INSTRUCTIONS = "testdev_balanced_instructions"
IMAGES = "testdev_balanced_images"
MAX_NEW_TOKENS = 32
NUM_QUESTIONS = 12578

OPEN = "query"
"""The structural type of open questions; all others name their two answers or take yes and no."""


def read_questions(folder: Path, split: str = SPLIT) -> list[Question]:
    """Read both tables of the hub, or one table whose rows hold their picture.

    Raises:
        DataError: A file, a field or a picture is missing, or a row is not a question with its answer.
    """
    if has_split(folder, split):
        rows = read_split(folder, split, (*FIELDS, "image"))
        return unique(folder, (_question(row, row.picture("image")) for row in rows))
    pictures = {
        row.key("id"): row.picture("image") for row in read_split(folder, split, ("id", "image"), config=IMAGES)
    }
    rows = read_split(folder, split, FIELDS, config=INSTRUCTIONS)
    return unique(folder, (_question(row, _shown(row, pictures)) for row in rows))


def render(question: Question) -> Prompt:
    """The question and the instruction to answer with a word or phrase."""
    return ask(question, suffixes.WORD, MAX_NEW_TOKENS)


def measure(answers: Sequence[ScoredAnswer]) -> Metrics:
    """Accuracy, overall, of open and of binary questions, and by structural and semantic type."""
    found = sized(measure_plainly(answers, label="GQA"), NUM_QUESTIONS)
    return Metrics(
        found.summary,
        (
            *found.rows[:1],
            *_rows("open", "open questions", [a for a in answers if a.question.task == OPEN]),
            *_rows("binary", "questions that name their answers", [a for a in answers if a.question.task != OPEN]),
            *found.rows[1:],
            *_semantic_rows(answers),
        ),
    )


def _question(row: Row, picture: Picture) -> Question:
    return Question(
        id=row.key("id"),
        text=row.text("question"),
        choices=(),
        answers=(row.text("answer"),),
        pictures=(picture,),
        part="GQA",
        task=row.inner("types", "structural"),
        source="",
        group=row.key("imageId"),
        details={"semantic": row.inner("types", "semantic")},
    )


def _shown(row: Row, pictures: dict[str, Picture]) -> Picture:
    name = row.key("imageId")
    if name not in pictures:
        raise DataError(f"{row.place}: picture {name!r} is not among the {len(pictures)} of {IMAGES}.")
    return pictures[name]


def _rows(name: str, label: str, answers: Sequence[ScoredAnswer]) -> Iterator[MetricRow]:
    if answers:
        yield mean_row("scores", name, label, answers)


def _semantic_rows(answers: Sequence[ScoredAnswer]) -> Iterator[MetricRow]:
    names = sorted({answer.question.details["semantic"] for answer in answers})
    for name in names:
        of_type = [answer for answer in answers if answer.question.details["semantic"] == name]
        yield mean_row("tasks", f"semantic {name}", f"{name} (semantic type)", of_type)


TASK = Task(
    name="gqa",
    version=1,
    description=f"GQA: compositional questions about real scenes, {NUM_QUESTIONS} questions",
    # The commit as yoheinakajima/glance pins it.
    hub=HubDataset(
        "lmms-lab/GQA",
        (f"{INSTRUCTIONS}/{{split}}-*.parquet", f"{IMAGES}/{{split}}-*.parquet"),
        revision="a6e72d6e1b912da88af8b2f9eba05d5ea8ec2dd8",
    ),
    questions=read_questions,
    prompt=render,
    score=score_exact,
    metrics=measure,
    splits=(SPLIT,),
    fields=(*FIELDS, "image"),
    rule="exact",
    num_questions=NUM_QUESTIONS,
)
