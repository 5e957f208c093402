"""ChartQA: questions on charts, half written by people, half made from captions; numbers may be 5 % off.

Published: accuracy over all questions, which is the mean of both halves, for they are equally large.

Source: lmms-lab/ChartQA on the hub; Masry et al. 2022 (arXiv 2203.10244).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian_eval import suffixes
from cambrian_eval.dataset import read_split, sized, unique
from cambrian_eval.hub import HubDataset
from cambrian_eval.metrics import measure as measure_plainly
from cambrian_eval.prompts import ask
from cambrian_eval.scoring.relaxed import score_relaxed
from cambrian_eval.task import Task
from cambrian_eval.types import Question

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian_eval.metrics import Metrics
    from cambrian_eval.rows import Row
    from cambrian_eval.types import Prompt, ScoredAnswer

SPLIT = "test"
FIELDS = ("type", "question", "answer", "image")
HALVES = {"human_test": "human", "augmented_test": "augmented"}
MAX_NEW_TOKENS = 32
NUM_QUESTIONS = 2500


def read_questions(folder: Path, split: str = SPLIT) -> list[Question]:
    """Read the questions; the data has no ids, so they are numbered, from 0.

    Raises:
        DataError: A file, a field or a picture is missing, or a row is not a question with its answer.
    """
    rows = enumerate(read_split(folder, split, FIELDS))
    return unique(folder, (_question(number, row) for number, row in rows))


def render(question: Question) -> Prompt:
    """The question and the instruction to answer with a number or phrase."""
    return ask(question, suffixes.NUMBER, MAX_NEW_TOKENS)


def measure(answers: Sequence[ScoredAnswer]) -> Metrics:
    """Relaxed accuracy, overall and by half."""
    return sized(measure_plainly(answers, label="ChartQA"), NUM_QUESTIONS)


def _question(number: int, row: Row) -> Question:
    picture = row.picture("image")
    half = HALVES[row.one_of("type", tuple(HALVES))]
    return Question(
        id=str(number),
        text=row.text("question"),
        choices=(),
        answers=(row.text("answer"),),
        pictures=(picture,),
        part=half,
        task=half,
        source="",
        group=picture.sha256,
    )


TASK = Task(
    name="chartqa",
    version=1,
    description=f"ChartQA: questions on charts, by people and by machine, {NUM_QUESTIONS} questions",
    # The commit as arupcsedu/MosaicKV pins it.
    hub=HubDataset(
        "lmms-lab/ChartQA", ("data/{split}-*.parquet",), revision="9e63b7df1592a1c2158e735cc1725454aef0d6d9"
    ),
    questions=read_questions,
    prompt=render,
    score=score_relaxed,
    metrics=measure,
    splits=(SPLIT,),
    fields=FIELDS,
    rule="relaxed",
    headline="relaxed accuracy, %",
    num_questions=NUM_QUESTIONS,
)
