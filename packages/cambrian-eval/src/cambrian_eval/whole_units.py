"""Pairs and circular groups of which every question was answered, and their rows.

A pair of which a limit left one question out would count as right with half the work, so it enters no unit score.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING

from cambrian_eval.metrics import unit_row, units_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian_eval.metrics import MetricRow
    from cambrian_eval.types import Question, ScoredAnswer

SIZE = "group_size"
"""The detail of a question that tells how many its group has in the data."""


def with_sizes(questions: Sequence[Question]) -> list[Question]:
    """The questions, each with the size of its group in the data."""
    sizes = Counter(question.group for question in questions)
    return [
        dataclasses.replace(question, details={**question.details, SIZE: sizes[question.group]})
        for question in questions
    ]


def whole_units(answers: Sequence[ScoredAnswer]) -> tuple[list[ScoredAnswer], int]:
    """The answers whose group is complete and has known truths, and how many groups are not."""
    units = units_of(answers)
    whole = [unit for unit in units if len(unit) == unit[0].question.details[SIZE] and _is_scored(unit)]
    return [answer for unit in whole for answer in unit], len(units) - len(whole)


def unit_rows_by(group: str, attribute: str, answers: Sequence[ScoredAnswer]) -> list[MetricRow]:
    """A unit row for every value of a question's attribute; none where there is only one. Units must be whole."""
    parts: dict[str, list[ScoredAnswer]] = {}
    for answer in answers:
        parts.setdefault(getattr(answer.question, attribute), []).append(answer)
    return [unit_row(group, name, name, parts[name]) for name in sorted(parts)] if len(parts) > 1 else []


def _is_scored(unit: Sequence[ScoredAnswer]) -> bool:
    return all(answer.score.value is not None for answer in unit)
