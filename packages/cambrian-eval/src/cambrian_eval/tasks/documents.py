"""What the robust-reading server's three benchmarks share: DocVQA, InfographicVQA and ST-VQA.

Validation answers are public and are scored here by ANLS; test answers are secret, and a run on them writes the file
that the server takes: a list of question ids and answers.

Source: rrc.cvc.uab.es, challenges 11 and 17.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cambrian_eval.dataset import read_split, sized, unique
from cambrian_eval.metrics import Metrics, mean_row
from cambrian_eval.metrics import measure as measure_plainly
from cambrian_eval.types import Question

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from cambrian_eval.metrics import MetricRow
    from cambrian_eval.rows import Row
    from cambrian_eval.types import ScoredAnswer

VALIDATION, TEST = "validation", "test"
# Of lmms-lab/DocVQA, as Exgentic/eval-containers pins it.
DOCVQA_COMMIT = "539088ef8a8ada01ac8e2e6d4e372586748a265e"


def read_questions(folder: Path, split: str, *, config: str, key: str, kinds: str = "") -> list[Question]:
    """Read the questions.

    Args:
        folder: A hub snapshot or a user's folder.
        split: `validation`, whose rows must have answers, or `test`.
        config: The hub's name of the benchmark in its repository.
        key: The field of the question's id.
        kinds: The field that lists what kinds a question is of, if there is one.

    Raises:
        DataError: A file, a field or a picture is missing, or a row is not a question with its answers.
    """
    required = (key, "question", "image", *(("answers",) if split == VALIDATION else ()))
    optional = ("answers", *((kinds,) if kinds else ()))
    rows = read_split(folder, split, required, config=config, optional=optional)
    return unique(folder, (_question(row, split, key, kinds) for row in rows))


def measure(answers: Sequence[ScoredAnswer], *, label: str, sizes: Mapping[str, int]) -> Metrics:
    """ANLS in percent, overall and for every kind of question; of secret answers only the parse rate."""
    found = sized(measure_plainly(answers, label=label), sizes.get(answers[0].question.part))
    return Metrics(found.summary, (*found.rows, *_kind_rows(answers)))


def write_submission(answers: Sequence[ScoredAnswer], *, key: str) -> str:
    """The replies as the server takes them, ids as the whole numbers that they are."""
    return json.dumps(
        [{key: int(one.question.id), "answer": one.answer.text.strip()} for one in answers], ensure_ascii=False
    )


def _question(row: Row, split: str, key: str, kinds: str) -> Question:
    answers = row.optional_texts("answers")
    if split == VALIDATION and not answers:
        raise row.error("answers", "at least one accepted answer")
    if not row.key(key).isdecimal():
        raise row.error(key, "a whole number, which the server wants")
    picture = row.picture("image")
    of_kinds = _kinds(row, kinds) if kinds else ()
    return Question(
        id=row.key(key),
        text=row.text("question"),
        choices=(),
        answers=answers,
        pictures=(picture,),
        part=split,
        task="",
        source="",
        group=picture.sha256,
        details={"kinds": list(of_kinds)} if of_kinds else {},
    )


def _kinds(row: Row, field: str) -> tuple[str, ...]:
    """One kind or a list of them."""
    listed = isinstance(row.values[field], list)
    return row.optional_texts(field) if listed else tuple(filter(None, [row.optional_text(field)]))


def _kind_rows(answers: Sequence[ScoredAnswer]) -> Iterator[MetricRow]:
    """A question may be of several kinds, so these rows overlap."""
    scored = [answer for answer in answers if answer.score.value is not None]
    for kind in sorted({kind for answer in scored for kind in answer.question.details.get("kinds", ())}):
        own = [answer for answer in scored if kind in answer.question.details.get("kinds", ())]
        yield mean_row("tasks", kind, kind, own)
