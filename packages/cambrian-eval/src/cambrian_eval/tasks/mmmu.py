"""MMMU: college questions of thirty subjects, most with options, some open, with one to seven pictures.

Questions and options name their pictures as `<image 1>`. A question on one picture is shown as the reference shows it,
picture first and its name left out; one on several has each picture where it is named.

Source: lmms-lab/MMMU on the hub; MMMU (arXiv 2311.16502).
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

from cambrian_eval import suffixes
from cambrian_eval.dataset import read_split, size_note, unique
from cambrian_eval.errors import DataError
from cambrian_eval.hub import HubDataset
from cambrian_eval.macro_mean import macro_mean
from cambrian_eval.metrics import Metrics, mean_row, parse_rate, rows_by
from cambrian_eval.optional_picture import optional_picture
from cambrian_eval.prompts import ask, options
from cambrian_eval.scoring.letters import score_letter
from cambrian_eval.scoring.number import score_number
from cambrian_eval.task import Task
from cambrian_eval.types import Prompt, Question

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cambrian_eval.metrics import MetricRow
    from cambrian_eval.picture import Picture
    from cambrian_eval.rows import Row
    from cambrian_eval.types import Score, ScoredAnswer

MOST_PICTURES = 7
PICTURES = tuple(f"image_{number}" for number in range(1, MOST_PICTURES + 1))
FIELDS = ("id", "question", "options", "answer", "question_type", PICTURES[0])
LETTER_TOKENS = 16
OPEN_TOKENS = 64
NUM_QUESTIONS = 900
OPEN, CHOICE = "open", "multiple-choice"
DISCIPLINES = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science",
        "Clinical_Medicine",
        "Diagnostics_and_Laboratory_Medicine",
        "Pharmacy",
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Psychology", "Sociology"),
    "Tech and Engineering": (
        "Agriculture",
        "Architecture_and_Engineering",
        "Computer_Science",
        "Electronics",
        "Energy_and_Power",
        "Materials",
        "Mechanical_Engineering",
    ),
}

_DISCIPLINE_OF = {subject: discipline for discipline, subjects in DISCIPLINES.items() for subject in subjects}
_MARK = re.compile(r"<image (\d+)>")


def read_questions(folder: Path, split: str = "validation") -> list[Question]:
    """Read the questions with all their pictures.

    Raises:
        DataError: A split, field or picture is missing, options or answer cannot be read, or a subject is unknown.
    """
    rows = read_split(folder, split, FIELDS, optional=PICTURES[1:])
    return unique(folder, (_question(row) for row in rows))


def render(question: Question) -> Prompt:
    """One picture in front, several where they are named; then the instruction for a letter or for a short answer.

    Differs from the reference: it shows the first picture only, and cuts options at their apostrophes and quotes.
    """
    instruction, budget = (suffixes.LETTER, LETTER_TOKENS) if question.choices else (suffixes.WORD, OPEN_TOKENS)
    if len(question.pictures) < 2:
        text = _MARK.sub("", question.text)
        return ask(question, instruction, budget, text=text if question.pictures else text.strip())
    content = (*_interleave(question.text, question.pictures), instruction)
    return Prompt(question.id, _join_end(content), question.choices, budget, instruction)


def score(question: Question, reply: str) -> Score:
    """The letter rule for options; for open questions the number rule, which also reads texts."""
    if question.choices:
        return score_letter(question, reply)
    return score_number(question, reply)


def measure(answers: Sequence[ScoredAnswer]) -> Metrics:
    """Accuracy over questions, the means over subjects and over disciplines, and rows for each of these."""
    scored = [answer for answer in answers if answer.score.value is not None]
    headline = [mean_row("scores", "score", "MMMU", scored)] if scored else []
    subjects = rows_by("tasks", "task", scored)
    disciplines = rows_by("parts", "part", scored)
    return Metrics(
        summary={
            "score": headline[0].accuracy if headline else None,
            "parse_rate": parse_rate(answers),
            "n_unscored": len(answers) - len(scored),
            **size_note(len(answers), NUM_QUESTIONS),
        },
        rows=(
            *headline,
            *macro_mean("subjects", "mean over subjects", subjects),
            *macro_mean("disciplines", "mean over disciplines", disciplines),
            *_kind_rows(scored),
            *disciplines,
            *subjects,
        ),
    )


# Reading.


def _question(row: Row) -> Question:
    kind = row.text("question_type")
    if kind not in (OPEN, CHOICE):
        raise row.error("question_type", f'"{CHOICE}" or "{OPEN}"')
    asked = row.text("question")
    choices = _choices(row) if kind == CHOICE else ()
    text = f"{asked} Options:\n{options(choices)}" if choices else asked
    pictures = tuple(picture for name in PICTURES if (picture := optional_picture(row, name)))
    _check_marks(row, text, len(pictures))
    subject = _subject(row)
    return Question(
        id=row.text("id"),
        text=text,
        choices=choices,
        answers=(row.letter("answer", choices),) if choices else _answers(row),
        pictures=pictures,
        part=_DISCIPLINE_OF[subject],
        task=subject,
        source="",
    )


def _subject(row: Row) -> str:
    """`validation_Art_Theory_12` -> `Art_Theory`."""
    subject = "_".join(row.text("id").split("_")[1:-1])
    if subject not in _DISCIPLINE_OF:
        raise row.error("id", f'an id such as "validation_Art_Theory_12", of {len(_DISCIPLINE_OF)} subjects')
    return subject


def _choices(row: Row) -> tuple[str, ...]:
    """The options. The hub writes the list as Python does, with whichever quotes its texts need."""
    value: Any = row.values["options"]
    found = _literal(value) if isinstance(value, str) else value
    if not isinstance(found, list) or not 2 <= len(found) <= 26:
        raise row.error("options", """a list of 2 to 26 texts, such as "['a cat', 'a dog']" """.strip())
    return tuple(str(option) for option in found)


def _answers(row: Row) -> tuple[str, ...]:
    """Accepted answers of an open question: one text, or several written as a list."""
    value: Any = row.values["answer"]
    found = _literal(value) if isinstance(value, str) and value.lstrip().startswith("[") else value
    if isinstance(found, list) and found:
        return tuple(str(answer) for answer in found)
    return (row.key("answer"),)


def _literal(text: str) -> Any:
    """What a Python literal says; None if it is none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _check_marks(row: Row, text: str, num_pictures: int) -> None:
    named = {int(number) for number in _MARK.findall(text)}
    missing = sorted(number for number in named if not 1 <= number <= num_pictures)
    if missing:
        raise DataError(
            f"{row.place}: found a question that names <image {missing[0]}> and {num_pictures} pictures; expected "
            f"every named picture in image_1 to image_{MOST_PICTURES}, without a gap."
        )


