"""The questions as CV-Bench words them, and a question as it is published.

Differs from the original where it slips: plurals are spelled ("wine glasses", not "wine glasss") and verbs agree
("where are the books"); everything else is the hub's wording to the letter.

Source: rows of the hub's nyu-visionx/CV-Bench.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Literal

from cambrian_data.cvbench.candidates import Candidate, Task
from cambrian_data.cvbench.names import plural, verb

Colour = Literal["red", "blue", "green"]
BOX_COLOURS: tuple[Colour, ...] = ("red", "blue", "green")
FORMAT_PROMPT = "Answer with the option's letter from the given choices directly."
"""What follows the prompt when a letter is wanted; the evaluation's default, and a format prompt of Cambrian-7M."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question as it is asked.

    Attributes:
        candidate: what it asks, and about what.
        choices: texts.
        place: of the right one among them, from 0.
    """

    candidate: Candidate[Any]
    choices: tuple[str, ...]
    place: int

    @property
    def task(self) -> Task:
        """The task it belongs to."""
        return self.candidate.task

    @property
    def text(self) -> str:
        """The question alone."""
        return ask(self.candidate)

    @property
    def prompt(self) -> str:
        """The question with its choices."""
        return prompt(self.text, self.choices)

    @property
    def letter(self) -> str:
        """Of the right choice."""
        return ascii_uppercase[self.place]


def prompt(question: str, choices: Sequence[str]) -> str:
    """A question with its choices."""
    return f"{question} Select from the following choices.\n{list_choices(choices)}"


def list_choices(choices: Sequence[str]) -> str:
    """The choices with their letters, one a line, as a prompt ends.

    >>> list_choices(["left", "right"]).splitlines()
    ['(A) left', '(B) right']
    """
    return "\n".join(f"({letter}) {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False))


def ask(candidate: Candidate[Any]) -> str:
    """The question in words."""
    if candidate.task is Task.COUNT:
        return count_text(candidate.category[0])
    subjects = [
        definite(thing.category, candidate.task, colour if boxed else None)
        for thing, colour, boxed in zip(candidate.subjects, BOX_COLOURS, candidate.boxed, strict=False)
    ]
    if candidate.task is Task.RELATION:
        return relation_text(subjects[0], subjects[1], verb(candidate.category[0]))
    return depth_text(*subjects) if candidate.task is Task.DEPTH else distance_text(*subjects)


def definite(name: str, task: Task, colour: str | None) -> str:
    """The name with its article and, if a box is drawn, its colour."""
    word = "annotated" if task is Task.RELATION else "highlighted"
    article = "the" if task is Task.RELATION else "a"
    return f"the {name}" if colour is None else f"the {name} ({word} by {article} {colour} box)"


def count_text(category: str) -> str:
    """The question of Count.

    >>> count_text("train")
    'How many trains are in the image?'
    """
    return f"How many {plural(category)} are in the image?"


def relation_text(located: str, reference: str, verb: str) -> str:
    """The question of Relation, about two things with their articles."""
    return (
        f"Considering the relative positions of {located} and {reference} in the image provided, "
        f"where {verb} {located} located with respect to {reference}?"
    )


def depth_text(red: str, blue: str) -> str:
    """The question of Depth, about two things with their articles."""
    return f"Which object is closer to the camera taking this photo, {red} or {blue}?"


def distance_text(reference: str, blue: str, green: str) -> str:
    """The question of Distance, about three things with their articles."""
    return (
        "Estimate the real-world distances between objects in this image. "
        f"Which object is closer to {reference}, {blue} or {green}?"
    )


def choice_text(candidate: Candidate[Any], answer: str) -> str:
    """How an answer is spelled as a choice: the name of the thing in a box of that colour, or the answer itself."""
    if candidate.task.part == "2D":
        return answer
    return str(candidate.subjects[BOX_COLOURS.index(answer)].category)
