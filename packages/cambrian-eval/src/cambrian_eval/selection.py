"""Which questions are asked, and with which pictures: named, limited, blind and shuffled. No state, no generator.

Orders come from hashing the seed with the question's id, so they are the same on every platform and a limited run asks
exactly what the full run would ask of those questions.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import re
from typing import TYPE_CHECKING

from cambrian_eval.errors import DataError
from cambrian_eval.whole_units import SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian_eval.types import Mode, Question


def select(
    questions: Sequence[Question], mode: Mode, limit: int | None, seed: int, ids: Sequence[str] | None = None
) -> list[Question]:
    """The questions to ask, in the order of the data, with the pictures to show.

    Raises:
        DataError: The limit, the ids or the shuffling is impossible with this data.
    """
    if ids is not None and limit is not None:
        raise DataError(f"both a limit ({limit}) and ids were given; give one of them.")
    if mode == "blind":
        questions = [dataclasses.replace(question, pictures=()) for question in questions]
    elif mode == "shuffled":
        questions = shuffle_pictures(questions, seed)
    elif mode != "normal":
        raise DataError(f'found mode "{mode}", expected normal, blind or shuffled.')
    if ids is not None:
        return pick_questions(questions, ids)
    return list(questions) if limit is None else limit_questions(questions, limit, seed)


def parse_ids(text: str) -> tuple[str, ...]:
    """The ids of `12,2d-40,40-60`: separated by commas or white space, so that a file may have one on each line."""
    return tuple(item for item in re.split(r"[,\s]+", text) if item)


def pick_questions(questions: Sequence[Question], ids: Sequence[str]) -> list[Question]:
    """The questions that are named, in the order of the data.

    An item is an id. Where it is none, it is a range such as `40-60`, both ends included, or a single number: of ids if
    the data's ids are numbers, else of places in the data, from 0.

    Raises:
        DataError: No question is named, or an item names none.
    """
    if not ids:
        raise DataError("found no ids, expected at least one, as in 12,2d-40,40-60.")
    known = {question.id for question in questions}
    numbered = {name: name for name in known if name.isdecimal()}
    if not numbered:
        numbered = {str(place): question.id for place, question in enumerate(questions)}
    chosen = {name for item in ids for name in ([item] if item in known else _numbered(item, numbered, questions))}
    return [question for question in questions if question.id in chosen]


def _numbered(item: str, numbered: dict[str, str], questions: Sequence[Question]) -> list[str]:
    match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", item)
    if match is not None:
        first, last = int(match[1]), int(match[2] or match[1])
        found = [name for number, name in numbered.items() if first <= int(number) <= last]
        if found:
            return found
    names = [question.id for question in questions]
    close = difflib.get_close_matches(item, names, n=1)
    hint = f'did you mean "{close[0]}"?' if close else f"ids look like {', '.join(names[:3])}."
    raise DataError(f'ids: "{item}" names none of the {len(names)} questions; {hint}')


def limit_questions(questions: Sequence[Question], limit: int, seed: int) -> list[Question]:
    """A seeded subset with every stratum (part, task, source) in proportion and none left out.

    Questions that only count together (pairs, circular groups) stay together: the subset may then be a little smaller
    than the limit, or larger where a stratum's share would not hold one such unit.

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
        for question in _limit_stratum(group, share, seed)
    }
    return [question for question in questions if question.id in chosen]


def _limit_stratum(questions: Sequence[Question], share: int, seed: int) -> list[Question]:
    """Whole units, for half a pair has no score: as many as fit into the share, and one at least."""
    units: dict[str, list[Question]] = {}
    for question in questions:
        scored_together = SIZE in question.details
        units.setdefault(question.group if scored_together else question.id, []).append(question)
    chosen: list[Question] = []
    for name in sorted(units, key=lambda name: _order(seed, name)):
        if not chosen or len(chosen) + len(units[name]) <= share:
            chosen += units[name]
    return chosen


def shuffle_pictures(questions: Sequence[Question], seed: int) -> list[Question]:
    """Every question with the pictures of another one of its part, never with pictures equal to its own.

    A question without pictures stays as it is.

    Raises:
        DataError: Too many questions of a part share one picture.
    """
    parts: dict[str, list[Question]] = {}
    for question in questions:
        if question.pictures:
            parts.setdefault(question.part, []).append(question)
    shown = {
        question.id: donor.pictures for part, group in parts.items() for question, donor in _derange(part, group, seed)
    }
    return [dataclasses.replace(question, pictures=shown.get(question.id, ())) for question in questions]


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
