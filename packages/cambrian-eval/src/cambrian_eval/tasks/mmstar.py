"""MMStar: 1500 questions that need their picture, six core abilities of 250 each, eighteen axes; options in the text.

Source: Lin-Chen/MMStar on the hub; "Are We on the Right Way for Evaluating Large Vision-Language Models?" (arXiv
2403.20330).
"""

from __future__ import annotations

import re
from string import ascii_uppercase
from typing import TYPE_CHECKING

from cambrian_eval import suffixes
from cambrian_eval.dataset import size_note, unique
from cambrian_eval.hub import HubDataset
from cambrian_eval.labelled_options import UNKNOWN, cut_options, num_unknown
from cambrian_eval.macro_mean import macro_mean
from cambrian_eval.metrics import Metrics, mean_row, parse_rate, rows_by
from cambrian_eval.prompts import ask
from cambrian_eval.published_table import read_published
from cambrian_eval.scoring.letters import score_letter
from cambrian_eval.task import Task
from cambrian_eval.types import Question

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian_eval.rows import Row
    from cambrian_eval.types import Prompt, ScoredAnswer

FIELDS = ("index", "question", "answer", "category", "l2_category", "image")
TABLE = "mmstar.parquet"
MAX_NEW_TOKENS = 16
NUM_QUESTIONS = 1500

_LIST = re.compile(r"(?:Options|Choices):", re.IGNORECASE)
_LABELS = (r"(?:(?<=[\s,])|^){}:(?=\s|$)", r"\({}\)")  # "A: x, B: y" and "(A) x"


def read_questions(folder: Path, split: str = "val") -> list[Question]:
    """Read the questions and find the options in their text.

    Raises:
        DataError: The file, a field or a picture is missing, or the answer is none of the letters.
    """
    rows = read_published(folder, TABLE, split, FIELDS, ("file_name",))
    return unique(folder, (_question(row) for row in rows))


def render(question: Question) -> Prompt:
    """The published text, then the instruction to answer with only the letter."""
    return ask(question, suffixes.LETTER_ONLY, MAX_NEW_TOKENS)


def measure(answers: Sequence[ScoredAnswer]) -> Metrics:
    """Accuracy over questions, the means over the six abilities and the eighteen axes, and rows for each of these."""
    abilities, axes = rows_by("parts", "part", answers), rows_by("tasks", "task", answers)
    headline = mean_row("scores", "score", "MMStar", answers)
    return Metrics(
        summary={
            "score": headline.accuracy,
            "parse_rate": parse_rate(answers),
            "n_unscored": 0,
            "n_unknown_options": num_unknown(answers),
            **size_note(len(answers), NUM_QUESTIONS),
        },
        rows=(
            headline,
            *macro_mean("abilities", "mean over the core abilities", abilities),
            *macro_mean("axes", "mean over the axes", axes),
            *abilities,
            *axes,
        ),
    )


def _question(row: Row) -> Question:
    text = row.text("question")
    letter = row.letter("answer", UNKNOWN)
    listed = find_options(text)
    choices = listed if letter in ascii_uppercase[: len(listed)] else UNKNOWN
    picture = row.picture("image")
    return Question(
        id=row.key("index"),
        text=text,
        choices=choices,
        answers=(letter,),
        pictures=(picture,),
        part=row.text("category"),
        task=row.text("l2_category"),
        source="",
        group=picture.sha256,
    )


def find_options(text: str) -> tuple[str, ...]:
    """The options that a text lists in one of the published forms, without trailing ones that say "nan"."""
    starts = [match.end() for match in _LIST.finditer(text)]
    listed = text[starts[-1] :] if starts else text
    found = max((cut_options(listed, label)[1] for label in _LABELS), key=len)
    choices = [option.rstrip(", ") for option in found]
    while choices and choices[-1] == "nan":
        choices.pop()
    return tuple(choices)


TASK = Task(
    name="mmstar",
    version=1,
    description=f"MMStar: questions that need their picture, {NUM_QUESTIONS} questions",
    # The commit as arupcsedu/MosaicKV pins it.
    hub=HubDataset("Lin-Chen/MMStar", (TABLE,), revision="bc98d668301da7b14f648724866e57302778ab27"),
    questions=read_questions,
    prompt=render,
    score=score_letter,
    metrics=measure,
    splits=("val",),
    fields=FIELDS,
    rule="letter",
    headline="accuracy, %",
    num_questions=NUM_QUESTIONS,
)
