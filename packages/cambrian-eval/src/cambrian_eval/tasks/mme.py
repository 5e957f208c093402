"""MME: fourteen subtasks of yes-or-no questions, two on every picture.

A subtask scores its accuracy plus its acc+, the share of pictures with both questions right, 200 at most. Perception is
the sum over ten subtasks (2000), cognition over the other four (800). Published: perception.

Source: lmms-lab/MME on the hub; Fu et al. 2023 (arXiv 2306.13394).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING

from cambrian_eval import suffixes
from cambrian_eval.dataset import read_split, size_note, unique
from cambrian_eval.errors import DataError
from cambrian_eval.hub import HubDataset
from cambrian_eval.metrics import Metrics, mean_row, parse_rate, unit_of, unit_row, weighted_row
from cambrian_eval.prompts import ask
from cambrian_eval.scoring.yes_no import score_yes_no
from cambrian_eval.task import Task
from cambrian_eval.types import Question
from cambrian_eval.whole_units import whole_units, with_sizes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cambrian_eval.metrics import MetricRow
    from cambrian_eval.rows import Row
    from cambrian_eval.types import Prompt, ScoredAnswer

SPLIT = "test"
FIELDS = ("question_id", "image", "question", "answer", "category")
MAX_NEW_TOKENS = 32
NUM_QUESTIONS = 2374
SUBTASKS = {
    "Perception": (
        "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
    ),
    "Cognition": ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"),
}  # fmt: skip
FULL = 200.0
"""A subtask's best score: 100 of accuracy and 100 of acc+."""

CHANCE = 75.0
"""A subtask's score for a coin: 50 of accuracy and 25 of acc+."""

_PART = {subtask: part for part, subtasks in SUBTASKS.items() for subtask in subtasks}


def read_questions(folder: Path, split: str = SPLIT) -> list[Question]:
    """Read the questions.

    Raises:
        DataError: A file, a field or a picture is missing, or a picture has another number of questions than two.
    """
    asked: Counter[str] = Counter()
    questions = with_sizes(unique(folder, (_question(row, asked) for row in read_split(folder, split, FIELDS))))
    odd = [name for name, number in asked.items() if number != 2]
    if odd:
        raise DataError(f"{folder}: picture {odd[0]} has {asked[odd[0]]} questions, expected 2 on every picture.")
    return questions


def render(question: Question) -> Prompt:
    """The question, which ends in "Please answer yes or no.", and the instruction below it, as in the reference."""
    return ask(question, suffixes.WORD, MAX_NEW_TOKENS)


def measure(answers: Sequence[ScoredAnswer]) -> Metrics:
    """Perception and cognition, their accuracy and acc+, and every subtask.

    A picture of which only one question was asked, in a limited run, enters nothing but the parse rate.
    """
    whole, num_broken = whole_units(answers)
    subtasks = {part: list(_subtask_rows(part, whole)) for part in SUBTASKS}
    sums = {part: _sum_row(part, rows) for part, rows in subtasks.items() if rows}
    return Metrics(
        summary={
            "score": sums["Perception"].accuracy if "Perception" in sums else None,
            "cognition": sums["Cognition"].accuracy if "Cognition" in sums else None,
            "parse_rate": parse_rate(answers),
            "n_unscored": sum(answer.score.value is None for answer in answers),
            "n_incomplete_pairs": num_broken,
            **size_note(len(answers), NUM_QUESTIONS),
        },
        rows=(
            *sums.values(),
            *(row for part in sums for row in _halves(part, whole)),
            *(row for rows in subtasks.values() for row in rows),
        ),
    )


def _question(row: Row, asked: Counter[str]) -> Question:
    category = row.one_of("category", tuple(_PART))
    group = f"{category}: {row.key('question_id')}"
    asked[group] += 1
    return Question(
        id=f"{row.key('question_id')}#{asked[group]}",
        text=row.text("question"),
        choices=(),
        answers=(row.one_of("answer", ("yes", "no")),),
        pictures=(row.picture("image"),),
        part=_PART[category],
        task=category,
        source="",
        group=group,
    )


def _subtask_rows(part: str, answers: Sequence[ScoredAnswer]) -> Iterator[MetricRow]:
    for subtask in SUBTASKS[part]:
        own = [answer for answer in answers if answer.question.task == subtask]
        if own:
            always = [[float(answer.question.answers[0] == reply) for answer in own] for reply in ("yes", "no")]
            yield mean_row(
                "tasks",
                subtask,
                f"{subtask} ({part.lower()})",
                own,
                values=_worths(own, [answer.score.value or 0.0 for answer in own]),
                full=FULL,
                chance=CHANCE,
                best_constant=max(100 * sum(_worths(own, right)) / len(own) for right in always),
            )


def _worths(answers: Sequence[ScoredAnswer], right: Sequence[float]) -> list[float]:
    """What each answer adds to accuracy plus acc+: its own value, and 1 if both of its picture are right.

    One mean over them carries the covariance of accuracy and acc+ into the interval.
    """
    least: dict[object, float] = {}
    for answer, value in zip(answers, right, strict=True):
        unit = unit_of(answer.question)
        least[unit] = min(value, least.get(unit, 1.0))
    return [value + least[unit_of(answer.question)] for answer, value in zip(answers, right, strict=True)]


def _sum_row(part: str, rows: Sequence[MetricRow]) -> MetricRow:
    name = "score" if part == "Perception" else part.lower()
    return weighted_row("scores", name, f"MME {part.lower()}, of {FULL * len(rows):.0f}", [(1.0, row) for row in rows])


def _halves(part: str, answers: Sequence[ScoredAnswer]) -> Iterator[MetricRow]:
    own = [answer for answer in answers if answer.question.part == part]
    name = part.lower()
    yield mean_row("scores", f"{name}_accuracy", f"{name}, single questions", own, chance=50.0)
    pairs = unit_row("scores", f"{name}_acc_plus", f"{name}, pictures with both right", own)
    yield dataclasses.replace(pairs, chance=25.0)


TASK = Task(
    name="mme",
    version=1,
    description=f"MME: perception and cognition, yes or no, in pairs, {NUM_QUESTIONS} questions",
    # The commit as Hiforever-h/AdaptiveVision-RL pins it.
    hub=HubDataset("lmms-lab/MME", ("data/{split}-*.parquet",), revision="d6c9023f017b564f7b3ccccf5348166bce8fdbcd"),
    questions=read_questions,
    prompt=render,
    score=score_yes_no,
    metrics=measure,
    splits=(SPLIT,),
    fields=FIELDS,
    rule="yes or no",
    headline="perception: accuracy + acc+ over ten subtasks, of 2000",
    num_questions=NUM_QUESTIONS,
)
