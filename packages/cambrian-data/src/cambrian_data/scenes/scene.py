"""A scene before it is a picture: camera, objects, light and background, a pure function of (seed, index).

Only `random.Random.random` is drawn from, whose sequence Python keeps from version to version.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from cambrian_data.scenes.camera import Camera
from cambrian_data.scenes.objects import COLOURS, KINDS, SceneObject
from cambrian_data.scenes.trace import trace

MIN_OBJECTS, MAX_OBJECTS = 2, 6
SIZE_RANGE = (0.7, 2.3)  # metres, multiplied by the proportions of the kind
HEIGHT_IN_PICTURE = (0.15, 0.42)  # projected height, in picture sides: recognisable and not overwhelming
FOOT_RANGE = (-0.25, 0.48)  # where objects stand, in picture sides below the middle
GAP = 0.1  # metres between the footprints' circles
REPEATED_SHARE = 0.6  # of the scenes repeat kinds
MIN_VISIBLE_FRACTION = 0.45
CHECK_SIDE = 64  # visibility is judged at this size, whatever the size of the picture
MIN_VISIBLE_PIXELS = 28  # at that size

Colour = tuple[float, float, float]
Choice = TypeVar("Choice")

GROUNDS: tuple[Colour, ...] = (
    (0.74, 0.69, 0.60),  # sand
    (0.58, 0.58, 0.60),  # concrete
    (0.42, 0.44, 0.47),  # slate
    (0.60, 0.50, 0.42),  # clay
    (0.52, 0.56, 0.46),  # moss
    (0.82, 0.82, 0.84),  # snow
)
SKIES: tuple[Colour, ...] = (
    (0.70, 0.80, 0.90),  # morning
    (0.90, 0.91, 0.92),  # overcast
    (0.92, 0.82, 0.72),  # evening
    (0.45, 0.50, 0.60),  # dusk
)


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that determines a picture but its size.

    Attributes:
        seed: of the set.
        index: in the set.
        camera: where it is seen from.
        objects: 2 to 6, no two of which touch.
        light: unit vector (x, y, z) towards the light, in the world.
        ground: colour of the ground at the camera's feet, RGB in 0..1.
        sky: colour of the horizon.
    """

    seed: int
    index: int
    camera: Camera
    objects: tuple[SceneObject, ...]
    light: tuple[float, float, float]
    ground: Colour
    sky: Colour


class Dice:
    """Seeded draws, made of `random.Random.random` alone."""

    def __init__(self, seed: int, index: int, purpose: str) -> None:
        # A string is hashed whole (SHA-512): seeds and indices never run into each other.
        self._random = random.Random(f"cambrian-data {purpose} {seed} {index}").random

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self._random()

    def pick(self, choices: Sequence[Choice]) -> Choice:
        """One of the choices."""
        return choices[int(self._random() * len(choices))]


def make_scene(seed: int, index: int) -> Scene:
    """Draws scene `index` of the set `seed`: same arguments, same scene, on every machine and at every picture size."""
    dice = Dice(seed, index, "scene")
    camera = Camera(dice.uniform(3.2, 4.2), math.radians(dice.uniform(23, 31)), dice.uniform(0.88, 1.02))
    light = draw_light(dice)
    ground, sky = vary(dice, dice.pick(GROUNDS)), vary(dice, dice.pick(SKIES))
    count = int(dice.uniform(MIN_OBJECTS, MAX_OBJECTS + 1))
    objects = draw_objects(dice, camera, count)
    while not all_visible(camera, objects):
        objects = draw_objects(dice, camera, count)
    return Scene(seed, index, camera, objects, light, ground, sky)


def draw_light(dice: Dice) -> tuple[float, float, float]:
    """A light 45 to 70 degrees high, behind the camera or to its side, so that what faces us is lit."""
    height, around = math.radians(dice.uniform(45, 70)), math.radians(dice.uniform(-100, 100))
    return (
        math.cos(height) * math.sin(around),
        -math.sin(height),
        -math.cos(height) * math.cos(around),
    )


