"""The reference's scripts that compare numbers: ChartQA, MathVista, MMMU.

A number is what Python's `float` takes, "nan" and "1_000" included, "12%" and "1,000" excluded. MathVista and MMMU
measure their tolerance of 5 % by the reply instead of the truth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cambrian_eval.compat.reply import announced, first_letter
from cambrian_eval.compat.rule import Rule, scored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cambrian_eval.types import Score

_TOLERANCE = 0.05
_MULTIPLE_CHOICE = "multiple-choice"


def _chartqa(answer: str, truth: str, _row: Mapping[str, Any]) -> Score:
    """Numbers are never compared as text, so "nan" is not "nan"."""
    text, wanted = answer.lower(), truth.lower()
    given, right = _number(text), _number(wanted)
    if given is not None and right is not None:
        return scored(_within(given, right), text, "number within 5 %")
    return scored(text == wanted, text, "equal text")


def _mathvista(answer: str, truth: str, row: Mapping[str, Any]) -> Score:
    """The branch for letters waits for a type that the data never has: it says "multi_choice"."""
    text = answer.lower().strip()
    return _equal_or_near(text.split(".")[0] if row.get("type") == _MULTIPLE_CHOICE else text, truth)


def _mmmu(answer: str, truth: str, row: Mapping[str, Any]) -> Score:
    if row.get("type") == _MULTIPLE_CHOICE:
        return _equal_or_near(first_letter(answer, ".:,"), truth)
    return _equal_or_near(announced(answer).rstrip("."), truth)


def _equal_or_near(text: str, truth: str) -> Score:
    wanted = truth.lower()
    given, right = _number(text), _number(wanted)
    near = given is not None and right is not None and _within(right, given)
    return scored(text == wanted or near, text, "equal text or number within 5 % of the reply")


def _within(value: float, centre: float) -> bool:
    return abs(value - centre) <= abs(centre) * _TOLERANCE


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


NUMBERS: dict[str, Rule] = {"chartqa": _chartqa, "mathvista": _mathvista, "mmmu": _mmmu}
