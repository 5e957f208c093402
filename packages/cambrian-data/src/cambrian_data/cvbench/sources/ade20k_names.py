"""ADE20K's names: a category is the first of its synonyms; annotators' own words tell groups from single things."""

from __future__ import annotations

from cambrian_data.cvbench.names import plural

GROUPS = frozenset(
    (
        *("audience", "bunch", "crowd", "flock", "group", "groups", "heap", "herd", "people", "pile", "piles", "row"),
        *("rows", "stack", "stacks"),
    )
)
"""Words for several things outlined as one."""

SEVERAL_WORDS = (
    *("arcade machine", "bulletin board", "chest of drawers", "coffee table", "conveyer belt", "crt screen"),
    *("dirt track", "kitchen island", "pool table", "screen door", "swimming pool", "swivel chair", "trade name"),
    "traffic light",
)
"""The 150 categories' first synonyms of more than one word; their table separates words, too, by ";"."""

NAMELESS = "-"
"""What ADE20K calls what its annotators could not name."""


def first_synonym(name: str) -> str:
    """The category's name in questions.

    >>> first_synonym("traffic light, traffic signal, stoplight")
    'traffic light'
    """
    return name.split(",")[0].strip()


def first_in_table(name: str) -> str:
    """The same for a name of object150_info.csv.

    >>> first_in_table("coffee;table;cocktail;table"), first_in_table("car;auto;automobile")
    ('coffee table', 'car')
    """
    words = name.replace(";", " ")
    whole = next((known for known in SEVERAL_WORDS if f"{words} ".startswith(f"{known} ")), None)
    return whole or first_synonym(name.split(";")[0])


def is_group(name: str, raw_name: str) -> bool:
    """Whether a thing of this name, which its annotator called raw_name, is several in one outline.

    >>> is_group("car, auto, automobile", "cars"), is_group("stairs, steps", "stairs"), is_group("person", "people")
    (True, False, True)
    """
    synonyms = {synonym.strip().lower() for synonym in name.split(",")}
    raw = raw_name.strip().lower()
    named_in_plural = raw not in synonyms and raw in {plural(synonym) for synonym in synonyms if synonym}
    return named_in_plural or bool(GROUPS & {*raw.split(), *first_synonym(name).lower().split()})
