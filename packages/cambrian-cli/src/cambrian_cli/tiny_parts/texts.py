"""Scenes in words for the language model: what every cell shows, and questions and answers about it.

No picture is drawn. The scenes are rendered ones, imagined anew each time: mirrored, kinds exchanged, colours and boxes
drawn, some things left out; so the language model cannot know a scene by heart. Questions, choices and answers come
from the makers of the benchmark, and so are worded as the finetuning's and the evaluation's are.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from cambrian_data.cvbench.answers import reasoned_answer
from cambrian_data.cvbench.balance import Chosen
from cambrian_data.cvbench.build import to_question
from cambrian_data.cvbench.candidates import Candidate, Task
from cambrian_data.cvbench.makers import count_candidates, depth_candidates, distance_candidates, relation_candidates
from cambrian_data.cvbench.questions import BOX_COLOURS, FORMAT_PROMPT
from cambrian_data.cvbench.rules import Rules
from cambrian_data.grounding import ATTRIBUTES, Inventory, Item, cell_items, describe, item_words, read_cells
from cambrian_data.grounding.records import draw_some_boxes
from cambrian_data.grounding.texts import EMPTY, Turn
from cambrian_data.scenes.objects import COLOURS, KINDS

RULES = Rules()
NUM_TURNS = 3
TASKS = {"describe": 0.8, Task.COUNT: 1.2, Task.RELATION: 1.2, Task.DEPTH: 1.2, Task.DISTANCE: 1.8}
MIRRORED, EXCHANGED, DRAWN_ANEW, THINNED = 0.5, 0.75, 0.25, 0.3  # how often


class Text(NamedTuple):
    """One training text.

    Attributes:
        cells: words of every cell of the grid, in reading order.
        turns: questions and answers.
    """

    cells: list[tuple[str, ...]]
    turns: list[Turn]


def imagine(inventory: Inventory, draw: random.Random, grid_side: int) -> Inventory:
    """Another scene with the same geometry: one thing a cell, so that every thing can be told from the cells."""
    mirrored = draw.random() < MIRRORED
    kinds = list(KINDS)
    exchanged = dict(zip(kinds, draw.sample(kinds, len(kinds)), strict=True))
    drawn_anew = draw.random() < DRAWN_ANEW
    items = [item for item in cell_items(inventory, grid_side) if item is not None]
    if len(items) > 2 and draw.random() < THINNED:
        items = draw.sample(items, draw.randint(2, len(items)))
    return replace(
        inventory,
        items=tuple(
            _changed(
                item,
                kind=draw.choice(kinds) if drawn_anew else exchanged[item.kind],
                colour=draw.choice(list(COLOURS)),
                mirror_width=inventory.width if mirrored else None,
            )
            for item in sorted(items, key=lambda item: item.id)
        ),
    )


def _changed(item: Item, kind: str, colour: str, mirror_width: int | None) -> Item:
    box, vertices = item.box, item.cuboid.vertices
    if mirror_width is not None:
        box = box._replace(left=mirror_width - box.right, right=mirror_width - box.left)
        vertices = tuple((-x, y, z) for x, y, z in vertices)
    return Item(
        colour,
        replace(item.instance, category=kind, box=box),
        replace(item.cuboid, category=kind, box=box, vertices=vertices),
    )


def converse(inventory: Inventory, draw: random.Random, grid_side: int) -> Text:
    """Up to three turns about one scene; its boxes are those of the first question, or drawn."""
    first, boxes = _first_turn(inventory, draw)
    turns = [first]
    for task in draw.choices(list(TASKS), list(TASKS.values()), k=2 * NUM_TURNS):
        if len(turns) == NUM_TURNS:
            break
        found = _ask(task, inventory, boxes, draw)
        if found is not None and _finding(found) not in map(_finding, turns):
            turns.append(found)
    return Text(cell_words(inventory, boxes, grid_side), turns)


def read(inventory: Inventory, draw: random.Random, grid_side: int) -> Text:
    """One attribute of every cell."""
    boxes = draw_some_boxes([item.id for item in inventory.items], draw)
    turn = read_cells(inventory, boxes, draw.choice(ATTRIBUTES), cell_items(inventory, grid_side), grid_side)
    return Text(cell_words(inventory, boxes, grid_side), [turn])


def cell_words(inventory: Inventory, boxes: Mapping[int, str], grid_side: int) -> list[tuple[str, ...]]:
    """What each cell shows, in reading order."""
    return [
        (EMPTY,) if item is None else tuple(filter(None, item_words(item, inventory, boxes)))
        for item in cell_items(inventory, grid_side)
    ]


def _first_turn(inventory: Inventory, draw: random.Random) -> tuple[Turn, dict[int, str]]:
    """A turn, and the boxes that it wants."""
    task = draw.choices(list(TASKS), list(TASKS.values()))[0]
    if task in (Task.RELATION, Task.DEPTH, Task.DISTANCE) and (found := list(_candidates(task, inventory))):
        candidate = draw.choice(found)
        return _to_turn(candidate, draw), _boxes_of(candidate)
    boxes = draw_some_boxes([item.id for item in inventory.items], draw)
    return _ask(task, inventory, boxes, draw) or describe(inventory, boxes), boxes


def _ask(task: str, inventory: Inventory, boxes: Mapping[int, str], draw: random.Random) -> Turn | None:
    """A turn that fits the boxes drawn."""
    if task == "describe":
        return describe(inventory, boxes)
    found = [one for one in _candidates(task, inventory) if _boxes_of(one).items() <= boxes.items()]
    return _to_turn(draw.choice(found), draw) if found else None


def _finding(turn: Turn) -> str:
    """What an answer says before it names a letter; to find it again would be copying."""
    return turn.answer.rpartition(" The answer is ")[0]


def _candidates(task: str, inventory: Inventory) -> Iterator[Candidate[Any]]:
    if task == Task.COUNT:
        return count_candidates(inventory.flat, tuple(KINDS), RULES.count)
    if task == Task.RELATION:
        return relation_candidates(inventory.flat, RULES.relation)
    if task == Task.DEPTH:
        return depth_candidates(inventory.solid, RULES.depth)
    return distance_candidates(inventory.solid, RULES.distance)


def _boxes_of(candidate: Candidate[Any]) -> dict[int, str]:
    things = zip(candidate.subjects, BOX_COLOURS, candidate.boxed, strict=False)
    return {thing.id: colour for thing, colour, boxed in things if boxed}


def _to_turn(candidate: Candidate[Any], draw: random.Random) -> Turn:
    group = draw.choice(candidate.groups)
    question = to_question(Chosen(candidate, group), draw.sample(group, len(group)))
    return Turn(f"{question.prompt}\n{FORMAT_PROMPT}", reasoned_answer(question))
