"""What the question makers see: pictures with things in them, whatever file they were read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from cambrian_data.boxes import Box

Vertex = tuple[float, float, float]
Matrix = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True, slots=True)
class Instance:
    """One thing outlined in a picture.

    Attributes:
        id: unique in its file.
        category: its name in the file.
        box: of what is visible.
        area: visible pixels.
        is_crowd: stands for many things that were not told apart.
        visibility: the part of it that nothing hides, 0..1; None where it was not measured.
    """

    id: int
    category: str
    box: Box
    area: float
    is_crowd: bool = False
    visibility: float | None = None


@dataclass(frozen=True, slots=True)
class Cuboid:
    """One thing with its box in space.

    Attributes:
        id: unique in its file.
        category: its name in the file.
        box: in the picture, inside it.
        vertices: the 8 corners, metres, camera frame (x right, y down, z forward).
        visibility: the part of it that nothing hides, 0..1; None where it was not measured.
        truncation: the part of it outside the picture, 0..1; None where it was not measured.
    """

    id: int
    category: str
    box: Box
    vertices: tuple[Vertex, ...]
    visibility: float | None = None
    truncation: float | None = None

    @property
    def area(self) -> float:
        """Of its box, square pixels: cuboids come without outlines."""
        return self.box.area


Thing = TypeVar("Thing", Instance, Cuboid)


@dataclass(frozen=True, slots=True)
class Picture(Generic[Thing]):
    """A picture and the things in it.

    Attributes:
        file_name: its path in the folder of pictures.
        width: pixels.
        height: pixels.
        things: by rising id.
        intrinsics: the camera's K, pixels; None where it is not known.
        complete: categories of which every instance in the picture was annotated; None for all of the file's.
    """

    file_name: str
    width: int
    height: int
    things: tuple[Thing, ...]
    intrinsics: Matrix | None = None
    complete: frozenset[str] | None = None

    @property
    def area(self) -> int:
        """In square pixels."""
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class Annotations(Generic[Thing]):
    """The content of one annotation file, or of a folder of them.

    Attributes:
        file: that it was read from.
        categories: names, in alphabetical order.
        pictures: by rising file name.
        left_out: annotations that give no thing, counted by reason.
    """

    file: Path
    categories: tuple[str, ...]
    pictures: tuple[Picture[Thing], ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
