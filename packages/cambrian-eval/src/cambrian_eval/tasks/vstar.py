"""V* (V-star): small things in large pictures, their attributes and their positions; two to four options in the text.

Source: craigwu/vstar_bench on the hub; "V*: Guided Visual Search" (arXiv 2312.14135).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian_eval import metrics, suffixes
from cambrian_eval.dataset import sized, unique
from cambrian_eval.hub import HubDataset
from cambrian_eval.labelled_options import cut_lines
from cambrian_eval.prompts import ask
from cambrian_eval.published_table import read_published
from cambrian_eval.scoring.letters import score_letter
from cambrian_eval.task import Task
from cambrian_eval.types import Question

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian_eval.metrics import Metrics
    from cambrian_eval.rows import Row
    from cambrian_eval.types import Prompt, ScoredAnswer

FIELDS = ("question_id", "text", "category", "label", "image")
TABLE = "test_questions.jsonl"
CATEGORIES = ("direct_attributes", "relative_position")
MAX_NEW_TOKENS = 16
NUM_QUESTIONS = 191


def read_questions(folder: Path, split: str = "test") -> list[Question]:
    """Read the questions; their options stand in the text, one a line.

    Raises:
        DataError: The file, a field or a picture is missing, there are no options, or the label is none of them.
    """
    rows = read_published(folder, TABLE, split, FIELDS, ("file_name",))
    return unique(folder, (_question(row) for row in rows))


def render(question: Question) -> Prompt:
    """The published text, which ends with the instruction to answer with a letter."""
    return ask(question, question.details["instruction"], MAX_NEW_TOKENS)


def measure(answers: Sequence[ScoredAnswer]) -> Metrics:
    """Accuracy over questions, and by category."""
    return sized(metrics.measure(answers, label="V*"), NUM_QUESTIONS)


def _question(row: Row) -> Question:
    published = row.text("text")
    text = published.rstrip().removesuffix(f"\n{suffixes.LETTER}")
    told = text != published.rstrip()
    choices = cut_lines(text)
    if not choices:
        raise row.error("text", 'a question and its options, one a line, such as "(A) rubber"')
    category = row.text("category")
    picture = row.picture("image")
    return Question(
        id=f"{category} {row.key('question_id')}",
        text=text if told else published,
        choices=choices,
        answers=(row.letter("label", choices),),
        pictures=(picture,),
        part="V*",
        task=category,
        source="",
        group=picture.sha256,
        details={"instruction": suffixes.LETTER if told else ""},
    )


TASK = Task(
    name="vstar",
    version=1,
    description=f"V*: small things in large pictures, {NUM_QUESTIONS} questions",
    # The commit as DogukanUrker/BenchKit pins it.
    hub=HubDataset(
        "craigwu/vstar_bench",
        (TABLE, *(f"{name}/*" for name in CATEGORIES)),
        revision="d9ae62c903da0c98336e85c5ee89cd863b04b4da",
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
