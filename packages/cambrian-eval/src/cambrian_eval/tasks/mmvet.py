"""MM-Vet: open questions that need several abilities at once; only a judge can score them.

A run collects the replies and writes the file that the authors' evaluator takes. It has no score by rule: `score` is
None, and the judge's, if one was asked, stands under its own name.

Source: lmms-lab/MMVet on the hub; Yu et al. 2023 (arXiv 2308.02490).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cambrian_eval.dataset import read_split, sized, unique
from cambrian_eval.hub import HubDataset
from cambrian_eval.metrics import measure as measure_plainly
from cambrian_eval.prompts import ask
from cambrian_eval.task import Submission, Task
from cambrian_eval.types import Question, Score

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian_eval.metrics import Metrics
    from cambrian_eval.rows import Row
    from cambrian_eval.types import Prompt, ScoredAnswer

SPLIT = "test"
FIELDS = ("question_id", "question", "answer", "image", "capability")
RULE = "none: needs a judge"
MAX_NEW_TOKENS = 128
NUM_QUESTIONS = 218


def read_questions(folder: Path, split: str = SPLIT) -> list[Question]:
    """Read the questions; their accepted answers are for the judge.

    Raises:
        DataError: A file, a field or a picture is missing, or a row is not a question with its answer.
    """
    return unique(folder, (_question(row) for row in read_split(folder, split, FIELDS)))


def render(question: Question) -> Prompt:
    """The bare question."""
    return ask(question, "", MAX_NEW_TOKENS)


def score(question: Question, reply: str) -> Score:
    """The reply, unscored."""
    said = reply.strip()
    return Score(None, said or None, RULE if said else "abstain: empty reply")


def measure(answers: Sequence[ScoredAnswer]) -> Metrics:
    """The mean of the judge's scores, where answers bear them, overall and by abilities; else only the parse rate."""
    return sized(measure_plainly(answers, label="MM-Vet"), NUM_QUESTIONS)


def submission(answers: Sequence[ScoredAnswer]) -> str:
    """What the authors' evaluator takes: replies by question id."""
    return json.dumps({one.question.id: one.answer.text.strip() for one in answers}, ensure_ascii=False, indent=1)


def _question(row: Row) -> Question:
    return Question(
        id=row.key("question_id"),
        text=row.text("question"),
        choices=(),
        answers=(row.text("answer"),),
        pictures=(row.picture("image"),),
        part="MM-Vet",
        task=_abilities(row),
        source="",
    )


def _abilities(row: Row) -> str:
    """One text such as "ocr, math", whether the data lists them or writes them so."""
    value = row.values["capability"]
    names = row.texts("capability") if isinstance(value, list) else row.text("capability").split(",")
    return ", ".join(sorted(name.strip() for name in names))


TASK = Task(
    name="mmvet",
    version=1,
    description=f"MM-Vet: open questions on several abilities at once, for a judge, {NUM_QUESTIONS} questions",
    # The commit as arupcsedu/MosaicKV pins it.
    hub=HubDataset("lmms-lab/MMVet", ("data/{split}-*.parquet",), revision="b310d12d0d9e765db953da28a7ef7ff43620dc83"),
    questions=read_questions,
    prompt=render,
    score=score,
    metrics=measure,
    splits=(SPLIT,),
    fields=FIELDS,
    rule=RULE,
    headline="score of the judge, % (none without one)",
    num_questions=NUM_QUESTIONS,
    submission=Submission("mmvet_submission.json", submission),
)
