"""DocVQA: questions on scanned letters, forms and reports.

Published: ANLS on the test split, which only the server knows; scored here: ANLS on validation.

Source: lmms-lab/DocVQA on the hub; Mathew et al. 2020 (arXiv 2007.00398).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cambrian_eval import suffixes
from cambrian_eval.hub import HubDataset
from cambrian_eval.prompts import ask
from cambrian_eval.scoring.anls import score_anls
from cambrian_eval.task import Submission, Task
from cambrian_eval.tasks import documents

if TYPE_CHECKING:
    from cambrian_eval.types import Prompt, Question

SPLITS = (documents.VALIDATION, documents.TEST)
CONFIG = "DocVQA"
KEY = "questionId"
KINDS = "question_types"
MAX_NEW_TOKENS = 64
NUM_QUESTIONS = {documents.VALIDATION: 5349, documents.TEST: 5188}


def render(question: Question) -> Prompt:
    """The question and the instruction to give the short answer."""
    return ask(question, suffixes.SHORT, MAX_NEW_TOKENS)


TASK = Task(
    name="docvqa",
    version=1,
    description="DocVQA: questions on scanned documents, 5349 questions",
    hub=HubDataset("lmms-lab/DocVQA", (f"{CONFIG}/{{split}}-*.parquet",), revision=documents.DOCVQA_COMMIT),
    questions=partial(documents.read_questions, config=CONFIG, key=KEY, kinds=KINDS),
    prompt=render,
    score=score_anls,
    metrics=partial(documents.measure, label="DocVQA", sizes=NUM_QUESTIONS),
    splits=SPLITS,
    fields=(KEY, "question", "image", "answers", KINDS),
    rule="anls",
    headline="ANLS, %",
    num_questions=NUM_QUESTIONS[documents.VALIDATION],
    submission=Submission("docvqa_submission.json", partial(documents.write_submission, key=KEY)),
)
