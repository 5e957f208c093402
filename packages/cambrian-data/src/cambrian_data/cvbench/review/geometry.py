"""What a benchmark that was built here knows of each question's things, read back from `geometry.jsonl`.

The hub's layout has no such file; without it a review shows picture and question alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from cambrian_data.cvbench.geometry import FILE
from cambrian_data.errors import DataError, RecordError
from cambrian_data.formats.rows import read_rows

Edges = tuple[float, float, float, float]
"""Left, top, right, bottom, pixels."""
Triple = tuple[float, float, float]
Corners = Annotated[list[Triple], msgspec.Meta(min_length=8, max_length=8)]
Matrix = tuple[Triple, Triple, Triple]


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
    colour: Literal["red", "blue", "green"] | None = None
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
        intrinsics: `K`, pixels; None where the source has none.
        category: what the question is about, by category.
        subjects: that it asks about, in its order.
        others: the rest of what is annotated in the picture.
    """

    idx: int
    file: str
    width: int
    height: int
    intrinsics: Matrix | None = msgspec.field(default=None, name="K")
    category: list[str] = []
    subjects: list[Subject] = []
    others: list[Other] = []


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
