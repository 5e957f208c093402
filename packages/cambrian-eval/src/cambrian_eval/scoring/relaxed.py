"""Relaxed accuracy: numbers within 5 % of the accepted one, everything else exact. ChartQA.

Source: Masry et al. 2022 (ChartQA), after Methani et al. 2020. As published, years are numbers: 2015 is "within 5 %" of
2010.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian_eval.scoring.exact import normalise
from cambrian_eval.scoring.number import read_number
from cambrian_eval.scoring.quantities import Tolerance, parse_quantity
from cambrian_eval.scoring.reading import score_reading
from cambrian_eval.scoring.short_answer import read_short_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian_eval.types import Question, Score

WITHIN = Tolerance(relative=0.05)


def score_relaxed(question: Question, reply: str) -> Score:
    """Score 1 where the number is within 5 % of an accepted one, or the text equals an accepted one."""
    numeric = bool(question.answers) and all(parse_quantity(answer) for answer in question.answers)
    read = read_number if numeric else read_short_answer
    return score_reading(
        question, "relaxed", lambda: read(reply), lambda answer: float(matches(answer, question.answers))
    )


def matches(answer: str, accepted: Sequence[str]) -> bool:
    """Whether an answer equals an accepted one, or is a number within 5 % of one."""
    said, number = normalise(answer), parse_quantity(answer)
    for one in accepted:
        quantity = parse_quantity(one)
        if normalise(one) == said or (number and quantity and number.equals(quantity, WITHIN)):
            return True
    return False
