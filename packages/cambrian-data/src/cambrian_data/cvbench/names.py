"""English for the names of categories: plurals, and whether a name is a plural already.

Covers the category names of COCO, ADE20K, Omni3D and our scenes; other names follow the rules of spelling.
"""

from __future__ import annotations

PLURAL_NAMES = frozenset(
    (
        *("binoculars", "glasses", "goggles", "jeans", "pants", "scales", "scissors", "shorts", "skis", "trousers"),
        *("blinds", "books", "clothes", "curtains", "cushions", "flowers", "leaves", "papers", "pillows", "plants"),
        *("shelves", "shoes", "stairs", "steps", "toiletries", "towels", "trees"),
    )
)
"""Names, or last words of names, that mean several things or a pair of parts."""

UNCHANGED = frozenset(("sheep", "aircraft", "fish", "deer", "series", "offspring"))
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
}

HISSING = ("s", "x", "z", "ch", "sh")


def is_plural(name: str) -> bool:
    """Whether the name takes "are".

    >>> is_plural("books"), is_plural("bus"), is_plural("night stand")
    (True, False, False)
    """
    return name.rsplit(maxsplit=1)[-1].lower() in PLURAL_NAMES


def plural(name: str) -> str:
    """The name for several; the last word carries the ending.

    >>> plural("wine glass"), plural("teddy bear"), plural("books")
    ('wine glasses', 'teddy bears', 'books')
    """
    *first, last = name.split()
    word = last.lower()
    if is_plural(name) or word in UNCHANGED:
        ending = last
    elif word in IRREGULAR:
        ending = IRREGULAR[word]
    elif word.endswith(HISSING):
        ending = f"{last}es"
    elif word.endswith("y") and word[-2:-1] not in ("", *"aeiou"):
        ending = f"{last[:-1]}ies"
    else:
        ending = f"{last}s"
    return " ".join([*first, ending])


def verb(name: str) -> str:
    """`is` or `are`, as the name wants."""
    return "are" if is_plural(name) else "is"


def one(name: str) -> str:
    """The name with its indefinite article; none before plurals.

    >>> one("apple"), one("ball"), one("scissors")
    ('an apple', 'a ball', 'scissors')
    """
    if is_plural(name):
        return name
    return f"{'an' if name[0].lower() in 'aeiou' and not name.lower().startswith('uni') else 'a'} {name}"


def listed(parts: list[str]) -> str:
    """Joined as in a sentence.

    >>> listed(["a ball", "a cube", "a ring"])
    'a ball, a cube and a ring'
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
