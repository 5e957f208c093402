"""TextVQA: questions whose answer is written in the picture, scored by agreement with ten people.

The reference, and with it the paper, shows the model what an OCR system read in the picture. `textvqa` does so;
`textvqa-no-ocr` asks the same questions without, as lmms-eval and VLMEvalKit do. Published: soft accuracy on the
validation split; answers of the test split are secret.

Source: lmms-lab/textvqa on the hub; Singh et al. 2019 (arXiv 1904.08920).
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from cambrian_eval import suffixes
from cambrian_eval.dataset import read_split, sized, unique
from cambrian_eval.hub import HubDataset
from cambrian_eval.metrics import measure as measure_plainly
from cambrian_eval.prompts import ask
from cambrian_eval.scoring.vqa import score_vqa
from cambrian_eval.task import Submission, Task
from cambrian_eval.types import Question

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian_eval.metrics import Metrics
    from cambrian_eval.rows import Row
    from cambrian_eval.types import Prompt, ScoredAnswer

SPLITS = ("validation", "test")
FIELDS = ("question_id", "image_id", "question", "ocr_tokens", "answers", "image")
PEOPLE = 10
MAX_NEW_TOKENS = 32
NUM_QUESTIONS = {"validation": 5000, "test": 5734}


def read_questions(folder: Path, split: str = SPLITS[0], *, ocr: bool = True) -> list[Question]:
    """Read the questions, with the OCR system's reading of their pictures or without.

    Raises:
        DataError: A file, a field or a picture is missing, or a row is not a question with its answers.
    """
    fields = [field for field in FIELDS if ocr or field != "ocr_tokens"]
    return unique(folder, (_question(row, split, ocr=ocr) for row in read_split(folder, split, fields)))


def render(question: Question) -> Prompt:
    """The question, what OCR read where it is shown, and the instruction to answer with a word or phrase."""
    if "ocr_tokens" not in question.details:
        return ask(question, suffixes.WORD, MAX_NEW_TOKENS)
    read = ", ".join(question.details["ocr_tokens"])
    text = f"{question.text}\nReference OCR tokens:{' ' if question.details['ocr_tokens'] else ''}{read}"
    return ask(question, suffixes.WORD, MAX_NEW_TOKENS, text=text)


def measure(answers: Sequence[ScoredAnswer]) -> Metrics:
    """Soft accuracy, clustered by picture."""
    return sized(measure_plainly(answers, label="TextVQA"), NUM_QUESTIONS.get(answers[0].question.part))


def submission(answers: Sequence[ScoredAnswer]) -> str:
    """What EvalAI takes: a list of question ids and answers."""
    return json.dumps(
        [{"question_id": int(one.question.id), "answer": one.answer.text.strip()} for one in answers],
        ensure_ascii=False,
    )


def _question(row: Row, split: str, *, ocr: bool) -> Question:
    answers = row.optional_texts("answers")
    if split == SPLITS[0] and len(answers) != PEOPLE:
        raise row.error("answers", f"the answers of {PEOPLE} people")
    if split != SPLITS[0] and not row.key("question_id").isdecimal():
        raise row.error("question_id", "a whole number, which the server wants")
    return Question(
        id=row.key("question_id"),
        text=row.text("question"),
        choices=(),
        answers=answers,
        pictures=(row.picture("image"),),
        part=split,
        task="",
        source="",
        group=row.key("image_id"),
        details={"ocr_tokens": list(row.texts("ocr_tokens"))} if ocr else {},
    )


def _task(name: str, description: str, *, ocr: bool) -> Task:
    return Task(
        name=name,
        version=1,
        description=description,
        # The commit as arupcsedu/MosaicKV pins it.
        hub=HubDataset(
            "lmms-lab/textvqa", ("data/{split}-*.parquet",), revision="9c0699cd19768ac5ab97568f6b3cbac4c0062884"
        ),
        questions=partial(read_questions, ocr=ocr),
        prompt=render,
        score=score_vqa,
        metrics=measure,
        splits=SPLITS,
        fields=tuple(field for field in FIELDS if ocr or field != "ocr_tokens"),
        rule="vqa",
        headline="agreement with ten people, %",
        num_questions=NUM_QUESTIONS[SPLITS[0]],
        submission=Submission("textvqa_submission.json", submission),
    )


TASK = _task("textvqa", "TextVQA: text in everyday pictures, with what OCR read, 5000 questions", ocr=True)
WITHOUT_OCR = _task("textvqa-no-ocr", "TextVQA without what OCR read, 5000 questions", ocr=False)