def vary(dice: Dice, colour: Colour) -> Colour:
    """The colour, a little lighter or darker and a little tinted."""
    light = dice.uniform(0.85, 1.1)
    red, green, blue = (min(1.0, part * light * dice.uniform(0.97, 1.03)) for part in colour)
    return red, green, blue


def draw_objects(dice: Dice, camera: Camera, count: int) -> tuple[SceneObject, ...]:
    """Places `count` objects one after another."""
    kinds = draw_kinds(dice, count)
    placed: list[SceneObject] = []
    tries = 0
    while len(placed) < count:
        candidate = draw_object(dice, camera, kinds[len(placed)])
        if fits(candidate, placed, camera):
            placed.append(candidate)
        tries += 1
        if tries == 60:  # a crowded corner: begin anew
            placed, tries = [], 0
    return tuple(placed)


def draw_kinds(dice: Dice, count: int) -> list[str]:
    """The kinds of a scene: repeated ones, to be counted, or all different, so that a kind names one object."""
    if dice.uniform(0.0, 1.0) < REPEATED_SHARE:
        pool = [dice.pick(tuple(KINDS)) for _ in range(1 + int(dice.uniform(0, count)))]
        return [dice.pick(pool) for _ in range(count)]
    left, kinds = list(KINDS), []
    for _ in range(count):
        kinds.append(dice.pick(tuple(left)))
        left.remove(kinds[-1])
    return kinds


def draw_object(dice: Dice, camera: Camera, kind: str) -> SceneObject:
    """An object whose foot is seen at a drawn place of the picture, so that all its regions are used."""
    across, down = dice.uniform(-0.44, 0.44), dice.uniform(*FOOT_RANGE)
    z = camera.height / math.tan(camera.pitch + math.atan2(down, camera.focal))
    depth = camera.from_world(0.0, 0.0, z)[2]
    yaw = dice.uniform(-math.pi, math.pi)
    if kind == "ring":  # edge-on it would be a bar
        yaw *= 0.2
    width, height, length = KINDS[kind].dimensions
    tallness = (height + 0.4 * length) * camera.focal / depth  # in the picture, at size 1; `fits` looks closely
    smallest = max(SIZE_RANGE[0], HEIGHT_IN_PICTURE[0] / tallness)
    largest = min(SIZE_RANGE[1], HEIGHT_IN_PICTURE[1] / tallness)
    size = dice.uniform(smallest, max(smallest, largest))
    dimensions = (width * size, height * size, length * size)
    return SceneObject(kind, dice.pick(tuple(COLOURS)), dimensions, across / camera.focal * depth, z, yaw)


def fits(candidate: SceneObject, placed: list[SceneObject], camera: Camera) -> bool:
    """Whether it is whole in the picture, neither tiny nor huge there, and clear of the others."""
    for other in placed:
        if math.hypot(candidate.x - other.x, candidate.z - other.z) < candidate.radius + other.radius + GAP:
            return False
    if candidate.z < candidate.radius + 0.5:
        return False
    vertices = camera.project(candidate.pose(camera).vertices(), 1)
    low, high = vertices.min(axis=1), vertices.max(axis=1)
    shortest, longest = HEIGHT_IN_PICTURE
    tall = shortest <= high[1] - low[1] <= longest and high[0] - low[0] <= longest
    return bool(tall and low.min() > 0.01 and high.max() < 0.99)


def all_visible(camera: Camera, objects: tuple[SceneObject, ...]) -> bool:
    """Whether enough of every object can be seen."""
    seen = trace(camera, objects, CHECK_SIDE, samples=1)
    enough = (seen.visible >= MIN_VISIBLE_PIXELS) & (seen.visible >= MIN_VISIBLE_FRACTION * seen.alone)
    return bool(np.all(enough))
