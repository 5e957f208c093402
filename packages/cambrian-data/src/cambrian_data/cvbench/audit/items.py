"""The questions of a benchmark in the hub's layout, as an audit sees them: without their pictures.

Source: dataset card and rows of the hub's nyu-visionx/CV-Bench.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

from cambrian_data.cvbench.questions import list_choices
from cambrian_data.cvbench.rows import PARTS, PlacedRow, find_table, read_table
from cambrian_data.errors import DataError
from cambrian_data.records import shown

FIELDS = ("idx", "type", "task", "question", "choices", "answer", "prompt", "source")

BOX_WORDS = re.compile(r" \((?:annotated|highlighted) by (?:the|a) \w+ box\)")
WORDINGS = (
    re.compile(r"^How many (.+) are in the image\?$"),
    re.compile(r"where (?:is|are) the (.+?) located with respect to the (.+)\?$"),
    re.compile(r"^Which object is closer to the camera taking this photo, the (.+) or the (.+)\?$"),
    re.compile(r"Which object is closer to the (.+?), the (.+) or the (.+)\?$"),
)
"""The published wordings, boxes left out; what each names are categories, in the order of the question."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a benchmark.

    Attributes:
        idx: unique in the benchmark.
        part: 2D or 3D.
        task: such as Count.
        source: the collection that its picture comes from.
        question: the question alone.
        stem: what the prompt says before it lists the choices.
        choices: texts, all different.
        place: of the right one among them, from 0.
        categories: that it names, in the order of the question; none if it is not in the published wording.
    """

    idx: int
    part: str
    task: str
    source: str
    question: str
    stem: str
    choices: tuple[str, ...]
    place: int
    categories: tuple[str, ...]

    @property
    def id(self) -> str:
        """As the evaluation calls it."""
        return f"{self.part.lower()}-{self.idx}"

    @property
    def chance(self) -> float:
        """What a uniform guess scores."""
        return 1 / len(self.choices)

    @property
    def answer(self) -> str:
        """The text of the right choice."""
        return self.choices[self.place]


def read_items(folder: Path) -> list[Item]:
    """The questions of both parts, or of the one that is there; pictures are neither needed nor read.

    Args:
        folder: holds `test_2d` and `test_3d`, each as Parquet or, where there is no Parquet, as JSON Lines.

    Raises:
        DataError: if there is no table, a table cannot be read, or a row is not a question that can be audited.
    """
    tables = {part: table for part in PARTS if (table := find_table(folder, part)) is not None}
    if not tables:
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) if folder.is_dir() else "no folder"
        raise DataError(
            f"{folder}: found {found or 'an empty folder'}; expected test_2d and test_3d, or one of them, as .parquet "
            "or .jsonl, as on the hub. Give the folder that `cambrian cvbench build` wrote."
        )
    items: list[Item] = []
    places: dict[int, str] = {}
    for part, path in tables.items():
        for placed in read_table(path):
            item = to_item(placed, part)
            if item.idx in places:
                raise DataError(
                    f'{placed.where}: "idx" {item.idx} is also that of {places[item.idx]}; every question of a '
                    "benchmark needs an idx of its own. Number them anew."
                )
            places[item.idx] = placed.where
            items.append(item)
    if not items:
        raise DataError(f"{', '.join(map(str, tables.values()))}: found no question; build the benchmark again.")
    return items


def to_item(placed: PlacedRow, part: str) -> Item:
    """The row as a question.

    Raises:
        DataError: if a field is missing or holds what no question has.
    """
    where, row = placed
    missing = [name for name in FIELDS if name not in row]
    if missing:
        raise DataError(f'{where}: the field "{missing[0]}" is missing; expected {", ".join(FIELDS)}.')
    idx = row["idx"]
    if isinstance(idx, bool) or not isinstance(idx, int):
        raise DataError(f'{where}: "idx" is {shown(idx)}; expected a whole number.')
    if row["type"] != part:
        raise DataError(f'{where}: "type" is {shown(row["type"])}; expected "{part}". Move the row to its own table.')
    choices = to_choices(placed)
    question, prompt = text(placed, "question"), text(placed, "prompt").rstrip()
    listed = list_choices(choices)
    if not prompt.endswith(listed):
        raise DataError(
            f'{where}: "prompt" does not end with its choices, {shown(listed)}; without that they cannot be put into '
            "another order. Write the prompt as on the hub."
        )
    return Item(
        idx=idx,
        part=part,
        task=text(placed, "task"),
        source=text(placed, "source"),
        question=question,
        stem=prompt.removesuffix(listed),
        choices=choices,
        place=to_place(placed, choices),
        categories=categories(question, row.get("target_class")),
    )


def text(placed: PlacedRow, field: str) -> str:
    """A field that holds a text."""
    value = placed.row[field]
    if not isinstance(value, str) or not value.strip():
        raise DataError(f'{placed.where}: "{field}" is {shown(value)}; expected a text.')
    return value


def to_choices(placed: PlacedRow) -> tuple[str, ...]:
    """The choices, of which no two are equal: two would be right."""
    value = placed.row["choices"]
    if not isinstance(value, list) or not 2 <= len(value) <= len(ascii_uppercase):
        raise DataError(f'{placed.where}: "choices" is {shown(value)}; expected a list of 2 to 26 texts.')
    choices = tuple(str(choice) for choice in value)
    if len(set(choices)) < len(choices):
        raise DataError(f'{placed.where}: "choices" is {shown(value)}; expected texts that are all different.')
    return choices


def to_place(placed: PlacedRow, choices: Sequence[str]) -> int:
    """The place of the right choice, from 0."""
    answer = placed.row["answer"]
    match = re.fullmatch(r"\(?([A-Z])\)?", answer.strip()) if isinstance(answer, str) else None
    letters = ascii_uppercase[: len(choices)]
    if match is None or match[1] not in letters:
        raise DataError(f'{placed.where}: "answer" is {shown(answer)}; expected a letter from (A) to ({letters[-1]}).')
    return letters.index(match[1])


def categories(question: str, target_class: object = None) -> tuple[str, ...]:
    """The categories that a question in the published wording names.

    >>> categories("Which object is closer to the camera taking this photo, the sink or the bottle?")
    ('sink', 'bottle')
    """
    if isinstance(target_class, str) and target_class:
        return (target_class,)
    plain = BOX_WORDS.sub("", question)
    matches = (wording.search(plain) for wording in WORDINGS)
    return next((match.groups() for match in matches if match), ())
