"""What is where in a rendered scene, in words: descriptions and readings with exact places, for alignment.

Reading order: inventory, texts, records.
"""

from cambrian_data.grounding.inventory import Inventory, Item, read_inventories
from cambrian_data.grounding.records import write_scene_grounding
from cambrian_data.grounding.texts import ATTRIBUTES, cell_items, describe, item_words, read_cells

__all__ = [
    "ATTRIBUTES",
    "Inventory",
    "Item",
    "cell_items",
    "describe",
    "item_words",
    "read_cells",
    "read_inventories",
    "write_scene_grounding",
]
