"""The pinhole camera of a scene, and the one frame in which everything is rendered and annotated.

World: x right, y down, z forward, metres; the ground is y = 0 and solid things have y < 0. Camera: x right, y down,
z along the optical axis, as in Omni3D. Sums are written out by component: no matrix library, so no machine-dependent
order of additions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def dot(a: Floats, b: Floats) -> Floats:
    """Inner product over the first axis, (3, ...) and (3, ...) -> (...)."""
    product: Floats = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return product


def rotate(rotation: Floats, vectors: Floats) -> Floats:
    """Rotation (3, 3) applied to vectors (3, ...)."""
    x, y, z = rotation.T.reshape(3, 3, *[1] * (vectors.ndim - 1))
    rotated: Floats = x * vectors[0] + y * vectors[1] + z * vectors[2]
    return rotated


class Camera(NamedTuple):
    """A level camera above the ground that looks forward and down.

    Attributes:
        height: metres above the ground.
        pitch: radians below the horizontal.
        focal: focal length in picture sides, so that the view is the same at every resolution.
    """

    height: float
    pitch: float
    focal: float

    @property
    def down(self) -> Floats:
        """The ground's normal, pointing into it, in the camera frame (3,): ground points satisfy down . p = height."""
        return np.array([0.0, math.cos(self.pitch), math.sin(self.pitch)])

    def intrinsics(self, side: int) -> list[list[float]]:
        """K in pixels for a square picture; pixel (0, 0) covers [0, 1) x [0, 1), its centre is (0.5, 0.5)."""
        return [[self.focal * side, 0.0, side / 2], [0.0, self.focal * side, side / 2], [0.0, 0.0, 1.0]]

    def from_world(self, x: float, y: float, z: float) -> tuple[float, float, float]:
        """World point to camera frame, metres."""
        cosine, sine = math.cos(self.pitch), math.sin(self.pitch)
        return x, cosine * (y + self.height) - sine * z, sine * (y + self.height) + cosine * z

    def turn(self, yaw: float) -> Floats:
        """Rotation (3, 3) from the frame of an object turned by yaw (radians, about the vertical) to the camera's."""
        cosine, sine = math.cos(self.pitch), math.sin(self.pitch)
        c, s = math.cos(yaw), math.sin(yaw)
        return np.array([[c, 0.0, s], [sine * s, cosine, -sine * c], [-cosine * s, sine, cosine * c]])

    def project(self, points: Floats, side: int) -> Floats:
        """Points (3, n) in the camera frame, in front of it, to pixel coordinates (2, n)."""
        return self.focal * side * points[:2] / points[2] + side / 2

    def rays(self, columns: Floats, rows: Floats, side: int) -> Floats:
        """Directions (3, rows, columns) through pixel coordinates; z is 1, so ray length equals depth in metres."""
        x = (columns - side / 2) / (self.focal * side)
        y = (rows - side / 2) / (self.focal * side)
        directions = np.ones((3, len(rows), len(columns)))
        directions[0] = x[None, :]
        directions[1] = y[:, None]
        return directions
