"""The solids: where a ray meets each kind, which way its surface faces, and how an object stands in the world.

Every kind is defined once, inside the unit box [-1/2, 1/2]^3 with y down; an object scales that box to its dimensions.
Scaling a ray keeps its length parameter, so distances come out in metres. Surfaces are solved in closed form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cambrian_data.scenes.camera import Camera, Floats, dot, rotate

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.13, 0.12),
    "green": (0.13, 0.66, 0.20),
    "blue": (0.13, 0.28, 0.92),
    "yellow": (0.98, 0.85, 0.10),
    "purple": (0.60, 0.18, 0.74),
    "cyan": (0.10, 0.80, 0.88),
}

RING_HOLE = 0.31  # radius of the hole where the ring's own is 0.5

# Half-spaces n . p <= k as (nx, ny, nz, k). The pyramid's tip is up, at y = -1/2.
CUBE_PLANES = ((1, 0, 0, 0.5), (-1, 0, 0, 0.5), (0, 1, 0, 0.5), (0, -1, 0, 0.5), (0, 0, 1, 0.5), (0, 0, -1, 0.5))
PYRAMID_PLANES = ((1, -0.5, 0, 0.25), (-1, -0.5, 0, 0.25), (0, -0.5, 1, 0.25), (0, -0.5, -1, 0.25), (0, 1, 0, 0.5))

Mask = NDArray[np.bool_]
Planes = tuple[tuple[float, float, float, float], ...]


def nearest(*candidates: tuple[Floats, Mask]) -> Floats:
    """The smallest positive length among (length, is it on the surface) pairs; inf where there is none."""
    lengths = [np.where(valid & (length > 1e-6), length, np.inf) for length, valid in candidates]
    return np.minimum.reduce(lengths)


def roots(a: Floats, b: Floats, c: Floats) -> tuple[Floats, Floats]:
    """Both solutions of a t^2 + 2 b t + c = 0, NaN where there is none."""
    root = np.sqrt(b * b - a * c)
    return (-b - root) / a, (-b + root) / a


def hit_ball(origin: Floats, direction: Floats) -> Floats:
    """Ray length to the ball of radius 1/2."""
    first, second = roots(dot(direction, direction), dot(origin, direction), dot(origin, origin) - 0.25)
    return nearest((first, first > 0), (second, second > 0))


def hit_polyhedron(planes: Planes, origin: Floats, direction: Floats) -> Floats:
    """Ray length to a convex solid given by half-spaces."""
    enter: Floats | float = -np.inf
    leave: Floats | float = np.inf
    for x, y, z, bound in planes:
        slope = x * direction[0] + y * direction[1] + z * direction[2]
        length = (bound - (x * origin[0] + y * origin[1] + z * origin[2])) / slope
        enter = np.maximum(enter, np.where(slope < 0, length, -np.inf))
        leave = np.minimum(leave, np.where(slope > 0, length, np.inf))
    return np.where((enter <= leave) & (leave > 1e-6), enter, np.inf)


def hit_cylinder(origin: Floats, direction: Floats) -> Floats:
    """Ray length to the upright cylinder of radius 1/2."""
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    sides = roots(dx * dx + dz * dz, ox * dx + oz * dz, ox * ox + oz * oz - 0.25)
    top, bottom = (-0.5 - oy) / dy, (0.5 - oy) / dy
    return nearest(
        *((length, np.abs(oy + length * dy) <= 0.5) for length in sides),
        *((length, (ox + length * dx) ** 2 + (oz + length * dz) ** 2 <= 0.25) for length in (top, bottom)),
    )


def hit_cone(origin: Floats, direction: Floats) -> Floats:
    """Ray length to the upright cone of base radius 1/2, its tip at y = -1/2."""
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    radius, slope = (oy + 0.5) / 2, dy / 2  # the cone's radius at the origin's height, and its growth along the ray
    a, b, c = dx * dx + dz * dz - slope**2, ox * dx + oz * dz - radius * slope, ox * ox + oz * oz - radius**2
    base = (0.5 - oy) / dy
    return nearest(
        *((length, np.abs(oy + length * dy) <= 0.5) for length in roots(a, b, c)),
        (base, (ox + base * dx) ** 2 + (oz + base * dz) ** 2 <= 0.25),
    )


def hit_ring(origin: Floats, direction: Floats) -> Floats:
    """Ray length to the standing ring of radius 1/2, its hole along z."""
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    a, b, c = dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy
    rims = *roots(a, b, c - 0.25), *roots(a, b, c - RING_HOLE**2)
    candidates = [(length, np.abs(oz + length * dz) <= 0.5) for length in rims]
    for length in ((-0.5 - oz) / dz, (0.5 - oz) / dz):
        squared = (ox + length * dx) ** 2 + (oy + length * dy) ** 2
        candidates.append((length, (squared <= 0.25) & (squared >= RING_HOLE**2)))
    return nearest(*candidates)


def ball_normal(point: Floats) -> Floats:
    """Outward direction at surface points (3, n), any length; so for all the functions below."""
    return point


def polyhedron_normal(planes: Planes, point: Floats) -> Floats:
    """The normal of the half-space whose plane is nearest."""
    distances = np.stack([x * point[0] + y * point[1] + z * point[2] - bound for x, y, z, bound in planes])
    normals = np.array([plane[:3] for plane in planes], dtype=np.float64)
    return normals[distances.argmax(axis=0)].T


def cylinder_normal(point: Floats) -> Floats:
    """Up or down on the ends, outwards on the side."""
    x, y, z = point
    end = y * y > x * x + z * z
    return np.stack([np.where(end, 0, x), np.where(end, y, 0), np.where(end, 0, z)])


def cone_normal(point: Floats) -> Floats:
    """Down on the base, outwards and up on the side."""
    x, y, z = point
    base = y > 0.5 - 1e-9
    return np.stack([np.where(base, 0, x), np.where(base, 1, -(y + 0.5) / 4), np.where(base, 0, z)])


def ring_normal(point: Floats) -> Floats:
    """Along z on the faces, outwards on the rim, inwards in the hole."""
    x, y, z = point
    face = np.abs(z) > 0.5 - 1e-9
    sign = np.where(x * x + y * y > ((0.5 + RING_HOLE) / 2) ** 2, 1.0, -1.0)
    return np.stack([np.where(face, 0, sign * x), np.where(face, 0, sign * y), np.where(face, z, 0)])


class Kind(NamedTuple):
    """One kind of solid.

    Attributes:
        hit: (origin (3,) or (3, n), direction (3, n) or (3,)) -> ray length (n,), inf where it misses.
        normal: surface points (3, n) -> outward directions (3, n).
        dimensions: width, height, length of an object of size 1, the order of Omni3D.
        plural: its name for several.
    """

    hit: Callable[[Floats, Floats], Floats]
    normal: Callable[[Floats], Floats]
    dimensions: tuple[float, float, float]
    plural: str


def polyhedron(planes: Planes, dimensions: tuple[float, float, float], plural: str) -> Kind:
    """A kind bounded by planes."""
    return Kind(
        lambda origin, direction: hit_polyhedron(planes, origin, direction),
        lambda point: polyhedron_normal(planes, point),
        dimensions,
        plural,
    )


KINDS: dict[str, Kind] = {
    "ball": Kind(hit_ball, ball_normal, (1.0, 1.0, 1.0), "balls"),
    "cube": polyhedron(CUBE_PLANES, (0.9, 0.9, 0.9), "cubes"),
    "cylinder": Kind(hit_cylinder, cylinder_normal, (0.75, 1.15, 0.75), "cylinders"),
    "cone": Kind(hit_cone, cone_normal, (0.9, 1.4, 0.9), "cones"),
    "pyramid": polyhedron(PYRAMID_PLANES, (1.2, 0.85, 1.2), "pyramids"),
    "ring": Kind(hit_ring, ring_normal, (0.3, 1.2, 1.2), "rings"),
}


class SceneObject(NamedTuple):
    """A solid that stands on the ground.

    Attributes:
        kind: a key of KINDS.
        colour: a key of COLOURS.
        dimensions: width, height, length in metres (along its own z, y, x), the order of Omni3D.
        x: metres to the right of the camera.
        z: metres in front of it, along the ground.
        yaw: radians about the vertical.
    """

    kind: str
    colour: str
    dimensions: tuple[float, float, float]
    x: float
    z: float
    yaw: float

    @property
    def radius(self) -> float:
        """Of the circle on the ground that holds its footprint, metres."""
        width, _, length = self.dimensions
        return float((width * width + length * length) ** 0.5) / 2

    def pose(self, camera: Camera) -> Pose:
        """Where it is as the camera sees it."""
        centre = camera.from_world(self.x, -self.dimensions[1] / 2, self.z)
        width, height, length = self.dimensions
        return Pose(np.array(centre), camera.turn(self.yaw), np.array([length, height, width]))


# Omni3D's order: v0..v3 around the near face (z = -1/2) from its upper left, v4..v7 behind them; x, y, z of each.
VERTICES = np.array(
    [
        [-0.5, 0.5, 0.5, -0.5, -0.5, 0.5, 0.5, -0.5],
        [-0.5, -0.5, 0.5, 0.5, -0.5, -0.5, 0.5, 0.5],
        [-0.5, -0.5, -0.5, -0.5, 0.5, 0.5, 0.5, 0.5],
    ]
)


class Pose(NamedTuple):
    """An object's box in the camera frame.

    Attributes:
        centre: (3,), metres.
        rotation: (3, 3), from the box's axes to the camera's.
        extent: (3,), along the box's own x, y and z, metres.
    """

    centre: Floats
    rotation: Floats
    extent: Floats

    def vertices(self) -> Floats:
        """The box's corners (3, 8), metres, in the order of Omni3D's bbox3D_cam."""
        return rotate(self.rotation, VERTICES * self.extent[:, None]) + self.centre[:, None]

    def to_unit(self, directions: Floats) -> Floats:
        """Camera-frame directions (3, n) to the axes and scale of the unit box."""
        return rotate((self.rotation / self.extent).T, directions)

    def normals(self, unit_normals: Floats) -> Floats:
        """Unit-box normals (3, n) to the camera frame, of length 1."""
        normals = rotate(self.rotation / self.extent, unit_normals)
        return normals / np.sqrt(dot(normals, normals))
