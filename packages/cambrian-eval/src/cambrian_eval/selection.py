"""Which questions are asked, and with which pictures: limited, blind and shuffled runs. No state, no generator.

Orders come from hashing the seed with the question's id, so they are the same on every platform and a limited run asks
exactly what the full run would ask of those questions.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

from cambrian_eval.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian_eval.types import Mode, Question


def select(questions: Sequence[Question], mode: Mode, limit: int | None, seed: int) -> list[Question]:
    """The questions to ask, in the order of the data, with the pictures to show.

    Raises:
        DataError: The limit or the shuffling is impossible with this data.
    """
    if mode == "blind":
        questions = [dataclasses.replace(question, pictures=()) for question in questions]
    elif mode == "shuffled":
        questions = shuffle_pictures(questions, seed)
    elif mode != "normal":
        raise DataError(f'found mode "{mode}", expected normal, blind or shuffled.')
    return list(questions) if limit is None else limit_questions(questions, limit, seed)


def limit_questions(questions: Sequence[Question], limit: int, seed: int) -> list[Question]:
    """A seeded subset with every stratum (part, task, source) in proportion and none left out.

    Raises:
        DataError: The limit is too small for one question of each stratum.
    """
    strata: dict[tuple[str, str, str], list[Question]] = {}
    for question in questions:
        strata.setdefault(question.stratum, []).append(question)
    if limit < len(strata):
        raise DataError(
            f"found limit {limit}; the data has {len(strata)} groups (part, task, source) and the score needs a "
            f"question of each: give at least {len(strata)}."
        )
    shares = _shares([len(group) for group in strata.values()], min(limit, len(questions)))
    chosen = {
        question.id
        for group, share in zip(strata.values(), shares, strict=True)
        for question in sorted(group, key=lambda question: _order(seed, question.id))[:share]
    }
    return [question for question in questions if question.id in chosen]


def shuffle_pictures(questions: Sequence[Question], seed: int) -> list[Question]:
    """Every question with the pictures of another one of its part, never with pictures equal to its own.

    Raises:
        DataError: Too many questions of a part share one picture.
    """
    parts: dict[str, list[Question]] = {}
    for question in questions:
        parts.setdefault(question.part, []).append(question)
    shown = {
        question.id: donor.pictures for part, group in parts.items() for question, donor in _derange(part, group, seed)
    }
    return [dataclasses.replace(question, pictures=shown[question.id]) for question in questions]


def _derange(part: str, questions: Sequence[Question], seed: int) -> list[tuple[Question, Question]]:
    """Questions with equal pictures stand together; turning the circle by the largest such group moves all out."""
    groups: dict[tuple[str, ...], list[Question]] = {}
    for question in sorted(questions, key=lambda question: _order(seed, question.id)):
        groups.setdefault(tuple(picture.sha256 for picture in question.pictures), []).append(question)
    largest = max(len(group) for group in groups.values())
    if 2 * largest > len(questions):
        raise DataError(
            f"pictures of part {part} cannot be shuffled: {largest} of {len(questions)} questions share one picture, "
            "and at most half may."
        )
    circle = [question for group in groups.values() for question in group]
    return list(zip(circle, circle[largest:] + circle[:largest], strict=True))


def _order(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def _shares(sizes: Sequence[int], total: int) -> list[int]:
    """Whole shares of `total`, at least one each, that lag their proportion as little as possible."""
    shares = [1] * len(sizes)
    for _ in range(total - len(sizes)):
        open_strata = [index for index, size in enumerate(sizes) if shares[index] < size]
        neediest = max(open_strata, key=lambda index: sizes[index] / (shares[index] + 0.5))
        shares[neediest] += 1
    return shares
