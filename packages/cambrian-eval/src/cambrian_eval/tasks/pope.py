"""POPE: is an object in the picture? Half of them are not: random ones, popular ones, and those that often go along.

Published by the reference: accuracy, which is the score here. POPE's authors report accuracy, precision, recall, F1 and
the share of yes, "yes" being the positive class; all are given, overall and for each of the three categories. The share
of yes is that of the answers, not of the labels. An answer that could not be read is wrong, and neither a yes nor a no:
it lowers accuracy and recall.

Source: lmms-lab/POPE on the hub; Li et al. 2023 (arXiv 2305.10355).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian_eval import suffixes
from cambrian_eval.dataset import read_split, size_note, unique
from cambrian_eval.hub import HubDataset
from cambrian_eval.metrics import Metrics, mean_row, parse_rate
from cambrian_eval.prompts import ask
from cambrian_eval.scoring.yes_no import score_yes_no
from cambrian_eval.task import Task
from cambrian_eval.types import Question

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian_eval.metrics import MetricRow
    from cambrian_eval.rows import Row
    from cambrian_eval.types import Prompt, ScoredAnswer

SPLIT = "test"
FIELDS = ("question_id", "question", "answer", "image_source", "image", "category")
CATEGORIES = ("random", "popular", "adversarial")
YES, NO = "yes", "no"
MAX_NEW_TOKENS = 32
NUM_QUESTIONS = 9000


def read_questions(folder: Path, split: str = SPLIT) -> list[Question]:
    """Read the questions; an id is unique in its category.

    Raises:
        DataError: A file, a field or a picture is missing, or a row is not a question with its answer.
    """
    return unique(folder, (_question(row) for row in read_split(folder, split, FIELDS)))


def render(question: Question) -> Prompt:
    """The question and the instruction to answer with a word or phrase."""
    return ask(question, suffixes.WORD, MAX_NEW_TOKENS)


def measure(answers: Sequence[ScoredAnswer]) -> Metrics:
    """Accuracy, precision, recall, F1 and share of yes, in percent, overall and by category."""
    categories = [name for name in CATEGORIES if any(answer.question.part == name for answer in answers)]
    by_category = {name: [answer for answer in answers if answer.question.part == name] for name in categories}
    rows = [_row("scores", "score", "POPE", answers)]
    rows += [_row("tasks", name, name, own) for name, own in by_category.items() if len(by_category) > 1]
    return Metrics(
        summary={
            "score": rows[0].accuracy,
            "parse_rate": parse_rate(answers),
            "n_unscored": 0,
            **detection(answers),
            "by_category": {name: {"accuracy": _accuracy(own), **detection(own)} for name, own in by_category.items()},
            **size_note(len(answers), NUM_QUESTIONS),
        },
        rows=tuple(rows),
    )


def detection(answers: Sequence[ScoredAnswer]) -> dict[str, float | None]:
    """Precision, recall and F1 of finding objects, and the share of yes among the answers, in percent.

    A level whose denominator is 0 is None: precision where nothing was called present, say.
    """
    said = [answer for answer in answers if answer.score.extracted == YES]
    present = [answer for answer in answers if answer.question.answers[0] == YES]
    hits = sum(answer.score.value == 1 for answer in said)
    return {
        "precision": _percent(hits, len(said)),
        "recall": _percent(hits, len(present)),
        "f1": _percent(2 * hits, len(said) + len(present)),
        "yes_rate": _percent(len(said), len(answers)),
    }


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None


def _accuracy(answers: Sequence[ScoredAnswer]) -> float:
    return 100 * sum(answer.score.value == 1 for answer in answers) / len(answers)


def _row(group: str, name: str, label: str, answers: Sequence[ScoredAnswer]) -> MetricRow:
    share = sum(answer.question.answers[0] == YES for answer in answers) / len(answers)
    return mean_row(group, name, label, answers, chance=50.0, best_constant=100 * max(share, 1 - share))


def _question(row: Row) -> Question:
    category = row.one_of("category", CATEGORIES)
    return Question(
        id=f"{category}-{row.key('question_id')}",
        text=row.text("question"),
        choices=(),
        answers=(row.one_of("answer", (YES, NO)),),
        pictures=(row.picture("image"),),
        part=category,
        task=category,
        source="",
        group=row.key("image_source"),
    )


TASK = Task(
    name="pope",
    version=1,
    description=f"POPE: objects that are or are not in the picture, yes or no, {NUM_QUESTIONS} questions",
    # The commit as Hiforever-h/AdaptiveVision-RL pins it.
    hub=HubDataset("lmms-lab/POPE", ("data/{split}-*.parquet",), revision="4db1276663dfa5eb8ad16a52d24c31a09e470896"),
    questions=read_questions,
    prompt=render,
    score=score_yes_no,
    metrics=measure,
    splits=(SPLIT,),
    fields=FIELDS,
    rule="yes or no",
    num_questions=NUM_QUESTIONS,
)
