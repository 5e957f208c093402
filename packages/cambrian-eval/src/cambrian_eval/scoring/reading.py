"""What a rule read in a reply to an open question, and how that becomes a score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cambrian_eval.scoring.abstention import AbstainError
from cambrian_eval.types import Score

if TYPE_CHECKING:
    from collections.abc import Callable

    from cambrian_eval.types import Question


@dataclass(frozen=True)
class Reading:
    """An answer as it stands in the reply, and where it stood."""

    text: str
    place: str


def score_reading(question: Question, name: str, read: Callable[[], Reading], grade: Callable[[str], float]) -> Score:
    """Score what `read` finds with `grade`.

    Args:
        question: Only whether it has answers matters here.
        name: The rule's name.
        read: Finds the answer in the reply, or raises `AbstainError`.
        grade: The answer read -> value from 0 to 1. Not called where the question's answers are secret.

    Returns:
        The score. Its rule is the name and the place; for an abstention, the reason.
    """
    known = bool(question.answers)
    try:
        reading = read()
    except AbstainError as reason:
        return Score(0.0 if known else None, None, f"abstain: {reason}")
    return Score(float(grade(reading.text)) if known else None, reading.text, f"{name}: {reading.place}")
