"""ST-VQA: questions about text in scenes.

The hub holds only the test split, without answers: a run writes the file that the server takes and has no score. A
folder with a validation split of one's own, with answers, is scored by ANLS.

Source: lmms-lab/ST-VQA on the hub; Biten et al. 2019 (arXiv 1905.13648).
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

KEY = "question_id"
MAX_NEW_TOKENS = 32


def render(question: Question) -> Prompt:
    """The question and the instruction to answer with a word or phrase."""
    return ask(question, suffixes.WORD, MAX_NEW_TOKENS)


TASK = Task(
    name="stvqa",
    version=1,
    description="ST-VQA: questions about text in scenes, for the server to score, about 4000 questions",
    # The commit as the hub's pages show it.
    hub=HubDataset("lmms-lab/ST-VQA", ("data/{split}-*.parquet",), revision="2e57a065723389f30ecfe0878a8ad7b4791399ae"),
    questions=partial(documents.read_questions, config="", key=KEY),
    prompt=render,
    score=score_anls,
    metrics=partial(documents.measure, label="ST-VQA", sizes={}),
    splits=(documents.TEST, documents.VALIDATION),
    fields=(KEY, "question", "image"),
    rule="anls",
    headline="ANLS, % (validation only)",
    submission=Submission("stvqa_submission.json", partial(documents.write_submission, key=KEY)),
)
