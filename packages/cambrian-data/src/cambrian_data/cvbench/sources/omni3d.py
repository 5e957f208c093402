"""Omni3D-format cuboids: Omni3D's KITTI, nuScenes, SUN RGB-D, Objectron, ARKitScenes and Hypersim; our scenes.

Left out, and counted by reason, is what Omni3D itself ignores in training and evaluation, except what our rules decide
(visibility, truncation, size): no cuboid, a corner behind the camera, a cuboid without extent, one that no LiDAR point
or pixel confirms, one that its depth map contradicts, categories that stand for "ignore". Anything that is neither
usable nor marked is an error.

Source: DATA.md and cubercnn/data/datasets.py (github facebookresearch/omni3d).
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import msgspec

from cambrian_data.boxes import Box
from cambrian_data.cvbench.annotations import Annotations, Cuboid, Matrix, Vertex
from cambrian_data.cvbench.sources.dataset_file import Category, Edges, assemble, checked_box, decode, measured
from cambrian_data.cvbench.sources.kinds import OMNI3D_CUBOIDS
from cambrian_data.errors import DataError
from cambrian_data.records import shown

NO_BOX: Edges = (-1, -1, -1, -1)
IGNORED = Category(-1, "dontcare")  # Omni3D's loader gives what it ignores this id
IGNORED_NAMES = frozenset(("dontcare", "ignore", "void"))
MAX_DEPTH_ERROR = 0.5  # metres, Omni3D's own bound

Number = float | None
Point = tuple[Number, Number, Number]
Vertices = tuple[Point, Point, Point, Point, Point, Point, Point, Point]


class Omni3DImage(msgspec.Struct, gc=False):
    """An entry of "images".

    `src_90_rotate` and `src_flagged` are not read: the former tells how Omni3D's pictures were turned upright before
    they were handed out, the latter doubts which way is up, which no distance depends on.
    """

    id: int
    width: int
    height: int
    name: str = msgspec.field(name="file_path")
    intrinsics: Matrix | None = msgspec.field(name="K", default=None)


class Omni3DAnnotation(msgspec.Struct, gc=False):
    """An entry of "annotations"; boxes in the picture are left, top, right, bottom; -1 stands for "not measured"."""

    id: int
    image_id: int
    category_id: int
    bbox3D_cam: Vertices  # noqa: N815  (the format's name)
    valid3D: bool = True  # noqa: N815
    behind_camera: bool = False
    bbox2D_tight: Edges = NO_BOX  # noqa: N815
    bbox2D_trunc: Edges = NO_BOX  # noqa: N815
    dimensions: Point | None = None
    visibility: float | None = None
    truncation: float | None = None
    segmentation_pts: float | None = None
    lidar_pts: float | None = None
    depth_error: float | None = None


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
    for image in content.images:
        check_intrinsics(image, Path(file))
    known = {category.id for category in content.categories}
    categories = content.categories if IGNORED.id in known else [*content.categories, IGNORED]
    found = assemble(Path(file), content.images, content.annotations, categories, to_cuboid)
    return replace(found, categories=tuple(name for name in found.categories if name not in IGNORED_NAMES))


def check_intrinsics(image: Omni3DImage, file: Path) -> None:
    """Raises DataError unless K is missing, or finite with focal lengths above zero."""
    matrix = image.intrinsics
    if matrix is None:
        return
    where = f'{file}: image {shown(image.name)}: "K"'
    if not all(math.isfinite(number) for row in matrix for number in row):
        raise DataError(f"{where} holds a number that is not finite.")
    if matrix[0][0] <= 0 or matrix[1][1] <= 0:
        raise DataError(
            f"{where} has the focal lengths {matrix[0][0]} and {matrix[1][1]}; expected more than 0 pixels. Fix them, "
            'or take "K" out if the camera is not known.'
        )


def to_cuboid(entry: Omni3DAnnotation, category: str, image: Omni3DImage, where: str) -> Cuboid | str:
    """One annotation, checked, or the reason to leave it out."""
    reason = ignored(entry, category)
    if reason is not None:
        return reason
    vertices = checked_vertices(entry.bbox3D_cam, where)
    if any(z <= 0 for _, _, z in vertices):
        return 'a corner behind the camera, though "behind_camera" is false'
    box = picture_box(entry, image, where)
    if box is None:
        return "no box in the picture"
    visibility = measured(entry.visibility, where, "visibility")
    truncation = measured(entry.truncation, where, "truncation")
    return Cuboid(entry.id, category, box, vertices, visibility, truncation)


def ignored(entry: Omni3DAnnotation, category: str) -> str | None:
    """Why Omni3D itself would not use the cuboid, None if it would; what is not measured is no reason."""
    if category in IGNORED_NAMES:
        return "a category to be ignored, such as dontcare"
    if not entry.valid3D:
        return 'no cuboid ("valid3D" is false)'
    if entry.behind_camera:
        return 'a corner behind the camera ("behind_camera")'
    if entry.dimensions is not None and any(side is None or side <= 0 for side in entry.dimensions):
        return 'a cuboid without extent ("dimensions")'
    if entry.lidar_pts == 0:
        return 'no LiDAR point on it ("lidar_pts" is 0)'
    if entry.segmentation_pts == 0:
        return 'no pixel of it visible ("segmentation_pts" is 0)'
    if entry.depth_error is not None and not entry.depth_error <= MAX_DEPTH_ERROR:
        return f'its depth map contradicts it ("depth_error" above {MAX_DEPTH_ERROR} m, or not a number)'
    return None


def checked_vertices(vertices: Vertices, where: str) -> tuple[Vertex, ...]:
    """The corners as they are.

    Raises:
        DataError: if one is not finite.
    """
    checked = tuple(
        (x, y, z)
        for x, y, z in vertices
        if x is not None and y is not None and z is not None and math.isfinite(x + y + z)
    )
    if len(checked) < len(vertices):
        raise DataError(
            f'{where}: "bbox3D_cam" holds a number that is not finite, or null; fix it or set "valid3D" to false.'
        )
    return checked


def picture_box(entry: Omni3DAnnotation, image: Omni3DImage, where: str) -> Box | None:
    """The tight box where one was annotated, else the cuboid's projection cut at the picture's edges."""
    for name, edges in (("bbox2D_tight", entry.bbox2D_tight), ("bbox2D_trunc", entry.bbox2D_trunc)):
        if edges != NO_BOX:
            return checked_box(edges, image, where, name)
    return None
