"""The four questions worked out again: which answer is right, and whether the question may be asked."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.support.cvbench_oracle import seen
from tests.support.cvbench_oracle.raw import Picture, Thing, shown_name
from tests.support.cvbench_oracle.subjects import confusing
from tests.support.cvbench_oracle.wording import is_plural_of

Faults = list[tuple[str, str]]
SIDES = ({"left", "right"}, {"above", "below"})
UNCOUNTABLE = {"sky", "grass", "water", "sea", "sand", "snow", "earth", "food", "broccoli", "floor", "ceiling", "skis"}
NAMELESS = {"misc", "other", "others", "unknown", "object", "objects", "thing", "-"}
BACKGROUND = {"sky", "road", "floor", "wall", "ceiling", "grass", "sidewalk", "sea", "water", "earth", "sand", "field"}
ROUNDING = 1e-6


def count(row: dict[str, Any], asked: str, picture: Picture, rules: dict[str, Any]) -> tuple[str | None, Faults]:
    """How many there are, and what stands against asking."""
    names = sorted({name for name in picture.names if is_plural_of(asked, shown_name(name))})
    if len(names) != 1:
        return None, [("wording", f"{asked!r} is the plural of {names}; expected one category of the file")]
    faults: Faults = []
    if row["target_class"] not in names:
        faults.append(("target_class", f"{row['target_class']!r}; expected {names[0]!r}"))
    things = [thing for thing in picture.things if thing.name == names[0]]
    shown = shown_name(names[0])
    if any(thing.crowd for thing in things):
        faults.append(("crowd", f"{shown}: one annotation stands for several"))
    if any(thing.part for thing in picture.things if thing.shown == shown):
        faults.append(("complete", f"{shown}: some are annotated as parts of other things"))
    if shown.split(" ")[-1] in UNCOUNTABLE:
        faults.append(("countable", f"{shown} cannot be counted"))
    if not picture.is_complete:
        faults.append(("complete", f"{picture.source} does not say what is not there"))
    faults += [("unique", text) for text in confusing(shown, picture)]
    for thing in things:
        faults += [(f"seen.{rule}", text) for rule, text in seen.faults(thing, picture, rules["seen"])]
    if len(things) > rules["max_count"]:
        faults.append(("max_count", f"{len(things)}; expected {rules['max_count']} at most"))
    smallest = min((thing.area for thing in things), default=None)
    if not same_number(row["target_size"], smallest):
        faults.append(("target_size", f"{row['target_size']}; the smallest of them has {smallest} square pixels"))
    return str(len(things)), faults + count_choices(row, rules)


def same_number(first: float | None, second: float | None) -> bool:
    """Whether both are absent, or the same up to rounding."""
    return first is second if first is None or second is None else bool(np.isclose(first, second, rtol=0.02))


def count_choices(row: dict[str, Any], rules: dict[str, Any]) -> Faults:
    """Neighbouring whole numbers, as many as the rule says."""
    if not all(choice.isdecimal() for choice in row["choices"]):
        return [("choices", f"{row['choices']}; expected whole numbers")]
    numbers = sorted(int(choice) for choice in row["choices"])
    if len(numbers) != rules["num_choices"]:
        return [("choices", f"{len(numbers)} of them; expected {rules['num_choices']}")]
    near = list(range(numbers[0], numbers[0] + len(numbers)))
    return [] if numbers == near else [("choices", f"{numbers} are not neighbours")]


def relation(
    row: dict[str, Any], things: Sequence[Thing], picture: Picture, rules: dict[str, Any]
) -> tuple[str | None, Faults]:
    """Where the first thing is from the second, and what stands against asking."""
    if set(row["choices"]) not in SIDES:
        return None, [("choices", f"{row['choices']}; expected left and right, or above and below")]
    is_across = "left" in row["choices"]
    low, high, side = (0, 2, picture.width) if is_across else (1, 3, picture.height)
    (start, end), (other_start, other_end) = ((thing.box[low], thing.box[high]) for thing in things)
    apart = (other_start + other_end - start - end) / 2
    before, after = ("left", "right") if is_across else ("above", "below")
    faults = same_kinds(things)
    faults += [("crowd", f"{thing.shown} {thing.id} stands for several") for thing in things if thing.crowd]
    faults += [("background", f"{thing.shown} has no place") for thing in things if thing.shown in BACKGROUND]
    if abs(apart) < rules["margin"] * side - ROUNDING:
        faults.append(("margin", f"centres are {abs(apart)} pixels apart; expected {rules['margin'] * side}"))
    common = min(end, other_end) - max(start, other_start)
    shorter = min(end - start, other_end - other_start)
    if common > rules["max_overlap"] * shorter + ROUNDING:
        faults.append(("max_overlap", f"they share {common} of {shorter} pixels"))
    return before if apart > 0 else after, faults


def same_kinds(things: Sequence[Thing]) -> Faults:
    """All things of a question are of different categories, whose names mean something."""
    names = [thing.name for thing in things]
    faults = [("name", f"{thing.shown} names nothing") for thing in things if thing.shown in NAMELESS]
    return [*faults, ("categories", f"{names} are not all different")] if len(set(names)) < len(names) else faults


def depth(
    row: dict[str, Any], things: Sequence[Thing], picture: Picture, rules: dict[str, Any]
) -> tuple[str | None, Faults]:
    """Which of the two is closer to the camera, and what stands against asking."""
    return closer(row, things, things, np.zeros(3), picture, rules)


def distance(
    row: dict[str, Any], things: Sequence[Thing], picture: Picture, rules: dict[str, Any]
) -> tuple[str | None, Faults]:
    """Which of the last two is closer to the first, and what stands against asking."""
    return closer(row, things, things[1:], things[0].vertices.mean(axis=0), picture, rules)


def closer(
    row: dict[str, Any],
    things: Sequence[Thing],
    pair: Sequence[Thing],
    origin: np.ndarray,
    picture: Picture,
    rules: dict[str, Any],
) -> tuple[str | None, Faults]:
    """Which of a pair is closer to a point: all of its vertices nearer than all of the other's, by the margin."""
    faults = same_kinds(things)
    if set(row["choices"]) != {thing.shown for thing in pair}:
        faults.append(("choices", f"{row['choices']}; expected the names of {[thing.shown for thing in pair]}"))
    if any((thing.vertices[:, 2] <= 0).any() for thing in things):
        faults.append(("behind", "a vertex is behind the camera"))
    reach = [np.sqrt(((thing.vertices - origin) ** 2).sum(axis=1)) for thing in pair]
    near = min((0, 1), key=lambda number: reach[number].max())
    farthest, nearest = reach[near].max(), reach[1 - near].min()
    if nearest < farthest * (1 + rules["margin"]) - ROUNDING:
        faults.append(("margin", f"{farthest:.3f} m against {nearest:.3f} m, less than {rules['margin']} apart"))
    faults += overlaps(things, rules["max_overlap"])
    if "max_covered" in rules:
        faults += covered(things, picture, rules["max_covered"])
    if rules["only_unique"]:
        faults += not_alone(things, picture)
    return pair[near].shown, faults


