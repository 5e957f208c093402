"""The published templates, read backwards: which things a question names, and which of them it says are boxed."""

import re
from typing import NamedTuple

RED, BLUE, GREEN = "red", "blue", "green"
COUNT = re.compile(r"How many (?P<many>[^?]+) are in the image\?")
RELATION = re.compile(
    r"Considering the relative positions of the (?P<first>.+?)(?P<red> \(annotated by the red box\))? and the "
    r"(?P<second>.+?)(?P<blue> \(annotated by the blue box\))? in the image provided, where (?P<verb>is|are) the "
    r"(?P=first)(?P<red_again> \(annotated by the red box\))? located with respect to the "
    r"(?P=second)(?P<blue_again> \(annotated by the blue box\))?\?"
)
DEPTH = re.compile(
    r"Which object is closer to the camera taking this photo, the (?P<first>.+?) \(highlighted by a red box\) or the "
    r"(?P<second>.+?) \(highlighted by a blue box\)\?"
)
DISTANCE = re.compile(
    r"Estimate the real-world distances between objects in this image\. Which object is closer to the (?P<first>.+?) "
    r"\(highlighted by a red box\), the (?P<second>.+?) \(highlighted by a blue box\) or the (?P<third>.+?) "
    r"\(highlighted by a green box\)\?"
)
TEMPLATES = {"Count": COUNT, "Relation": RELATION, "Depth": DEPTH, "Distance": DISTANCE}

ALWAYS_PLURAL = {"scissors", "skis", "glasses", "eyeglasses", "sunglasses", "shelves", "books", "stairs", "curtains"}
ALWAYS_PLURAL |= {"trousers", "pants", "shorts", "blinds", "flowers", "clothes", "headphones", "steps", "goggles"}
IRREGULAR = {"person": "people", "mouse": "mice", "knife": "knives", "sheep": "sheep", "skis": "skis"}
IRREGULAR |= {"scissors": "scissors", "shelf": "shelves", "man": "men", "woman": "women", "child": "children"}
IRREGULAR |= {"leaf": "leaves", "foot": "feet", "tooth": "teeth", "loaf": "loaves", "broccoli": "broccoli"}
IRREGULAR |= {"potato": "potatoes", "tomato": "tomatoes", "bookshelf": "bookshelves", "wolf": "wolves"}
SIBILANTS = ("s", "x", "z", "ch", "sh")


class Named(NamedTuple):
    """One thing of a question.

    Attributes:
        name: as the question says it; the plural in Count.
        colour: of the box that the question says is drawn, None if it says none.
    """

    name: str
    colour: str | None


class Asked(NamedTuple):
    """What a question says.

    Attributes:
        named: Count: what is counted. Relation: the thing located, the reference. Depth: the things in the red and the
            blue box. Distance: the reference, then those in the blue and the green box.
        verb: is or are, in Relation.
    """

    named: tuple[Named, ...]
    verb: str | None = None


def read(task: str, question: str) -> Asked | None:
    """What the question says; None if its words are not the published ones."""
    match = TEMPLATES[task].fullmatch(question)
    if match is None:
        return None
    if task == "Count":
        return Asked((Named(match["many"], None),))
    if task == "Relation":
        if (match["red"], match["blue"]) != (match["red_again"], match["blue_again"]):
            return None
        red, blue = (RED if match["red"] else None), (BLUE if match["blue"] else None)
        return Asked((Named(match["first"], red), Named(match["second"], blue)), match["verb"])
    colours = zip(("first", "second", "third"), (RED, BLUE, GREEN), strict=True)
    return Asked(tuple(Named(match[group], colour) for group, colour in colours if group in match.groupdict()))


def is_plural_of(text: str, name: str) -> bool:
    """Whether a text is the plural of a name; "persons" is one as well."""
    return text in (many(name), many(name).replace("people", "persons"))


def many(name: str) -> str:
    """The plural of a name, of its last word, or of the word before "of": pairs of skis, bottles of beer."""
    head, of, rest = name.partition(" of ")
    *before, last = head.split(" ")
    return " ".join([*before, plural(last)]) + of + rest


def plural(word: str) -> str:
    """The plural of one word."""
    if word in IRREGULAR or word in ALWAYS_PLURAL:
        return IRREGULAR.get(word, word)
    for ending in ("man", "woman", "person", "child"):  # snowman, salesperson
        if word.endswith(ending):
            return word[: -len(ending)] + IRREGULAR[ending]
    if word.endswith(SIBILANTS):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def are_several(name: str) -> bool:
    """Whether the name takes "are"."""
    return name.split(" ")[-1] in ALWAYS_PLURAL
