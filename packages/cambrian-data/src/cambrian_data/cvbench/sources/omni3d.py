"""Omni3D-format cuboids: any of Omni3D's data sets, and our scenes.

Annotations that the file itself marks as without a cuboid (`valid3D`, `behind_camera`) or without a box in the picture
are left out.

Source: Omni3D DATA.md (github facebookresearch/omni3d).
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from cambrian_data.boxes import Box
from cambrian_data.cvbench.annotations import Annotations, Cuboid, Vertex
from cambrian_data.cvbench.sources.dataset_file import (
    OMNI3D_CUBOIDS,
    Category,
    Edges,
    assemble,
    checked_box,
    decode,
    measured,
)
from cambrian_data.errors import DataError

NO_BOX: Edges = (-1, -1, -1, -1)

Vertices = tuple[Vertex, Vertex, Vertex, Vertex, Vertex, Vertex, Vertex, Vertex]


class Omni3DImage(msgspec.Struct, gc=False):
    """An entry of "images"."""

    id: int
    width: int
    height: int
    name: str = msgspec.field(name="file_path")


class Omni3DAnnotation(msgspec.Struct, gc=False):
    """An entry of "annotations"; boxes in the picture are left, top, right, bottom, all -1 for none."""

    id: int
    image_id: int
    category_id: int
    bbox3D_cam: Vertices  # noqa: N815  (the format's name)
    valid3D: bool = True  # noqa: N815
    behind_camera: bool = False
    bbox2D_tight: Edges = NO_BOX  # noqa: N815
    bbox2D_trunc: Edges = NO_BOX  # noqa: N815
    visibility: float | None = None
    truncation: float | None = None


class Omni3DFile(msgspec.Struct):
    """What we read of a file."""

    images: list[Omni3DImage]
    annotations: list[Omni3DAnnotation]
    categories: list[Category]


def read(file: Path) -> Annotations[Cuboid]:
    """Reads the cuboids of a file.

    Raises:
        DataError: naming the file, and as far as they are known the image and the field.
    """
    content = decode(Path(file), Omni3DFile, OMNI3D_CUBOIDS)
    return assemble(Path(file), content.images, content.annotations, content.categories, to_cuboid)


def to_cuboid(entry: Omni3DAnnotation, category: str, image: Omni3DImage, where: str) -> Cuboid | None:
    """One annotation, checked; None if it has no cuboid or is not in the picture."""
    if not entry.valid3D or entry.behind_camera:
        return None
    if not all(math.isfinite(part) for vertex in entry.bbox3D_cam for part in vertex):
        raise DataError(f'{where}: "bbox3D_cam" holds a number that is not finite; fix it or set "valid3D" to false.')
    box = picture_box(entry, image, where)
    if box is None:
        return None
    visibility = measured(entry.visibility, where, "visibility")
    truncation = measured(entry.truncation, where, "truncation")
    return Cuboid(entry.id, category, box, entry.bbox3D_cam, visibility, truncation)


def picture_box(entry: Omni3DAnnotation, image: Omni3DImage, where: str) -> Box | None:
    """The tight box where one was annotated, else the cuboid's projection cut at the picture's edges."""
    for name, edges in (("bbox2D_tight", entry.bbox2D_tight), ("bbox2D_trunc", entry.bbox2D_trunc)):
        if edges != NO_BOX:
            return checked_box(edges, image, where, name)
    return None
