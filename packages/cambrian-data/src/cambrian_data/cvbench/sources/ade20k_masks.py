"""ADE20K's 150-category segmentation: a mask a picture, and a table that tells things from stuff.

Such a mask says which pixels are chair, not how many chairs there are. So no category is complete in any picture, which
rules out counting, and what is told apart is a region: of a category of things, in one piece. Two chairs that touch
are one region; where a region lies with respect to another still holds for each of them.

Source: README.md (github CSAILVision/sceneparsing); data/object150_info.csv (github
CSAILVision/semantic-segmentation-pytorch).
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage  # type: ignore[import-untyped]

from cambrian_data.boxes import Box
from cambrian_data.cvbench.annotations import Annotations, Instance, Picture
from cambrian_data.cvbench.sources import kinds
from cambrian_data.cvbench.sources.ade20k import Progress
from cambrian_data.cvbench.sources.ade20k_names import first_in_table
from cambrian_data.errors import DataError
from cambrian_data.images import opened
from cambrian_data.records import shown

TABLE = "a table with the columns Idx, Stuff and Name, as object150_info.csv"
COLUMNS = ("Idx", "Stuff", "Name")
STUFF = "a region of stuff (Stuff is 1 in the table)"
PIECES = "a category in several pieces"
NEIGHBOURS = np.ones((3, 3), np.uint8)  # pixels that touch at a corner hang together


class Label(NamedTuple):
    """What a number in the masks stands for."""

    category: str
    is_stuff: bool


def read(masks: Path, table: Path, progress: Progress | None = None) -> Annotations[Instance]:
    """Reads the masks in a folder and in all folders in it; the picture of x.png is x.jpg.

    Args:
        masks: folder such as annotations/validation; holds nothing else than masks, 0 for other things.
        table: object150_info.csv.
        progress: called with (masks read, masks).

    Raises:
        DataError: naming the file, and as far as they are known the line and the field.
    """
    masks, labels = Path(masks), read_table(Path(table))
    if not masks.is_dir():
        raise DataError(f"{masks}: is no folder; expected a folder of segmentation masks.")
    files = sorted(masks.rglob("*.png"))
    if not files:
        raise DataError(f"{masks}: holds no PNG file; expected a folder of segmentation masks.")
    pictures: list[Picture[Instance]] = []
    left_out: Counter[str] = Counter()
    for number, file in enumerate(files, start=1):
        pictures.append(read_picture(file, masks, labels, left_out))
        if progress is not None:
            progress(number, len(files))
    categories = {label.category for label in labels.values() if not label.is_stuff}
    pictures.sort(key=lambda picture: picture.file_name)
    return Annotations(masks, tuple(sorted(categories)), tuple(pictures), dict(sorted(left_out.items())))


def read_picture(file: Path, root: Path, labels: Mapping[int, Label], left_out: Counter[str]) -> Picture[Instance]:
    """One picture with its regions; what is left out is added to the counts."""
    mask = read_mask(file, labels)
    height, width = mask.shape
    things: list[Instance] = []
    for number, window in enumerate(ndimage.find_objects(mask), start=1):
        if window is None:
            continue
        label, region = labels[number], mask[window] == number
        if label.is_stuff:
            left_out[STUFF] += 1
        elif ndimage.label(region, NEIGHBOURS)[1] > 1:
            left_out[PIECES] += 1
        else:
            rows, columns = window
            box = Box(*map(float, (columns.start, rows.start, columns.stop, rows.stop)))
            things.append(Instance(number, label.category, box, float(np.count_nonzero(region))))
    name = PurePosixPath(file.relative_to(root).as_posix()).with_suffix(".jpg")
    return Picture(str(name), width, height, tuple(things), complete=frozenset())


def read_mask(file: Path, labels: Mapping[int, Label]) -> NDArray[np.uint8]:
    """A mask's numbers (rows, columns).

    Raises:
        DataError: if the picture is broken, holds colours, or a number that the table lacks.
    """
    with opened(file) as image:
        if image.mode not in ("L", "P"):
            hint = " This may be the full format's _seg.png." if file.stem.endswith("_seg") else ""
            raise DataError(f"{file}: is a picture of mode {image.mode}; expected a mask of one channel.{hint}")
        mask = np.asarray(image)
    numbers = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()
    unknown = sorted({*numbers} - {0, *labels})
    if unknown:
        raise DataError(f"{file}: holds the number {unknown[0]}, which no row of the table has; expected 0 for other.")
    return mask


def read_table(file: Path) -> dict[int, Label]:
    """The rows of the table by their number.

    Raises:
        DataError: if it cannot be read, lacks a column, or a row is broken; naming file and line.
    """
    try:
        text = kinds.read_bytes(file, TABLE).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise kinds.refuse(file, "no text in UTF-8", TABLE) from error
    rows = csv.DictReader(text.splitlines(), strict=True)
    found: dict[int, Label] = {}
    try:
        missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
        if missing:
            raise kinds.refuse(file, f'a text without the column "{missing[0]}"', TABLE)
        for row in rows:
            number, label = read_row(row, f"{file}:{rows.line_num}")
            if number in found:
                raise DataError(f'{file}:{rows.line_num}: "Idx" {number} occurs twice.')
            found[number] = label
    except csv.Error as error:
        raise DataError(f"{file}:{rows.line_num}: {error}; expected {TABLE}.") from error
    return found


def read_row(row: Mapping[str, str | None], where: str) -> tuple[int, Label]:
    """A row's number and what it says.

    Raises:
        DataError: naming the field that is none.
    """
    number, stuff, name = (row[column] or "" for column in COLUMNS)
    if not number.isdecimal() or not 1 <= int(number) <= 255:
        raise DataError(f'{where}: "Idx" is {shown(number)}; expected a number from 1 to 255.')
    if stuff not in ("0", "1"):
        raise DataError(f'{where}: "Stuff" is {shown(stuff)}; expected 0 or 1.')
    if not first_in_table(name):
        raise DataError(f'{where}: "Name" is {shown(name)}; expected synonyms, separated by ";".')
    return int(number), Label(first_in_table(name), stuff == "1")
