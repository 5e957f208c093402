"""What an assistant replies: the letter, or where the things are, what follows, and then the letter."""

from __future__ import annotations

from typing import Any

import numpy as np

from cambrian_data.cvbench.annotations import Cuboid, Instance
from cambrian_data.cvbench.candidates import Candidate, Task
from cambrian_data.cvbench.names import listed, one, plural, verb
from cambrian_data.cvbench.questions import BOX_COLOURS, Question, choice_text
from cambrian_data.places import left_to_right, place_words


def short_answer(question: Question) -> str:
    """The letter alone, as the format prompt wants it."""
    return question.letter


def reasoned_answer(question: Question) -> str:
    """Names, places, what follows from them, letter; the words of the right choice stand directly before the letter.

    `I see the ball at x3 y12 and the cube in the blue box at x9 y4. Seen from the cube, the ball is left. The answer is
    (A).` Places are those of `cambrian_data.places`; cuboids have a depth, instances have none.
    """
    candidate = question.candidate
    found = count(candidate) if question.task is Task.COUNT else f"{sight(candidate)} {conclusion(candidate)}"
    return f"{found} The answer is ({question.letter})."


def count(candidate: Candidate[Any]) -> str:
    """Every counted thing with its place, from left to right, and then how many."""
    name = candidate.category[0]
    if not candidate.subjects:
        return f"I see no {plural(name)}, 0 in all."
    picture = candidate.picture
    things = sorted(candidate.subjects, key=lambda t: (*left_to_right(t.box, picture.width, picture.height), t.id))
    seen = listed([f"{one(name)} {place(thing, candidate)}" for thing in things])
    return f"I see {seen}, {len(things)} in all."


def sight(candidate: Candidate[Any]) -> str:
    """The things asked about, each with its box, if it has one, and its place."""
    things = zip(candidate.subjects, candidate.boxed, BOX_COLOURS, strict=False)
    named = [
        f"the {thing.category}{f' in the {colour} box' if boxed else ''} {place(thing, candidate)}"
        for thing, boxed, colour in things
    ]
    return f"I see {listed(named)}."


def place(thing: Instance | Cuboid, candidate: Candidate[Any]) -> str:
    """Words for where the thing is."""
    depth = sum(vertex[2] for vertex in thing.vertices) / len(thing.vertices) if isinstance(thing, Cuboid) else None
    return " ".join(place_words(thing.box, candidate.picture.width, candidate.picture.height, depth))


def conclusion(candidate: Candidate[Any]) -> str:
    """What follows from the places."""
    first = candidate.subjects[0]
    if candidate.task is Task.RELATION:
        located = first.category
        return f"Seen from the {candidate.subjects[1].category}, the {located} {verb(located)} {candidate.answer}."
    closer = choice_text(candidate, candidate.answer)
    if candidate.task is Task.DEPTH:
        return f"Closer to the camera {verb(closer)} the {closer}."
    away = [
        f"the {other.category} {verb(other.category)} {metres(first, other)} metres away"
        for other in candidate.subjects[1:]
    ]
    return f"From the {first.category}, {listed(away)}. Closer to the {first.category} {verb(closer)} the {closer}."


def metres(first: Cuboid, second: Cuboid) -> int:
    """Between the middles of two things, rounded."""
    middles = [np.mean(thing.vertices, axis=0) for thing in (first, second)]
    return round(float(np.linalg.norm(middles[0] - middles[1])))