# Prompt.


def _interleave(text: str, pictures: Sequence[Picture]) -> Iterator[Picture | str]:
    """The text with pictures in place of their names; in front those that it does not name.

    A name without a picture is left out: a run may show other pictures than the question's own.
    """
    pieces = _MARK.split(text)
    named = {int(number) for number in pieces[1::2]}
    yield from (picture for number, picture in enumerate(pictures, start=1) if number not in named)
    for index, piece in enumerate(pieces):
        if index % 2 and 1 <= int(piece) <= len(pictures):
            yield pictures[int(piece) - 1]
        elif not index % 2 and piece.strip():
            yield piece.strip()


def _join_end(content: Sequence[Picture | str]) -> tuple[Picture | str, ...]:
    """The instruction joins a text that ends the question, on a line of its own."""
    *before, last, instruction = content
    if isinstance(last, str):
        return (*before, f"{last}\n{instruction}")
    return tuple(content)


# Metrics.


def _kind_rows(answers: Sequence[ScoredAnswer]) -> Iterator[MetricRow]:
    for kind, name in ((CHOICE, "choice"), (OPEN, "open")):
        own = [answer for answer in answers if bool(answer.question.choices) == (kind == CHOICE)]
        if 0 < len(own) < len(answers):
            yield mean_row("scores", name, f"{kind} questions", own)


TASK = Task(
    name="mmmu",
    version=1,
    description=f"MMMU: thirty college subjects, several pictures, {NUM_QUESTIONS} questions",
    # The commit as NVIDIA/Model-Optimizer pins it.
    hub=HubDataset("lmms-lab/MMMU", ("data/{split}-*.parquet",), revision="364f2e2eb107b36e07ff4c5a15f5947a759cef47"),
    questions=read_questions,
    prompt=render,
    score=score,
    metrics=measure,
    splits=("validation",),
    fields=(*FIELDS[:-1], "image_1 to image_7"),
    rule="letter; number",
    headline="accuracy, %",
    num_questions=NUM_QUESTIONS,
)
