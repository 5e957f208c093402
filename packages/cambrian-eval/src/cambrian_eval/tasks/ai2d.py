"""AI2D: questions on science diagrams whose parts are named by letters drawn over the labels; four options.

Source: lmms-lab/ai2d on the hub; "A Diagram Is Worth A Dozen Images" (arXiv 1603.07396).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian_eval import metrics, suffixes
from cambrian_eval.dataset import read_split, sized, unique
from cambrian_eval.hub import HubDataset
from cambrian_eval.labelled_options import counted_letter
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

FIELDS = ("question", "options", "answer", "image")
MAX_NEW_TOKENS = 16
NUM_QUESTIONS = 3088


def read_questions(folder: Path, split: str = "test") -> list[Question]:
    """Read the questions; those on one diagram share a group.

    Raises:
        DataError: The split, a field or a picture is missing, or the answer is not the number of an option.
    """
    rows = read_split(folder, split, FIELDS, optional=("file_name",))
    return unique(folder, (_question(row, number) for number, row in enumerate(rows)))


def render(question: Question) -> Prompt:
    """The options below the question, then the instruction to answer with a letter."""
    return ask(question, suffixes.LETTER, MAX_NEW_TOKENS)


def measure(answers: Sequence[ScoredAnswer]) -> Metrics:
    """Accuracy over questions."""
    return sized(metrics.measure(answers, label="AI2D"), NUM_QUESTIONS)


def _question(row: Row, number: int) -> Question:
    choices = row.choices("options")
    picture = row.picture("image")
    return Question(
        id=str(number),
        text=f"{row.text('question')}\n{options(choices)}",
        choices=choices,
        answers=(counted_letter(row, "answer", choices),),
        pictures=(picture,),
        part="AI2D",
        task="",
        source="",
        group=picture.sha256,
    )


TASK = Task(
    name="ai2d",
    version=1,
    description=f"AI2D: science diagrams, {NUM_QUESTIONS} questions",
    # The commit as Exgentic/eval-containers pins it.
    hub=HubDataset("lmms-lab/ai2d", ("data/{split}-*.parquet",), revision="c83a9b9692933aff8349157c88a413df9d02c4e5"),
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
