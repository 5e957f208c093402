"""MathVista, testmini: mathematics in figures, charts, tables and photographs; chosen or written answers.

Options are read as letters or option texts, other answers by the number rule with the question's own precision and
unit. Published: accuracy over all questions.

Source: AI4Math/MathVista on the hub; Lu et al. 2023 (arXiv 2310.02255).
"""

from __future__ import annotations

from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from cambrian_eval import suffixes
from cambrian_eval.dataset import read_split, sized, unique
from cambrian_eval.hub import HubDataset
from cambrian_eval.metrics import Metrics, mean_row
from cambrian_eval.metrics import measure as measure_plainly
from cambrian_eval.prompts import ask
from cambrian_eval.scoring.letters import score_letter
from cambrian_eval.scoring.number import score_number
from cambrian_eval.task import Task
from cambrian_eval.types import Question

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cambrian_eval.metrics import MetricRow
    from cambrian_eval.rows import Row
    from cambrian_eval.types import Prompt, Score, ScoredAnswer

SPLIT = "testmini"
FIELDS = ("pid", "query", "question_type", "answer_type", "answer", "choices", "precision", "image")
OPTIONAL = ("decoded_image", "unit", "metadata")
CHOSEN, WRITTEN = "multi_choice", "free_form"
ANSWER_TYPES = ("text", "integer", "float", "list")
MAX_NEW_TOKENS = {CHOSEN: 512, WRITTEN: 64}
NUM_QUESTIONS = 1000


def read_questions(folder: Path, split: str = SPLIT) -> list[Question]:
    """Read the questions; a picture stands in `decoded_image`, or `image` names its file.

    Raises:
        DataError: A file, a field or a picture is missing, or a row is not a question with its answer.
    """
    return unique(folder, (_question(row) for row in read_split(folder, split, FIELDS, optional=OPTIONAL)))


def render(question: Question) -> Prompt:
    """The published query, with its hint and options; reasoning is asked for where there are options."""
    chosen = bool(question.choices)
    instruction = suffixes.REASON if chosen else suffixes.WORD
    return ask(question, instruction, MAX_NEW_TOKENS[CHOSEN if chosen else WRITTEN])


def score(question: Question, reply: str) -> Score:
    """Letter or option text where there are options, else the number rule."""
    # Differs from the reference: it compares the whole reply with the option's text, so that no reply that reasons, as
    # its prompt demands, is right.
    return score_letter(question, reply) if question.choices else score_number(question, reply)


def measure(answers: Sequence[ScoredAnswer]) -> Metrics:
    """Accuracy, overall, by question type and by task."""
    found = sized(measure_plainly(answers, label="MathVista"), NUM_QUESTIONS)
    return Metrics(
        found.summary,
        (
            *found.rows[:1],
            *_rows(CHOSEN, "questions with options", [answer for answer in answers if answer.question.choices]),
            *_rows(WRITTEN, "questions without options", [answer for answer in answers if not answer.question.choices]),
            *found.rows[1:],
        ),
    )


def _question(row: Row) -> Question:
    chosen = row.one_of("question_type", (CHOSEN, WRITTEN)) == CHOSEN
    choices = row.choices("choices") if chosen else ()
    return Question(
        id=row.key("pid"),
        text=row.text("query"),
        choices=choices,
        answers=(_letter(row, choices) if chosen else row.text("answer"),),
        pictures=(row.picture("decoded_image" if row.values["decoded_image"] else "image"),),
        part="MathVista",
        task="" if row.values["metadata"] is None else row.inner("metadata", "task"),
        source="",
        details={} if chosen else _details(row),
    )


def _letter(row: Row, choices: Sequence[str]) -> str:
    answer = row.text("answer")
    if answer not in choices:
        raise row.error("answer", f"one of the choices {list(choices)}")
    return ascii_uppercase[choices.index(answer)]


def _details(row: Row) -> dict[str, Any]:
    """What the number rule needs to know."""
    details: dict[str, Any] = {"answer_type": row.one_of("answer_type", ANSWER_TYPES)}
    precision, unit = row.optional_number("precision"), row.optional_text("unit")
    if precision is not None:
        details["precision"] = int(precision)
    if unit:
        details["unit"] = unit
    return details


def _rows(name: str, label: str, answers: Sequence[ScoredAnswer]) -> Iterator[MetricRow]:
    if answers:
        yield mean_row("scores", name, label, answers)


TASK = Task(
    name="mathvista",
    version=1,
    description=f"MathVista testmini: mathematics in pictures, {NUM_QUESTIONS} questions",
    # The commit as allenai/OLMo-core pins it.
    hub=HubDataset(
        "AI4Math/MathVista", ("data/{split}-*.parquet",), revision="2b6ad69445fbb5695c9b165475e8decdbeb97747"
    ),
    questions=read_questions,
    prompt=render,
    score=score,
    metrics=measure,
    splits=(SPLIT,),
    fields=(*FIELDS, *OPTIONAL),
    rule="letter; number",
    num_questions=NUM_QUESTIONS,
)