def overlaps(things: Sequence[Thing], most: float) -> Faults:
    """Boxes in the picture that hide each other."""
    faults: Faults = []
    for number, one in enumerate(things):
        for other in things[number + 1 :]:
            part = seen.shared(one.box, other.box) / min(seen.size(one.box), seen.size(other.box))
            if part > most + ROUNDING:
                faults.append(("max_overlap", f"{one.shown} and {other.shown} share {part:.3f} of the smaller box"))
    return faults


def covered(things: Sequence[Thing], picture: Picture, most: float) -> Faults:
    """Things whose box is covered by that of one that is surely nearer, where visibility was not measured."""
    faults: Faults = []
    for thing in things:
        if thing.visibility is not None:
            continue
        start = np.linalg.norm(thing.vertices, axis=1).min()
        for other in picture.things:
            is_nearer = other is not thing and np.linalg.norm(other.vertices, axis=1).max() < start
            part = seen.shared(thing.box, other.box) / seen.size(thing.box)
            if is_nearer and part > most + ROUNDING:
                faults.append(("max_covered", f"{part:.3f} of {thing.shown} {thing.id} is behind {other.shown}"))
    return faults


def not_alone(things: Sequence[Thing], picture: Picture) -> Faults:
    """Things that are not the only ones of their category."""
    counts = {thing.id: sum(other.name == thing.name for other in picture.things) for thing in things}
    return [
        ("unique", f"{thing.shown} {thing.id} is one of {counts[thing.id]}") for thing in things if counts[thing.id] > 1
    ]
