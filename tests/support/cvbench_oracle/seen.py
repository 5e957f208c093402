"""Whether a thing may be asked about: size, visibility, truncation, covering."""

import math
from typing import Any

from tests.support.cvbench_oracle.raw import Box, Picture, Thing

TINY = 1e-9  # of rounding
PEOPLE = {"person", "pedestrian", "man", "woman", "child", "boy", "girl", "rider", "cyclist"}

ANSWERED = {"min_area", "min_side", "min_visibility", "max_truncation", "max_area", "inside", "people_inside"}
"""The rules of a `seen` group that the judge knows; a new one must be added here, or the judge says so."""


def width(box: Box) -> float:
    """Pixels."""
    return box[2] - box[0]


def height(box: Box) -> float:
    """Pixels."""
    return box[3] - box[1]


def size(box: Box) -> float:
    """Square pixels."""
    return max(0.0, width(box)) * max(0.0, height(box))


def shared(first: Box, second: Box) -> float:
    """Square pixels that two boxes have in common."""
    left, top = max(first[0], second[0]), max(first[1], second[1])
    right, bottom = min(first[2], second[2]), min(first[3], second[3])
    return size((left, top, max(left, right), max(top, bottom)))


def faults(thing: Thing, picture: Picture, rules: dict[str, Any]) -> list[tuple[str, str]]:
    """The rules of a `seen` group that the thing breaks, each with what was found."""
    whole = picture.width * picture.height
    shorter = min(width(thing.box), height(thing.box))
    gap = min(thing.box[0], thing.box[1], picture.width - thing.box[2], picture.height - thing.box[3])
    found = [
        ("min_area", thing.area < rules["min_area"] * whole - TINY, f"{thing.area} of {whole} square pixels"),
        ("min_side", shorter < rules["min_side"] - TINY, f"{shorter} pixels"),
        (
            "min_visibility",
            thing.visibility is not None and thing.visibility < rules["min_visibility"] - TINY,
            f"{thing.visibility} is seen",
        ),
        (
            "max_truncation",
            thing.truncation is not None and thing.truncation > rules["max_truncation"] + TINY,
            f"{thing.truncation} is outside",
        ),
        (
            "max_area",
            "max_area" in rules and size(thing.box) > rules["max_area"] * whole + TINY,
            f"its box has {size(thing.box)} of {whole} square pixels",
        ),
        ("inside", gap < rules.get("inside", -math.inf), f"{gap} pixels from the edge"),
        (
            "people_inside",
            thing.shown in PEOPLE and gap < rules.get("people_inside", -math.inf),
            f"{gap} pixels from the edge",
        ),
    ]
    return [(rule, f"{thing.shown} {thing.id}: {text}") for rule, broken, text in found if broken]
