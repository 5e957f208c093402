"""From space to the picture: the edges of a cuboid as lines in pixels, cut where the camera no longer sees them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cambrian_data.cvbench.annotations import Matrix, Vertex

Floats = NDArray[np.float64]
Line = tuple[float, float, float, float]
"""From (x, y) to (x, y), pixels."""

EDGES = (
    *((0, 1), (1, 2), (2, 3), (3, 0)),  # the face of the first four corners
    *((4, 5), (5, 6), (6, 7), (7, 4)),  # the opposite face
    *((0, 4), (1, 5), (2, 6), (3, 7)),
)
"""Pairs of corners in the order of Omni3D's bbox3D_cam."""

NEAR = 1e-3
"""Metres in front of the camera: what lies nearer is cut off, as a point at the camera has no place in the picture."""


def project_edges(vertices: Sequence[Vertex], intrinsics: Matrix, width: int, height: int) -> list[Line]:
    """The visible part of each of the 12 edges, in the order of `EDGES`; edges that are out of sight are not there.

    A straight line in space is a straight line in the picture, so an edge that passes the camera is cut in space first
    (its hinder part would appear mirrored) and at the picture's border then.

    Args:
        vertices: the 8 corners, metres, camera frame.
        intrinsics: `K`, pixels.
        width: of the picture, pixels.
        height: of the picture, pixels.
    """
    corners = np.asarray(vertices, dtype=np.float64)
    camera = np.asarray(intrinsics, dtype=np.float64)
    lines = []
    for start, end in EDGES:
        segment = cut_near(corners[start], corners[end])
        if segment is None:
            continue
        line = cut_to_picture(to_pixels(segment[0], camera), to_pixels(segment[1], camera), width, height)
        if line is not None:
            lines.append(line)
    return lines


def cut_near(start: Floats, end: Floats) -> tuple[Floats, Floats] | None:
    """The part of a segment between two points (3,) that lies in front of the camera; None if none does."""
    start_depth, end_depth = start[2] - NEAR, end[2] - NEAR
    if start_depth < 0 and end_depth < 0:
        return None
    if start_depth >= 0 and end_depth >= 0:
        return start, end
    crossing = start + (end - start) * (start_depth / (start_depth - end_depth))
    return (crossing, end) if start_depth < 0 else (start, crossing)


def to_pixels(point: Floats, camera: Floats) -> Floats:
    """A point (3,) in front of the camera, by K (3, 3), as column and row (2,)."""
    x, y, scale = camera @ point
    return np.array([x / scale, y / scale])


def cut_to_picture(start: Floats, end: Floats, width: int, height: int) -> Line | None:
    """The part of a line between two points (2,) that lies in the picture; None if none does.

    Source: Liang and Barsky, A New Concept and Method for Line Clipping, ACM Transactions on Graphics 3(1), 1984.
    """
    step = end - start
    enter, leave = 0.0, 1.0
    for axis, side in ((0, width), (1, height)):
        for direction, room in ((-step[axis], start[axis]), (step[axis], side - start[axis])):
            if direction == 0:
                if room < 0:
                    return None
                continue
            crossing = room / direction
            if direction < 0:
                enter = max(enter, crossing)
            else:
                leave = min(leave, crossing)
    if enter > leave:
        return None
    first, last = start + enter * step, start + leave * step
    return float(first[0]), float(first[1]), float(last[0]), float(last[1])
