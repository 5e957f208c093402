"""MMBench in English and Chinese: each question asked once for every rotation of its options, right if all are right.

The headline is that circular accuracy. Beside it stand the vanilla accuracy (the options as written, asked once) and
the mean over all rows, which other tools report under the same name.

Source: lmms-lab/MMBench_EN and lmms-lab/MMBench_CN on the hub; MMBench (arXiv 2307.06281), section 4.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

from cambrian_eval import suffixes
from cambrian_eval.dataset import read_split, size_note, unique
from cambrian_eval.errors import DataError
from cambrian_eval.hub import HubDataset
from cambrian_eval.metrics import Metrics, mean_row, parse_rate, unit_row
from cambrian_eval.prompts import ask, options
from cambrian_eval.scoring.letters import extract_letter, score_letter
from cambrian_eval.task import Task
from cambrian_eval.types import Question, Score
from cambrian_eval.whole_units import unit_rows_by, whole_units, with_sizes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian_eval.rows import Row
    from cambrian_eval.types import Prompt, ScoredAnswer

LETTERS = ("A", "B", "C", "D")
FIELDS = ("index", "question", "hint", *LETTERS, "answer", "category", "source", "image")
L2_CATEGORY = ("l2-category", "L2-category")  # the first in the English set, the second in the Chinese one
CHINESE = "请直接回答选项字母。"
MAX_NEW_TOKENS = 16
ROUND = 1_000_000
"""A rotation has the index of its question plus a multiple of this."""


def read_questions(folder: Path, split: str) -> list[Question]:
    """Read all rotations of all questions.

    Raises:
        DataError: The split, a field or a picture is missing, options have a gap, or a letter is none of them.
    """
    optional = (*L2_CATEGORY, "file_name")
    rows = read_split(folder, split, FIELDS, optional=optional)
    questions = unique(folder, (_question(row, needs_answer=split == "dev") for row in rows))
    return with_sizes(_grouped(questions))


def render(question: Question, *, instruction: str) -> Prompt:
    """Hint, question, options, then the instruction to answer with a letter, in the language of the set."""
    return ask(question, instruction, MAX_NEW_TOKENS)


def score(question: Question, reply: str) -> Score:
    """The letter rule; test rows whose answer is secret get no value."""
    if question.answers:
        return score_letter(question, reply)
    found = extract_letter(reply, question.choices)
    return Score(None, found.letter, found.rule)


def measure(answers: Sequence[ScoredAnswer], *, num_questions: int) -> Metrics:
    """Circular accuracy, vanilla accuracy and the mean over all rows; circular accuracy by ability."""
    scored = [answer for answer in answers if answer.score.value is not None]
    whole, num_broken = whole_units(scored)
    circular = [unit_row("scores", "score", "MMBench, circular", whole)] if whole else []
    first = [answer for answer in scored if answer.question.details["rotation"] == 0]
    return Metrics(
        summary={
            "score": circular[0].accuracy if circular else None,
            "parse_rate": parse_rate(answers),
            "n_unscored": len(answers) - len(scored),
            "n_incomplete_groups": num_broken,
            **size_note(len(answers), num_questions),
        },
        rows=(
            *circular,
            *([mean_row("scores", "vanilla", "vanilla: options as written, asked once", first)] if first else []),
            *([mean_row("scores", "micro", "mean over all rotations", scored)] if scored else []),
            *unit_rows_by("tasks", "task", whole),
            *unit_rows_by("parts", "part", whole),
        ),
    )


def _question(row: Row, *, needs_answer: bool) -> Question:
    cells = [_cell(row, letter) for letter in LETTERS]
    choices = tuple(cell for cell in cells if cell)
    if len(choices) < 2 or any(cells[len(choices) :]):
        found = ", ".join(letter for letter, cell in zip(LETTERS, cells, strict=True) if cell) or "none"
        raise DataError(f"{row.place}: found options {found}, expected two to four of A to D without a gap.")
    hint = _cell(row, "hint")
    asked = row.text("question")
    lines = f"{hint}\n{asked}" if hint else asked
    index = _index(row)
    picture = row.picture("image")
    return Question(
        id=str(index),
        text=f"{lines} Options:\n{options(choices)}",
        choices=choices,
        answers=(row.letter("answer", choices),) if needs_answer or _cell(row, "answer") else (),
        pictures=(picture,),
        part=_l2_category(row),
        task=row.text("category"),
        source="",
        group=str(index % ROUND),
        details={"rotation": index // ROUND, "asked": asked, "source": _cell(row, "source")},
    )


def _cell(row: Row, field: str) -> str:
    """A text, empty where there is none: the hub writes "nan" there, other copies null or the number."""
    value: Any = row.values[field]
    absent = value is None or value != value or (isinstance(value, str) and value.strip() in ("", "nan"))
    return "" if absent else row.text(field)


def _index(row: Row) -> int:
    index = row.key("index")
    if not index.isdecimal():
        raise row.error("index", "a whole number")
    return int(index)


def _l2_category(row: Row) -> str:
    for name in L2_CATEGORY:
        if row.values[name] is not None:
            return row.text(name)
    raise DataError(
        f"{row.place}: missing field 'l2-category'; needed: {', '.join(FIELDS)} and l2-category (or L2-category). "
        "Add the field or use the published data."
    )


def _grouped(questions: Sequence[Question]) -> list[Question]:
    """Questions by group; in a set that does not number its rotations, one group asks one thing of one picture."""
    if any(question.details["rotation"] for question in questions):
        return list(questions)
    seen: dict[tuple[Any, ...], list[str]] = {}
    grouped = []
    for question in questions:
        told = question.details
        key = (question.task, told["asked"], question.pictures[0].sha256, told["source"])
        members = seen.setdefault(key, [])
        members.append(question.id)
        details = {**told, "rotation": len(members) - 1}
        grouped.append(dataclasses.replace(question, group=members[0], details=details))
    return grouped


def _task(language: str, name: str, hub: HubDataset, instruction: str, num_questions: int) -> Task:
    return Task(
        name=name,
        version=1,
        description=f"MMBench in {language}: 20 abilities, options rotated, {num_questions} questions",
        hub=hub,
        questions=read_questions,
        prompt=partial(render, instruction=instruction),
        score=score,
        metrics=partial(measure, num_questions=num_questions),
        splits=("dev", "test"),
        fields=(*FIELDS, L2_CATEGORY[0]),
        rule="letter",
        headline="circular accuracy, %",
        num_questions=num_questions,
    )


FILES = ("data/{split}-*.parquet",)
# The commits as the hub's pages show them.
HUB_EN = HubDataset("lmms-lab/MMBench_EN", FILES, revision="ecd23e001f5c649c959eda84b846a01cc6fafbde")
HUB_CN = HubDataset("lmms-lab/MMBench_CN", FILES, revision="78601bcca41a57248c05f130d9902db624aa6f4d")

MMBENCH_EN = _task("English", "mmbench-en", HUB_EN, suffixes.LETTER, 4377)
MMBENCH_CN = _task("Chinese", "mmbench-cn", HUB_CN, CHINESE, 4329)
