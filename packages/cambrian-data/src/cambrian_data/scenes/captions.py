"""Dense captions: every visible object of a scene with colour, kind and place, in plain English, from left to right."""

from __future__ import annotations

from typing import NamedTuple

from cambrian_data.records import Record
from cambrian_data.scenes.annotate import file_name, visible_box
from cambrian_data.scenes.objects import KINDS
from cambrian_data.scenes.render import Rendering
from cambrian_data.scenes.scene import Dice, Scene

SOURCE = "scenes"

PROMPTS = (
    "Describe every object in the picture.",
    "What objects are in the picture?",
    "List all objects with their colours and places.",
    "What do you see, and where?",
    "Name each object and say where it is.",
    "Describe the picture.",
)

PLACES = (
    ("on the upper left", "at the top", "on the upper right"),
    ("on the left", "in the middle", "on the right"),
    ("on the lower left", "at the bottom", "on the lower right"),
)

NUMBERS = ("no", "one", "two", "three", "four", "five", "six")


class Mention(NamedTuple):
    """What a caption says of an object."""

    colour: str
    kind: str
    place: str


def place(x: float, y: float) -> str:
    """Words for a point of the picture, x and y in 0..1 from the upper left: the ninth it lies in."""
    return PLACES[min(2, int(y * 3))][min(2, int(x * 3))]


def mentions(scene: Scene, rendering: Rendering) -> list[Mention]:
    """The visible objects by the centres of their boxes, from left to right, higher ones first where equal."""
    side = len(rendering.instances)
    found = []
    for number, thing in enumerate(scene.objects):
        box = visible_box(rendering.instances == number + 1)
        if box is not None:
            x, y = (box.left + box.right) / (2 * side), (box.top + box.bottom) / (2 * side)
            found.append((x, y, Mention(thing.colour, thing.kind, place(x, y))))
    return [mention for _, _, mention in sorted(found)]


def phrase(mention: Mention, count: int) -> str:
    """`a red ball on the left`, `two red balls on the left`."""
    if count == 1:
        article = "an" if mention.colour[0] in "aeiou" else "a"
        return f"{article} {mention.colour} {mention.kind} {mention.place}"
    return f"{NUMBERS[count]} {mention.colour} {KINDS[mention.kind].plural} {mention.place}"


def caption(found: list[Mention]) -> str:
    """One sentence that names every object; those that would be named alike are counted together.

    >>> caption([Mention("red", "ball", "on the left"), Mention("blue", "cube", "in the middle")])
    'There are two objects: a red ball on the left and a blue cube in the middle.'
    """
    counts: dict[Mention, int] = {}
    for mention in found:
        counts[mention] = counts.get(mention, 0) + 1
    phrases = [phrase(mention, count) for mention, count in counts.items()]
    if not phrases:
        return "There are no objects."
    listed = (
        phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])}{',' * (len(phrases) > 2)} and {phrases[-1]}"
    )
    verb, noun = ("is", "object") if len(found) == 1 else ("are", "objects")
    return f"There {verb} {NUMBERS[len(found)]} {noun}: {listed}."


def caption_record(scene: Scene, rendering: Rendering) -> Record:
    """The picture with a question, one of several wordings by seed, and its caption."""
    prompt = Dice(scene.seed, scene.index, "prompt").pick(PROMPTS)
    return Record(
        id=f"scenes-{scene.seed}-{scene.index:06d}",
        source=SOURCE,
        messages=[
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]},
            {"role": "assistant", "content": [{"type": "text", "text": caption(mentions(scene, rendering))}]},
        ],
        images=[f"images/{file_name(scene.index)}"],
    )
