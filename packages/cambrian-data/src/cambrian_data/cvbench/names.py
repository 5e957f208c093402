"""English for the names of categories: plurals, articles, and which names stand for things that can be counted.

Covers the category names of COCO, ADE20K, Omni3D and our scenes; other names follow the rules of spelling.
"""

from __future__ import annotations

PAIRS = frozenset(
    (
        *("binoculars", "eyeglasses", "glasses", "goggles", "jeans", "pants", "pliers", "scissors", "shorts"),
        *("sunglasses", "tongs", "trousers"),
    )
)
"""Names, or last words of names, that are plural but stand for one thing of two equal parts."""

SEVERAL = frozenset(
    (
        *("blinds", "books", "cables", "clothes", "cosmetics", "curtains", "cushions", "dishes", "drawers", "flowers"),
        *("fruits", "keys", "leaves", "papers", "pillows", "plants", "scales", "shelves", "shoes", "skis", "stairs"),
        *("speakers", "steps", "tissues", "toiletries", "tools", "towels", "toys", "trees", "utensils"),
        *("vegetables", "wires"),
    )
)
"""Names, or last words of names, that stand for several things outlined together."""

STUFF = frozenset(
    (
        *("apparel", "bread", "broccoli", "clothing", "dirt", "earth", "equipment", "food", "fruit", "furniture"),
        *("grass", "hair", "jewellery", "jewelry", "land", "luggage", "mud", "paper", "rice", "sand", "sky", "snow"),
        *("soil", "stationery", "water"),
    )
)
"""Names, or last words of names, without a number: one says "grass", not "a grass"."""

BACKGROUND = frozenset(
    (
        *("ceiling", "dirt", "dirt track", "earth", "field", "floor", "flooring", "grass", "ground", "land", "mud"),
        *("path", "pavement", "road", "runway", "sand", "sea", "sidewalk", "sky", "snow", "soil", "wall", "water"),
    )
)
"""Names of surfaces, and of what lies behind everything: they have no number, and no place of their own."""

NAMELESS = frozenset(
    (
        *("-", "dontcare", "item", "items", "misc", "miscellaneous", "object", "objects", "other", "others", "thing"),
        *("things", "trade name", "unknown", "unlabeled", "void"),
    )
)
"""What stands where a name should: nobody can be asked for the misc."""

PEOPLE = frozenset(
    (
        *("person", "people", "pedestrian", "cyclist", "rider", "man", "woman", "child", "boy", "girl", "baby"),
        "motorcyclist",
    )
)
"""Names, or last words of names, of human beings."""

UNCHANGED = frozenset(("sheep", "aircraft", "dice", "fish", "deer", "series", "offspring"))
"""The same for one and for several."""

IRREGULAR = {
    "person": "persons",  # as in CV-Bench, not "people"
    "man": "men",
    "woman": "women",
    "child": "children",
    "mouse": "mice",
    "goose": "geese",
    "foot": "feet",
    "tooth": "teeth",
    "knife": "knives",
    "shelf": "shelves",
    "bookshelf": "bookshelves",
    "leaf": "leaves",
    "loaf": "loaves",
    "scarf": "scarves",
    "wolf": "wolves",
    "potato": "potatoes",
    "tomato": "tomatoes",
    "mango": "mangoes",
    "hero": "heroes",
}

SINGULAR_ENDINGS = ("ss", "us", "is", "as", "os")
"""Of words that end in s and yet mean one (glass, bus, iris, gas, rhinoceros); others in s mean several."""

SINGULAR_IN_S = frozenset(("cutlass", "lens", "news", "summons"))
"""Words that mean one, whatever their ending."""

HISSING = ("s", "x", "z", "ch", "sh")

SOUNDED_AS_CONSONANT = ("euro", "one", "uni", "use", "usb", "utensil", "uke", "uku")
"""Beginnings that are written with a vowel and spoken with a consonant."""

SOUNDED_AS_VOWEL = ("heir", "honest", "honour", "hour", "mri", "suv", "x-ray", "xbox")
"""Beginnings that are written with a consonant and spoken with a vowel."""


def head(name: str) -> tuple[str, str]:
    """The part of a name that carries number, and what follows it.

    >>> head("chest of drawers"), head("night stand")
    (('chest', ' of drawers'), ('night stand', ''))
    """
    first, of, rest = name.partition(" of ")
    return first, of + rest


def last_word(name: str) -> str:
    """The word of a name that carries number, in lower case."""
    return head(name)[0].rsplit(maxsplit=1)[-1].lower()


def is_plural(name: str) -> bool:
    """Whether the name takes "are".

    >>> is_plural("books"), is_plural("traffic lights"), is_plural("bus"), is_plural("night stand")
    (True, True, False, False)
    """
    word = last_word(name)
    if word in PAIRS or word in SEVERAL or word == "people":
        return True
    is_one = word in UNCHANGED or word in SINGULAR_IN_S or word.endswith(SINGULAR_ENDINGS)
    return word.endswith("s") and len(word) > 3 and not is_one


def is_countable(name: str) -> bool:
    """Whether "how many" asks for a number that everybody would agree on.

    >>> is_countable("ball"), is_countable("scissors"), is_countable("books"), is_countable("grass")
    (True, True, False, False)
    """
    word = last_word(name)
    return word not in SEVERAL and word not in STUFF and not is_background(name) and not is_nameless(name)


def is_background(name: str) -> bool:
    """Whether the name is of a surface, or of what lies behind everything.

    >>> is_background("sky"), is_background("swimming pool")
    (True, False)
    """
    return name.lower() in BACKGROUND


def is_nameless(name: str) -> bool:
    """Whether the name is of no kind of thing.

    >>> is_nameless("misc"), is_nameless("mug")
    (True, False)
    """
    return name.lower() in NAMELESS


def are_people(name: str) -> bool:
    """Whether things of this name are human beings."""
    return last_word(name) in PEOPLE


def plural(name: str) -> str:
    """The name for several; the last word before "of" carries the ending, and what has no number gets none.

    >>> plural("wine glass"), plural("teddy bear"), plural("books"), plural("chest of drawers"), plural("grass")
    ('wine glasses', 'teddy bears', 'books', 'chests of drawers', 'grass')
    """
    whole, rest = head(name)
    *first, last = whole.split()
    word = last.lower()
    if is_plural(name) or word in STUFF or word in UNCHANGED:
        ending = last
    elif word in IRREGULAR:
        ending = IRREGULAR[word]
    elif word.endswith(HISSING):
        ending = f"{last}es"
    elif word.endswith("y") and word[-2:-1] not in ("", *"aeiou"):
        ending = f"{last[:-1]}ies"
    else:
        ending = f"{last}s"
    return " ".join([*first, ending]) + rest


def verb(name: str) -> str:
    """`is` or `are`, as the name wants."""
    return "are" if is_plural(name) else "is"


def one(name: str) -> str:
    """The name with its indefinite article; none before plurals and before what has no number.

    >>> one("apple"), one("ball"), one("scissors"), one("grass"), one("utensil")
    ('an apple', 'a ball', 'scissors', 'grass', 'a utensil')
    """
    if is_plural(name) or last_word(name) in STUFF:
        return name
    word = name.lower()
    vowel = word.startswith(SOUNDED_AS_VOWEL) or (word[0] in "aeiou" and not word.startswith(SOUNDED_AS_CONSONANT))
    return f"{'an' if vowel else 'a'} {name}"


def listed(parts: list[str]) -> str:
    """Joined as in a sentence.

    >>> listed(["a ball", "a cube", "a ring"])
    'a ball, a cube and a ring'
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
