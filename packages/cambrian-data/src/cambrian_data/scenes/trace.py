"""Which object each sample of a picture sees: rays against every solid inside its projected box, nearest first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cambrian_data.scenes.camera import Camera, Floats
from cambrian_data.scenes.objects import KINDS, Pose, SceneObject


class Trace(NamedTuple):
    """What the samples of a picture see; samples are a grid of `samples` x `samples` in every pixel.

    Attributes:
        owner: (side * samples, side * samples), 0 for the background, k + 1 for object k.
        depth: the same shape, metres along the optical axis, inf for the background.
        alone: (objects,), how many samples each object would cover if it stood alone.
        visible: (objects,), how many it covers.
    """

    owner: NDArray[np.uint8]
    depth: Floats
    alone: NDArray[np.int64]
    visible: NDArray[np.int64]


def centres(start: int, stop: int, samples: int) -> Floats:
    """Pixel coordinates of samples start to stop; with an odd count the middle one is the pixel's own centre."""
    return (np.arange(start, stop) + 0.5) / samples


def window(points: Floats, side: int, samples: int = 1) -> tuple[int, int, int, int]:
    """The samples (left, top, right, bottom) that hold all the pixel coordinates (2, n), inside the picture."""
    low = np.clip(np.floor(points.min(axis=1) * samples), 0, side * samples)
    high = np.clip(np.ceil(points.max(axis=1) * samples), 0, side * samples)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def cast(thing: SceneObject, pose: Pose, rays: Floats) -> Floats:
    """Depth in metres, shape rays.shape[1:], at which rays (3, ...) from the camera meet the object; inf for none."""
    origin = pose.to_unit(-pose.centre)
    return KINDS[thing.kind].hit(origin, pose.to_unit(rays))


def trace(camera: Camera, objects: tuple[SceneObject, ...], side: int, samples: int) -> Trace:
    """Sees the scene through `samples` x `samples` rays a pixel."""
    owner = np.zeros((side * samples, side * samples), dtype=np.uint8)
    depth = np.full(owner.shape, np.inf)
    alone = np.zeros(len(objects), dtype=np.int64)
    with np.errstate(divide="ignore", invalid="ignore"):
        for number, thing in enumerate(objects):
            pose = thing.pose(camera)
            left, top, right, bottom = window(camera.project(pose.vertices(), side), side, samples)
            rays = camera.rays(centres(left, right, samples), centres(top, bottom, samples), side)
            found = cast(thing, pose, rays)
            alone[number] = np.isfinite(found).sum()
            nearer = found < depth[top:bottom, left:right]
            depth[top:bottom, left:right][nearer] = found[nearer]
            owner[top:bottom, left:right][nearer] = number + 1
    visible = np.bincount(owner.ravel(), minlength=len(objects) + 1)[1:]
    return Trace(owner, depth, alone, visible)
