"""SynthDoG (English): transcribe the text of a synthetic page.

The paper has no score of it. The reference's script prints the share of pages read within 0, 5, 10, 25 and 50 edits;
these are given, below the mean of 1 - edits / characters, which also tells models apart that get no page right. The
reference's budget of 128 tokens is kept, so long pages cannot be read to their end.

Source: naver-clova-ix/synthdog-en on the hub; Kim et al. 2021 (arXiv 2111.15664).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cambrian_eval.dataset import read_split, sized, unique
from cambrian_eval.hub import HubDataset
from cambrian_eval.metrics import Metrics, mean_row
from cambrian_eval.metrics import measure as measure_plainly
from cambrian_eval.prompts import ask
from cambrian_eval.scoring.edit_distance import LIMITS, num_edits, score_edit_distance
from cambrian_eval.task import Task
from cambrian_eval.types import Question

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian_eval.metrics import MetricRow
    from cambrian_eval.rows import Row
    from cambrian_eval.types import Prompt, ScoredAnswer

SPLIT = "validation"
FIELDS = ("image", "ground_truth")
TRANSCRIBE = (
    "Please transcribe the text from the image word by word. Only include the words found in the image, and avoid "
    "adding any additional context or information."
)
MAX_NEW_TOKENS = 128
NUM_QUESTIONS = 500


def read_questions(folder: Path, split: str = SPLIT) -> list[Question]:
    """Read the pages; the data has no ids, so they are numbered, from 0.

    Raises:
        DataError: A file, a field or a picture is missing, or a row has no transcript.
    """
    rows = enumerate(read_split(folder, split, FIELDS))
    return unique(folder, (_question(number, row) for number, row in rows))


def render(question: Question) -> Prompt:
    """The request to transcribe; there is no other instruction."""
    return ask(question, "", MAX_NEW_TOKENS)


def measure(answers: Sequence[ScoredAnswer]) -> Metrics:
    """Mean similarity, and the share of pages within a number of edits."""
    found = sized(measure_plainly(answers, label="similarity to the text"), NUM_QUESTIONS)
    return Metrics(
        found.summary,
        (*found.rows, *(_within_row(limit, answers) for limit in LIMITS)),
    )


def _within_row(limit: int, answers: Sequence[ScoredAnswer]) -> MetricRow:
    values = [float(_edits(answer) <= limit) for answer in answers]
    return mean_row("scores", f"within_{limit}", f"pages within {limit} edits", answers, values=values)


def _edits(answer: ScoredAnswer) -> int:
    """An unread reply is as far away as an empty one."""
    return num_edits(answer.score.extracted or "", answer.question.answers[0])


def _question(number: int, row: Row) -> Question:
    return Question(
        id=str(number),
        text=TRANSCRIBE,
        choices=(),
        answers=(_transcript(row),),
        pictures=(row.picture("image"),),
        part="SynthDoG",
        task="",
        source="",
    )


def _transcript(row: Row) -> str:
    expected = 'JSON such as {"gt_parse": {"text_sequence": "..."}}'
    try:
        text = json.loads(row.text("ground_truth"))["gt_parse"]["text_sequence"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise row.error("ground_truth", expected) from None
    if not isinstance(text, str) or not text.strip():
        raise row.error("ground_truth", expected)
    return text


TASK = Task(
    name="synthdog",
    version=1,
    description=f"SynthDoG: transcribe synthetic pages, {NUM_QUESTIONS} questions",
    # The commit as the hub's pages show it.
    hub=HubDataset(
        "naver-clova-ix/synthdog-en", ("data/{split}-*.parquet",), revision="344c13873aff70191251c42d82c461d46d905609"
    ),
    questions=read_questions,
    prompt=render,
    score=score_edit_distance,
    metrics=measure,
    splits=(SPLIT,),
    fields=FIELDS,
    rule="edit distance",
    headline="1 - edits / characters, %",
    num_questions=NUM_QUESTIONS,
)
