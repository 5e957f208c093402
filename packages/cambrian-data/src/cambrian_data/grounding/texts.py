"""An inventory in words. What a grid cell shows is a handful of words, and every text below is made of those words.

A reading names one attribute of every cell in reading order, `empty` where nothing's middle lies; a description lists
the things from left to right with all that is known of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cambrian_data.cvbench.names import listed, one
from cambrian_data.grounding.inventory import Inventory, Item
from cambrian_data.places import left_to_right, place_words

DESCRIBE = "Describe every object in the picture, with its place."
EMPTY = "empty"
ATTRIBUTES = ("kinds", "colours", "boxes", "columns", "rows", "depths")


class Turn(NamedTuple):
    """What is asked of a picture, and the reply."""

    question: str
    answer: str


class ItemWords(NamedTuple):
    """The words for a thing, one an attribute."""

    kinds: str
    colours: str
    boxes: str
    columns: str
    rows: str
    depths: str


def item_words(item: Item, inventory: Inventory, boxes: Mapping[int, str]) -> ItemWords:
    """The words for a thing; `boxes` maps ids to the colours of the boxes drawn, and no box is an empty word."""
    box = f"in the {boxes[item.id]} box" if item.id in boxes else ""
    return ItemWords(item.kind, item.colour, box, *place_words(item.box, inventory.width, inventory.height, item.depth))


def cell_items(inventory: Inventory, grid_side: int) -> list[Item | None]:
    """The thing whose middle lies in each cell of a grid, in reading order; the nearest, where several do."""
    cells: list[Item | None] = [None] * grid_side**2
    for item in sorted(inventory.items, key=lambda item: -item.depth):
        x, y = item.box.centre
        column = min(grid_side - 1, int(x / inventory.width * grid_side))
        row = min(grid_side - 1, int(y / inventory.height * grid_side))
        cells[row * grid_side + column] = item
    return cells


def describe(inventory: Inventory, boxes: Mapping[int, str]) -> Turn:
    """All things from left to right.

    `I see a red ball at x3 y4 z9 and a blue cube in the red box at x12 y5 z14.`
    """
    if not inventory.items:
        return Turn(DESCRIBE, "I see no objects.")
    size = inventory.width, inventory.height
    ordered = sorted(inventory.items, key=lambda item: (*left_to_right(item.box, *size), item.id))
    words = [item_words(item, inventory, boxes) for item in ordered]
    things = [
        " ".join(filter(None, (one(word.colours), word.kinds, word.boxes, word.columns, word.rows, word.depths)))
        for word in words
    ]
    return Turn(DESCRIBE, f"I see {listed(things)}.")


def read_cells(
    inventory: Inventory, boxes: Mapping[int, str], attribute: str, cells: Sequence[Item | None], grid_side: int
) -> Turn:
    """One attribute of every cell, a line for each row of the grid."""
    words = [
        (getattr(item_words(item, inventory, boxes), attribute) if item is not None else "") or EMPTY for item in cells
    ]
    rows = [" ".join(words[start : start + grid_side]) for start in range(0, len(words), grid_side)]
    return Turn(f"Read the {attribute} cell by cell.", "\n ".join(rows))
