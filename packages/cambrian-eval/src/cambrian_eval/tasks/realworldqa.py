"""RealWorldQA: everyday scenes, many from a car; some questions offer options, others ask for a word or a number.

Every question brings its own instruction, which stands in the published text and is the only one given.

Source: lmms-lab/RealWorldQA on the hub, a copy of xai-org/RealworldQA.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from cambrian_eval import metrics
from cambrian_eval.dataset import read_split, sized, unique
from cambrian_eval.hub import HubDataset
from cambrian_eval.labelled_options import UNKNOWN, cut_lines, num_unknown
from cambrian_eval.prompts import ask
from cambrian_eval.scoring.exact import score_exact
from cambrian_eval.scoring.letters import score_letter
from cambrian_eval.scoring.yes_no import score_yes_no
from cambrian_eval.task import Task
from cambrian_eval.types import Question

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian_eval.metrics import Metrics
    from cambrian_eval.rows import Row
    from cambrian_eval.types import Prompt, Score, ScoredAnswer

FIELDS = ("question", "answer", "image")
MAX_NEW_TOKENS = 16
NUM_QUESTIONS = 765

_INSTRUCTION = re.compile(r"\n(Please answer [^\n]+)\s*\Z")


def read_questions(folder: Path, split: str = "test") -> list[Question]:
    """Read the questions; the instruction that ends the published text is kept apart.

    Raises:
        DataError: The split, a field or a picture is missing, or the answer is a letter that is not offered.
    """
    rows = read_split(folder, split, FIELDS, optional=("file_name",))
    return unique(folder, (_question(row, number) for number, row in enumerate(rows)))


def render(question: Question) -> Prompt:
    """The published text."""
    return ask(question, question.details["instruction"], MAX_NEW_TOKENS)


def score(question: Question, reply: str) -> Score:
    """The letter rule for options, the rule for yes and no where that is the answer, else exact.

    Differs from the reference: it compares the reply's first word, and crashes on an empty reply.
    """
    if question.choices:
        return score_letter(question, reply)
    yes_or_no = question.answers[0].casefold() in ("yes", "no")
    return score_yes_no(question, reply) if yes_or_no else score_exact(question, reply)


def measure(answers: Sequence[ScoredAnswer]) -> Metrics:
    """Accuracy over questions; by whether they offer options, ask for yes or no, or for a word."""
    found = sized(metrics.measure(answers, label="RealWorldQA"), NUM_QUESTIONS)
    return dataclasses.replace(found, summary={**found.summary, "n_unknown_options": num_unknown(answers)})


def _question(row: Row, number: int) -> Question:
    published = row.text("question")
    match = _INSTRUCTION.search(published)
    text = published[: match.start()] if match else published
    choices = _choices(text, match[1] if match else "")
    answer = row.key("answer")
    picture = row.picture("image")
    return Question(
        id=str(number),
        text=text,
        choices=choices,
        answers=(row.letter("answer", choices) if choices else answer,),
        pictures=(picture,),
        part="RealWorldQA",
        task=_kind(choices, answer),
        source="",
        group=picture.sha256,
        details={"instruction": match[1] if match else ""},
    )


def _choices(text: str, instruction: str) -> tuple[str, ...]:
    if instruction and "letter" not in instruction:
        return ()
    return cut_lines(text) or (UNKNOWN if instruction else ())


def _kind(choices: Sequence[str], answer: str) -> str:
    if choices:
        return "options"
    return "yes or no" if answer.casefold() in ("yes", "no") else "word or number"


TASK = Task(
    name="realworldqa",
    version=1,
    description=f"RealWorldQA: everyday scenes, {NUM_QUESTIONS} questions",
    # The commit as NVIDIA/Model-Optimizer pins it.
    hub=HubDataset(
        "lmms-lab/RealWorldQA", ("data/{split}-*.parquet",), revision="907c4e5228fd1703c710ed937601cb5f89ab8d5c"
    ),
    questions=read_questions,
    prompt=render,
    score=score,
    metrics=measure,
    splits=("test",),
    fields=FIELDS,
    rule="letter; yes or no; exact",
    headline="accuracy, %",
    num_questions=NUM_QUESTIONS,
)
