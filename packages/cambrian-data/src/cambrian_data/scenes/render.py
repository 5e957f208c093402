"""Scene -> pixels and instance map: traced solids with Lambert shading on a ground with cast shadows, under a sky."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cambrian_data.scenes.camera import Camera, Floats, dot, rotate
from cambrian_data.scenes.objects import COLOURS, KINDS, SceneObject
from cambrian_data.scenes.scene import Scene
from cambrian_data.scenes.trace import Trace, centres, trace, window

SAMPLES = 3  # rays a pixel, each way; odd, so that the middle one is the pixel's centre
AMBIENT, DIFFUSE = 0.48, 0.58
SHADOW = 0.5  # how much of the ground's light a shadow takes


class Rendering(NamedTuple):
    """A picture and what each of its pixels shows.

    Attributes:
        pixels: uint8 (side, side, 3), RGB.
        instances: uint8 (side, side), what the ray through the pixel's centre meets: 0 background, k + 1 object k.
        visibility: (objects,), the part of each object's own silhouette that no other hides, 0..1.
    """

    pixels: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    visibility: Floats


def render(scene: Scene, side: int) -> Rendering:
    """Renders a scene as a square picture of `side` pixels; a pure function of its arguments."""
    seen = trace(scene.camera, scene.objects, side, SAMPLES)
    light = rotate(scene.camera.turn(0.0), np.array(scene.light))
    with np.errstate(divide="ignore", invalid="ignore"):
        background = paint_background(scene, light, side)
        solids, covered = paint_solids(scene, seen, light, side)
    picture = background * (1 - covered)[..., None] + solids
    pixels = np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)
    instances = seen.owner[SAMPLES // 2 :: SAMPLES, SAMPLES // 2 :: SAMPLES].copy()
    return Rendering(pixels, instances, seen.visible / np.maximum(seen.alone, 1))


def paint_solids(scene: Scene, seen: Trace, light: Floats, side: int) -> tuple[Floats, Floats]:
    """The objects' shaded colours (side, side, 3) on black, and the part of each pixel that they cover (side, side)."""
    owner = seen.owner.ravel()
    samples = np.flatnonzero(owner)
    owner, rows, columns = owner[samples], *np.divmod(samples, side * SAMPLES)
    depth = seen.depth.ravel()[samples]
    colours = np.empty((len(samples), 3))
    for number, thing in enumerate(scene.objects):
        own = owner == number + 1
        brightness = shade(scene.camera, thing, depth[own], rows[own], columns[own], light, side)
        colours[own] = brightness[:, None] * np.array(COLOURS[thing.colour])
    pixel = (rows // SAMPLES) * side + columns // SAMPLES
    solids = np.empty((side * side, 3))
    for channel in range(3):
        solids[:, channel] = np.bincount(pixel, weights=colours[:, channel], minlength=side * side)
    covered = np.bincount(pixel, minlength=side * side)
    return solids.reshape(side, side, 3) / SAMPLES**2, covered.reshape(side, side) / SAMPLES**2


def shade(
    camera: Camera,
    thing: SceneObject,
    depth: Floats,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    light: Floats,
    side: int,
) -> Floats:
    """Brightness (n,) of the object's surface at n samples."""
    focal = camera.focal * side
    u, v = (columns + 0.5) / SAMPLES, (rows + 0.5) / SAMPLES
    points = depth * np.stack([(u - side / 2) / focal, (v - side / 2) / focal, np.ones_like(u)])
    pose = thing.pose(camera)
    surface = pose.to_unit(points - pose.centre[:, None])
    normals = pose.normals(KINDS[thing.kind].normal(surface))
    return AMBIENT + DIFFUSE * np.maximum(dot(normals, light[:, None]), 0.0)


def paint_background(scene: Scene, light: Floats, side: int) -> Floats:
    """Ground with shadows, paling towards the horizon, and sky, (side, side, 3).

    The camera is level, so all but the shadows is the same along a row.
    """
    camera = scene.camera
    grid = centres(0, side, 1)
    rays = camera.rays(grid, grid, side)
    below = dot(camera.down, rays[:, :, :1])
    depth = np.where(below > 1e-6, camera.height / below, np.inf)
    near, horizon = np.array(scene.ground), np.array(scene.sky)
    haze = 0.55 * (1 - 12 / (12 + depth))
    ground = near + (0.5 * (near + horizon) - near) * haze
    sky = horizon - horizon * np.array([0.25, 0.15, 0.0]) * np.clip(-below * 2.5, 0, 1)
    edge = np.clip(below * camera.focal * side + 0.5, 0, 1)
    lit = 1 - SHADOW * soften(shadows(scene, rays, depth, light, side), max(1, side // 64))
    return (ground * edge)[:, None] * lit[..., None] + (sky * (1 - edge))[:, None]


def shadows(scene: Scene, rays: Floats, depth: Floats, light: Floats, side: int) -> NDArray[np.bool_]:
    """Which ground pixels (side, side) an object hides from the light; depth of the ground (side, 1), inf for sky."""
    dark = np.zeros((side, side), dtype=bool)
    down, height = scene.camera.down, scene.camera.height
    for thing in scene.objects:
        pose = thing.pose(scene.camera)
        vertices = pose.vertices()
        fall = (height - dot(down[:, None], vertices)) / dot(down, -light)
        landed = vertices - fall * light[:, None]
        points = landed if landed[2].min() > 0.2 else vertices  # a shadow that reaches the camera is cut short
        outline = np.concatenate([scene.camera.project(points, side), scene.camera.project(vertices, side)], axis=1)
        left, top, right, bottom = window(outline, side)
        area = np.s_[top:bottom, left:right]
        ground = rays[:, top:bottom, left:right] * np.minimum(depth[top:bottom], 1e6)
        origin = pose.to_unit(ground - pose.centre[:, None, None])
        direction = pose.to_unit(light).reshape(3, 1, 1)
        dark[area] |= np.isfinite(KINDS[thing.kind].hit(origin, direction))
    return dark


def soften(mask: NDArray[np.bool_], radius: int) -> Floats:
    """Mean of the mask over squares of 2 * radius + 1 pixels, edges repeated; counted in integers, so exact."""
    size = 2 * radius + 1
    total = np.pad(mask.astype(np.int64), radius + 1, mode="edge").cumsum(axis=0).cumsum(axis=1)
    total = total[size:, :] - total[:-size, :]
    total = total[:, size:] - total[:, :-size]
    return total[: mask.shape[0], : mask.shape[1]] / size**2
