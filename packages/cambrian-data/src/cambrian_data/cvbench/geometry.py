"""What a question is about in numbers: boxes, vertices and distances, for whoever reviews it.

One line of geometry.jsonl for each question. Boxes are left, top, right, bottom in pixels of the picture, vertices and
distances metres in the camera frame (x right, y down, z forward), `K` the camera's matrix in pixels. The hub's layout
has no such file; without it a review shows picture and question alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from cambrian_data.cvbench.annotations import Cuboid, Matrix, Vertex
from cambrian_data.cvbench.candidates import Candidate, Task
from cambrian_data.cvbench.layout import Origin
from cambrian_data.cvbench.makers.space import CAMERA, spans, vertices
from cambrian_data.cvbench.questions import BOX_COLOURS, Colour, Question
from cambrian_data.errors import DataError, RecordError
from cambrian_data.formats.rows import read_rows

FILE = "geometry.jsonl"

Edges = tuple[float, float, float, float]
"""Left, top, right, bottom, pixels."""

Corners = Annotated[Sequence[Vertex], msgspec.Meta(min_length=8, max_length=8)]


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A thing that the question asks about.

    Attributes:
        id: of its annotation.
        category: its name.
        box: in the picture.
        colour: of the box drawn around it; None where none is drawn.
        vertices: the 8 corners in Omni3D's order, metres, camera frame (x right, y down, z forward); None in 2D.
        distance: of its nearest and farthest vertex, metres, from where the question measures; None where it does not.
    """

    id: int
    category: str
    box: Edges
    colour: Colour | None = None
    vertices: Corners | None = None
    distance: tuple[float, float] | None = None


class Other(msgspec.Struct, frozen=True, kw_only=True):
    """Another annotated thing of the picture."""

    category: str
    box: Edges


class Geometry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the file.

    Attributes:
        idx: of the question.
        file: its picture.
        width: of the picture, pixels.
        height: of the picture, pixels.
        source: by which the official score weighs.
        source_filename: the picture's name in its annotations.
        intrinsics: `K`, pixels; None where the source has none.
        category: what the question is about, by category.
        subjects: that it asks about, in its order.
        others: the rest of what is annotated in the picture.
    """

    idx: int
    file: str
    width: int
    height: int
    source: str | None = None
    source_filename: str | None = None
    intrinsics: Matrix | None = msgspec.field(default=None, name="K")
    category: list[str] = []
    subjects: list[Subject] = []
    others: list[Other] = []


def geometry(question: Question, index: int, name: str, origin: Origin) -> Geometry:
    """One line of geometry.jsonl.

    Args:
        question: that is asked.
        index: its idx.
        name: of its picture in the benchmark.
        origin: of the picture.
    """
    candidate = question.candidate
    picture = candidate.picture
    asked = {thing.id for thing in candidate.subjects}
    return Geometry(
        idx=index,
        file=name,
        width=picture.width,
        height=picture.height,
        source=origin.source,
        source_filename=picture.file_name,
        intrinsics=picture.intrinsics,
        category=list(candidate.category),
        subjects=[
            Subject(
                id=thing.id,
                category=thing.category,
                box=thing.box,
                colour=BOX_COLOURS[number] if candidate.boxed[number] else None,
                vertices=thing.vertices if isinstance(thing, Cuboid) else None,
                distance=distance,
            )
            for number, (thing, distance) in enumerate(zip(candidate.subjects, distances(candidate), strict=True))
        ],
        others=[Other(category=thing.category, box=thing.box) for thing in picture.things if thing.id not in asked],
    )


def distances(candidate: Candidate[Any]) -> list[tuple[float, float] | None]:
    """For each subject, how near and how far its vertices are: from the camera, or from the centre of the reference."""
    if candidate.task.part == "2D":
        return [None] * len(candidate.subjects)
    corners = vertices(candidate.subjects)
    is_distance = candidate.task is Task.DISTANCE
    found = spans(corners, corners[0].mean(axis=0) if is_distance else CAMERA)
    reach = list(zip(found.nearest.tolist(), found.farthest.tolist(), strict=True))
    return [None, *reach[1:]] if is_distance else [*reach]


def read_geometry(folder: Path) -> dict[int, Geometry] | None:
    """The geometry by `idx`, or None where the folder holds no such file.

    Raises:
        DataError: if a line is malformed, or tells of a question that another line has told of.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    found: dict[int, Geometry] = {}
    for line, row in read_rows(path):
        if isinstance(row, RecordError):
            raise row
        try:
            geometry = msgspec.convert(row, Geometry)
        except msgspec.ValidationError as error:
            raise DataError(f"{path}:{line}: {error}. Build the benchmark again.") from error
        if geometry.idx in found:
            raise DataError(f"{path}:{line}: idx {geometry.idx} occurs twice; expected one line a question.")
        found[geometry.idx] = geometry
    return found
