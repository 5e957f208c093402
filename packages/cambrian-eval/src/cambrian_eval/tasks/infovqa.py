"""InfographicVQA: questions on infographics, whose answers combine text, charts and layout.

Published: ANLS on the test split, which only the server knows; scored here: ANLS on validation.

Source: lmms-lab/DocVQA on the hub; Mathew et al. 2021 (arXiv 2104.12756).
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
CONFIG = "InfographicVQA"
KEY = "questionId"
KINDS = "answer_type"
MAX_NEW_TOKENS = 64
NUM_QUESTIONS = {documents.VALIDATION: 2801, documents.TEST: 3288}


def render(question: Question) -> Prompt:
    """The question and the instruction to answer with a word or phrase."""
    return ask(question, suffixes.WORD, MAX_NEW_TOKENS)


TASK = Task(
    name="infovqa",
    version=1,
    description="InfographicVQA: questions on infographics, 2801 questions",
    hub=HubDataset("lmms-lab/DocVQA", (f"{CONFIG}/{{split}}-*.parquet",), revision=documents.DOCVQA_COMMIT),
    questions=partial(documents.read_questions, config=CONFIG, key=KEY, kinds=KINDS),
    prompt=render,
    score=score_anls,
    metrics=partial(documents.measure, label="InfographicVQA", sizes=NUM_QUESTIONS),
    splits=SPLITS,
    fields=(KEY, "question", "image", "answers", KINDS),
    rule="anls",
    headline="ANLS, %",
    num_questions=NUM_QUESTIONS[documents.VALIDATION],
    submission=Submission("infovqa_submission.json", partial(documents.write_submission, key=KEY)),
)
