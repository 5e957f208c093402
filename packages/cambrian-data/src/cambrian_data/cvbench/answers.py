"""What an assistant replies: the letter, or where the things are, what follows, and then the letter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cambrian_data.cvbench.annotations import Cuboid, Instance
from cambrian_data.cvbench.candidates import Candidate, Task
from cambrian_data.cvbench.names import listed, one, plural, verb
from cambrian_data.cvbench.questions import Question, choice_text
from cambrian_data.scenes.captions import place as ninth

Place = Callable[[float, float], str]
"""Words for a point of the picture, x and y in 0..1 from the upper left."""

SIDES = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}


def short_answer(question: Question) -> str:
    """The letter alone, as the format prompt wants it."""
    return question.letter


def reasoned_answer(question: Question, place: Place = ninth) -> str:
    """Names, places, relation, letter.

    `The ball is on the left and the cube is in the middle. The ball is to the left of the cube. The answer is (A).`

    Args:
        question: to answer.
        place: words for the middle of a thing's box; those of the captions by default.
    """
    candidate = question.candidate
    if question.task is Task.COUNT:
        return f"{count(candidate, place)} The answer is ({question.letter})."
    seen = listed([is_at(thing, candidate, place) for thing in candidate.subjects])
    return f"{seen[0].upper()}{seen[1:]}. {conclusion(candidate)} The answer is ({question.letter})."


def count(candidate: Candidate[Any], place: Place) -> str:
    """Every counted thing with its place, from left to right, and then how many."""
    name = candidate.category[0]
    if not candidate.subjects:
        return f"There are no {plural(name)}, 0 in all."
    things = sorted(candidate.subjects, key=lambda thing: (*thing.box.centre, thing.id))
    verb_first = verb(name)
    seen = listed([f"{one(name)} {where(thing, candidate, place)}" for thing in things])
    return f"There {verb_first} {seen}, {len(things)} in all."


def is_at(thing: Instance | Cuboid, candidate: Candidate[Any], place: Place) -> str:
    """`the ball is on the left`."""
    return f"the {thing.category} {verb(thing.category)} {where(thing, candidate, place)}"


def where(thing: Instance | Cuboid, candidate: Candidate[Any], place: Place) -> str:
    """Words for where the thing is in the picture."""
    x, y = thing.box.centre
    return place(x / candidate.picture.width, y / candidate.picture.height)


def conclusion(candidate: Candidate[Any]) -> str:
    """The relation, in a sentence."""
    first, second = candidate.subjects[:2]
    if candidate.task is Task.RELATION:
        return f"The {first.category} {verb(first.category)} {SIDES[candidate.answer]} the {second.category}."
    closer = choice_text(candidate, candidate.answer)
    target = "camera" if candidate.task is Task.DEPTH else first.category
    return f"The {closer} {verb(closer)} closer to the {target}."
