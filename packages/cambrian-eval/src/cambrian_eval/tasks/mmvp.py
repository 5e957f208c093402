"""MMVP: pairs of pictures that CLIP takes for alike and people do not; a pair is right only if both questions are.

Four published labels are wrong. The headline keeps them, so that it compares with published scores; the score on the
corrected labels stands beside it.

Source: MMVP/MMVP on the hub; "Eyes Wide Shut" (arXiv 2401.06209); corrections: tsb0601/MMVP issue 30.
"""

from __future__ import annotations

import dataclasses
from string import ascii_uppercase
from typing import TYPE_CHECKING, NamedTuple

from cambrian_eval import suffixes
from cambrian_eval.dataset import size_note, unique
from cambrian_eval.errors import DataError
from cambrian_eval.hub import HubDataset
from cambrian_eval.labelled_options import cut_options
from cambrian_eval.metrics import Metrics, mean_row, parse_rate, unit_row
from cambrian_eval.optional_picture import optional_picture
from cambrian_eval.prompts import ask, options
from cambrian_eval.published_table import read_published
from cambrian_eval.scoring.letters import score_letter
from cambrian_eval.task import Task
from cambrian_eval.types import Question
from cambrian_eval.whole_units import whole_units, with_sizes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian_eval.picture import Picture
    from cambrian_eval.rows import Row
    from cambrian_eval.types import Prompt, ScoredAnswer

FIELDS = ("Question", "Options", "Correct Answer")
MAX_NEW_TOKENS = 16
NUM_QUESTIONS = 300
TABLE = "Questions.csv"

_INDEX = ("Index", "lndex")  # the published header has a small L
_OPTION = r"\((?i:{})\)"


class Erratum(NamedTuple):
    """A wrong label: a word of its question, what was published, and what the picture shows."""

    word: str
    published: str
    corrected: str


ERRATA = {
    "99": Erratum("tusks", "A", "B"),
    "100": Erratum("tusks", "B", "A"),
    "279": Erratum("sitting", "A", "B"),
    "280": Erratum("sitting", "B", "A"),
}


def read_questions(folder: Path, split: str = "train") -> list[Question]:
    """Read `Questions.csv` and the pictures in `MMVP Images`, or one table that holds both.

    Raises:
        DataError: A file, a field or a picture is missing, or a row is not a question with its answer.
    """
    rows = read_published(folder, TABLE, split, FIELDS, (*_INDEX, "image", "file_name"))
    return with_sizes(unique(folder, (_question(row) for row in rows)))


def render(question: Question) -> Prompt:
    """The options below the question, then the instruction to answer with a letter."""
    return ask(question, suffixes.LETTER, MAX_NEW_TOKENS)


def measure(answers: Sequence[ScoredAnswer]) -> Metrics:
    """Accuracy over pairs, over single questions, and over pairs with the corrected labels."""
    whole, num_broken = whole_units(answers)
    pairs = [unit_row("scores", "score", "MMVP, pairs with both right", whole)] if whole else []
    corrected = [_correct(answer) for answer in whole]
    again = [unit_row("scores", "corrected", "pairs, with four corrected labels", corrected)] if whole else []
    labels = {_labels(answer) for answer in answers} - {""}
    return Metrics(
        summary={
            "score": pairs[0].accuracy if pairs else None,
            "parse_rate": parse_rate(answers),
            "n_unscored": 0,
            "n_incomplete_pairs": num_broken,
            "labels": " and ".join(sorted(labels)) or "published",
            **size_note(len(answers), NUM_QUESTIONS),
        },
        rows=(*pairs, mean_row("scores", "single", "single questions", answers), *again),
    )


def _question(row: Row) -> Question:
    index = _index(row)
    choices = cut_options(row.text("Options"), _OPTION)[1]
    if not choices:
        raise row.error("Options", 'options such as "(a) Open (b) Closed"')
    asked = row.text("Question")
    erratum = ERRATA.get(index)
    known = erratum is not None and erratum.word in asked
    return Question(
        id=index,
        text=f"{asked} Options:\n{options(choices)}",
        choices=choices,
        answers=(_answer(row, choices),),
        pictures=(_picture(row, index),),
        part="MMVP",
        task="",
        source="",
        group=f"pair {(int(index) + 1) // 2}",
        details={"published": erratum.published, "corrected": erratum.corrected} if erratum and known else {},
    )


def _index(row: Row) -> str:
    for name in _INDEX:
        if row.values[name] is not None:
            index = row.key(name)
            if not index.isdecimal():
                raise row.error(name, "a whole number from 1 on")
            return index
    raise DataError(f"{row.place}: missing field 'Index'; needed: Index, {', '.join(FIELDS)}. Add the field.")


def _answer(row: Row, choices: Sequence[str]) -> str:
    offered = ascii_uppercase[: len(choices)]
    letter = row.text("Correct Answer").strip().strip("()").upper()
    if letter not in list(offered):
        raise row.error("Correct Answer", f"a letter from (a) to ({offered[-1].lower()})")
    return letter


def _picture(row: Row, index: str) -> Picture:
    return optional_picture(row, "image", file="file_name") or row.album.file(f"MMVP Images/{index}.jpg", row.place)


def _labels(answer: ScoredAnswer) -> str:
    """Which of both labels the data has, for a question that has two."""
    details = answer.question.details
    named = {details[name]: name for name in ("published", "corrected") if name in details}
    return named.get(answer.question.answers[0], "")


def _correct(answer: ScoredAnswer) -> ScoredAnswer:
    """The answer, scored with the corrected label."""
    truth = answer.question.details.get("corrected")
    if truth is None:
        return answer
    return dataclasses.replace(
        answer,
        question=dataclasses.replace(answer.question, answers=(truth,)),
        score=dataclasses.replace(answer.score, value=float(answer.score.extracted == truth)),
    )


TASK = Task(
    name="mmvp",
    version=1,
    description=f"MMVP: nine visual patterns that CLIP is blind to, in pairs, {NUM_QUESTIONS} questions",
    # The commit as DogukanUrker/BenchKit pins it.
    hub=HubDataset("MMVP/MMVP", (TABLE, "MMVP Images/*.jpg"), revision="37eafecab8a3940c50c2ade5b36de69dbc99a8cf"),
    questions=read_questions,
    prompt=render,
    score=score_letter,
    metrics=measure,
    splits=("train",),
    fields=("Index", *FIELDS, "image"),
    rule="letter",
    headline="accuracy over pairs, %",
    num_questions=NUM_QUESTIONS,
)
