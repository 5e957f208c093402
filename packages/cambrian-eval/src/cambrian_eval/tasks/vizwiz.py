"""VizWiz-VQA: questions that blind people asked about their own photographs, scored by agreement with ten people.

Many cannot be answered from the picture, and the prompt says what to answer then. Published: soft accuracy, on the
validation split here and in the reference; a run on the test split writes the file that the server takes.

Source: lmms-lab/VizWiz-VQA on the hub; Gurari et al. 2018 (arXiv 1802.08218).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cambrian_eval import suffixes
from cambrian_eval.dataset import read_split, sized, unique
from cambrian_eval.hub import HubDataset
from cambrian_eval.metrics import measure as measure_plainly
from cambrian_eval.prompts import ask
from cambrian_eval.scoring.vqa import score_vqa
from cambrian_eval.task import Submission, Task
from cambrian_eval.types import Question

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian_eval.metrics import Metrics
    from cambrian_eval.rows import Row
    from cambrian_eval.types import Prompt, ScoredAnswer

SPLITS = ("val", "test")
FIELDS = ("question_id", "question", "image")
PEOPLE = 10
MAX_NEW_TOKENS = 32
NUM_QUESTIONS = {"val": 4319, "test": 8000}


def read_questions(folder: Path, split: str = SPLITS[0]) -> list[Question]:
    """Read the questions; `category` is the type of answer.

    Raises:
        DataError: A file, a field or a picture is missing, or a row is not a question with its answers.
    """
    required = (*FIELDS, "answers", "category") if split == SPLITS[0] else FIELDS
    rows = read_split(folder, split, required, optional=("answers", "category"))
    return unique(folder, (_question(row, split) for row in rows))


def render(question: Question) -> Prompt:
    """The question, then what to say where it cannot be answered, then to answer with a word or phrase."""
    return ask(question, suffixes.UNANSWERABLE, MAX_NEW_TOKENS)


def measure(answers: Sequence[ScoredAnswer]) -> Metrics:
    """Soft accuracy, overall and by type of answer."""
    return sized(measure_plainly(answers, label="VizWiz"), NUM_QUESTIONS.get(answers[0].question.part))


def submission(answers: Sequence[ScoredAnswer]) -> str:
    """What the server takes: a list of picture names and answers."""
    return json.dumps(
        [{"image": f"{one.question.id}.jpg", "answer": one.answer.text.strip()} for one in answers],
        ensure_ascii=False,
    )


def _question(row: Row, split: str) -> Question:
    answers = row.optional_texts("answers")
    if split == SPLITS[0] and len(answers) != PEOPLE:
        raise row.error("answers", f"the answers of {PEOPLE} people")
    return Question(
        id=row.key("question_id").removesuffix(".jpg"),
        text=row.text("question"),
        choices=(),
        answers=answers,
        pictures=(row.picture("image"),),
        part=split,
        task=row.text("category") if split == SPLITS[0] else row.optional_text("category"),
        source="",
    )


TASK = Task(
    name="vizwiz",
    version=1,
    description=f"VizWiz-VQA: what blind people asked about their photographs, {NUM_QUESTIONS['val']} questions",
    # The commit as PRADDZY/sash pins it.
    hub=HubDataset(
        "lmms-lab/VizWiz-VQA", ("data/{split}-*.parquet",), revision="d428a2dae984f79cf1b9d99467dfa883e0c30686"
    ),
    questions=read_questions,
    prompt=render,
    score=score_vqa,
    metrics=measure,
    splits=SPLITS,
    fields=(*FIELDS, "answers", "category"),
    rule="vqa",
    headline="agreement with ten people, %",
    num_questions=NUM_QUESTIONS["val"],
    submission=Submission("vizwiz_submission.json", submission),
)
