"""A candidate: one question that the annotations allow, before it is decided which are asked and how."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic

from cambrian_data.cvbench.annotations import Picture, Thing


class Task(StrEnum):
    """The four tasks, by their published names."""

    COUNT = "Count"
    RELATION = "Relation"
    DEPTH = "Depth"
    DISTANCE = "Distance"

    @property
    def part(self) -> str:
        """The half of the benchmark that it belongs to."""
        return "2D" if self in (Task.COUNT, Task.RELATION) else "3D"


@dataclass(frozen=True, slots=True)
class Candidate(Generic[Thing]):
    """One question that could be asked.

    Attributes:
        task: that it belongs to.
        picture: that it is about.
        category: of the things counted, and for the other tasks those of the subjects, for spreading.
        subjects: Count: the things counted. Relation: the thing located, then the reference. Depth: the things in the
            red and the blue box. Distance: the reference in the red box, the candidates in the blue and the green one.
        groups: what it may be balanced among: each is a tuple of answers, the right one among them.
        answer: a number, a side, or the colour of the box that is right.
        boxed: of each subject, whether its box is drawn.
    """

    task: Task
    picture: Picture[Thing]
    category: tuple[str, ...]
    subjects: tuple[Thing, ...]
    groups: tuple[tuple[str, ...], ...]
    answer: str
    boxed: tuple[bool, ...]

    @property
    def fact(self) -> tuple[object, ...]:
        """What it asks, however it is put; one fact is asked once at most."""
        if self.task is Task.COUNT:
            return self.picture.file_name, self.category
        ids = tuple(thing.id for thing in self.subjects)
        if self.task is Task.RELATION:
            return self.picture.file_name, self.groups, tuple(sorted(ids))
        fixed = 0 if self.task is Task.DEPTH else 1  # the reference is not exchanged with a candidate
        return self.picture.file_name, ids[:fixed], tuple(sorted(ids[fixed:]))
