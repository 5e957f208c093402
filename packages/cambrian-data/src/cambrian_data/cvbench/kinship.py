"""Names that may be taken for each other: whoever counts chairs may or may not count the armchairs.

Annotations tell such things apart by rules that nobody who looks at the picture knows. So a name tells a thing apart,
and a number of things is sure, only where nothing akin is in the same picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from cambrian_data.cvbench.names import PEOPLE, last_word, plural

FAMILIES = tuple(
    frozenset(family)
    for family in (
        ("chair", "armchair", "seat", "stool"),
        ("sofa", "couch", "armchair", "seat"),
        ("bench", "seat"),
        ("stool", "ottoman", "pouf"),
        ("table", "desk", "counter", "countertop", "kitchen island", "buffet", "bar", "night stand"),
        (
            *("cabinet", "cupboard", "wardrobe", "closet", "chest of drawers", "dresser", "bureau", "buffet"),
            *("sideboard", "bookcase", "bookshelf", "shelf", "shelves", "case", "night stand"),
        ),
        ("lamp", "light", "light source", "chandelier", "sconce", "streetlight", "spotlight"),
        ("plant", "flower", "flowers", "tree", "palm", "bush", "shrub"),
        ("pot", "flowerpot", "vase"),
        ("car", "van", "minivan", "truck", "trailer", "vehicle"),
        ("bus", "van", "truck", "coach", "tram"),
        ("motorcycle", "minibike", "motorbike", "moped", "scooter", "bicycle", "bike", "tricycle", "cyclist", "rider"),
        PEOPLE,
        ("cup", "mug", "glass", "wine glass"),
        ("bowl", "plate", "dish"),
        ("bag", "handbag", "backpack", "suitcase", "purse", "luggage", "briefcase"),
        ("box", "case", "crate", "carton", "container", "package"),
        ("trash can", "ashcan", "bin", "dustbin", "basket"),
        ("tv", "television", "monitor", "screen", "computer", "laptop", "display"),
        ("painting", "picture", "poster", "photograph", "picture frame"),
        ("signboard", "sign", "poster", "bulletin board", "billboard", "trade name"),
        ("pillow", "cushion"),
        ("curtain", "curtains", "blind", "blinds"),
        ("rug", "carpet", "mat"),
        ("door", "gate"),
        ("window", "windowpane"),
        ("stairs", "stairway", "staircase", "step", "steps", "escalator"),
        ("building", "house", "skyscraper", "tower", "hovel", "hut", "shed", "booth", "kiosk", "shop"),
        ("mountain", "hill", "rock", "stone"),
        ("sea", "water", "river", "lake", "pool", "waterfall", "fountain"),
        ("railing", "bannister", "banister", "fence", "handrail", "barrier"),
        ("column", "pole", "pillar", "post"),
        ("boat", "ship", "canoe"),
        ("book", "books", "magazine"),
        ("towel", "blanket", "cloth", "napkin", "apparel", "clothes"),
        ("toy", "plaything", "doll", "teddy bear", "ball"),
        ("stove", "oven"),
        ("bed", "cradle", "crib"),
        ("phone", "telephone"),
    )
)
"""Each name may be taken for every other of its family, but not for those of another family that it is in, too."""

KINDS = {
    "animal": frozenset(("dog", "cat", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "bird")),
    "food": frozenset(
        (
            *("banana", "apple", "orange", "carrot", "hot dog", "pizza", "donut", "cake", "sandwich", "broccoli"),
            "fruit",
        )
    ),
    "vehicle": frozenset(("bus", "bicycle", "motorcycle", "train", "tram", "boat", "airplane")),
}
"""Names that stand for all of these; these do not stand for each other."""


@lru_cache(maxsize=1 << 16)
def are_akin(first: str, second: str) -> bool:
    """Whether a thing of one of these names may be taken for one of the other.

    >>> are_akin("chair", "swivel chair"), are_akin("cup", "wine glass"), are_akin("dog", "animal")
    (True, True, True)
    >>> are_akin("dog", "cat"), are_akin("chair", "table")
    (False, False)
    """
    if plural(last_word(first)) == plural(last_word(second)):
        return True
    one, other = ({name.lower(), last_word(name)} for name in (first, second))
    return any(one & family and other & family for family in FAMILIES) or any(
        (general in one and other & special) or (general in other and one & special)
        for general, special in KINDS.items()
    )


def stands_alone(name: str, present: Iterable[str]) -> bool:
    """Whether nothing of another name that is in the picture may be taken for it."""
    return not any(other != name and are_akin(name, other) for other in present)
