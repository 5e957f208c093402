"""Which annotations a question is about, found by what it says and by what is drawn in its picture."""

from tests.support.cvbench_oracle.drawing import Drawing, boxed_things
from tests.support.cvbench_oracle.raw import Picture, Thing
from tests.support.cvbench_oracle.wording import Asked, Named

CONFUSED = [
    {"chair", "armchair"},
    {"couch", "sofa"},
    {"car", "van"},
    {"truck", "van"},
    {"cabinet", "cupboard"},
    {"lamp", "chandelier"},
    {"table", "desk"},
    {"dining table", "desk"},
    {"cup", "mug"},
    {"tree", "palm"},
    {"building", "house"},
    {"building", "skyscraper"},
    {"person", "pedestrian"},
    {"person", "cyclist"},
]
"""Pairs of names that anybody may give to one thing: a short list, so that none of them is open to dispute."""


def find(asked: Asked, picture: Picture, drawing: Drawing) -> tuple[list[Thing], list[tuple[str, str]]]:
    """The things of the question, and what stands against it; no things if one of them is not sure."""
    found, faults = [], []
    for named in asked.named:
        thing, against = find_one(named, picture, drawing)
        faults += against
        found += [thing] if thing is not None else []
    said = {named.colour for named in asked.named}
    unsaid = [colour for colour, mask in drawing.masks.items() if mask.any() and colour not in said]
    faults += [("drawn", f"a {colour} box is drawn that the question does not speak of") for colour in unsaid]
    return (found if len(found) == len(asked.named) else []), faults


def find_one(named: Named, picture: Picture, drawing: Drawing) -> tuple[Thing | None, list[tuple[str, str]]]:
    """The thing that a name means, with the box if it has one."""
    called = [thing for thing in picture.things if thing.shown == named.name]
    if named.colour is None:
        return find_by_name(named.name, called, picture)
    boxed = boxed_things(drawing, named.colour, [thing for thing in called if not thing.part])
    if len(boxed) != 1:
        text = f"{len(boxed)} of {len(called)} annotations called {named.name} have the {named.colour} box; expected 1"
        return None, [("drawn", text)]
    return boxed[0], []


def find_by_name(name: str, called: list[Thing], picture: Picture) -> tuple[Thing | None, list[tuple[str, str]]]:
    """The only thing of a name; nothing else in the picture may go by that name."""
    if len(called) != 1:
        return None, [("unique", f"{len(called)} annotations are called {name}, and no box is drawn; expected 1")]
    if not picture.is_complete:
        return called[0], [
            ("complete", f"{name} has no box in {picture.source}, which may leave out others of the name")
        ]
    return called[0], [("unique", text) for text in confusing(name, picture)]


def confusing(name: str, picture: Picture) -> list[str]:
    """Things of other names in the picture that may be taken for one of this name."""
    others = {thing.shown for thing in picture.things}
    pairs = [pair for pair in CONFUSED if name in pair and (pair - {name}) & others]
    return [f"{name} may be taken for {next(iter(pair - {name}))}, which is in the picture as well" for pair in pairs]
