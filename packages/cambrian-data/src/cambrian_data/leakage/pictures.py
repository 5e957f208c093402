"""A picture of a set, where its bytes lie, and what is left out of the audit and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from cambrian_data.errors import DataError, ImageError
from cambrian_data.images import locate

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
"""By which a file of a folder is taken for a picture."""

PICTURE_FIELD = "filename"
"""Field of a CV-Bench row that names its picture."""

SOURCE_FIELD = "source_filename"
"""Field of a CV-Bench row that names what its picture was drawn from."""


class Reason(StrEnum):
    """Why something of a set was not compared."""

    MISSING = "missing"
    BROKEN = "broken"
    NO_INFORMATION = "no information"
    NOT_A_PICTURE = "not a picture"
    BAD_RECORD = "bad record"
    UNREADABLE = "unreadable"
    CLOSED_FOLDER = "closed folder"


class LeftOut(NamedTuple):
    """Something of a set that was not compared.

    Attributes:
        name: of the picture or record.
        reason: for counting.
        detail: what was found and what to do.
    """

    name: str
    reason: Reason
    detail: str


class Stamp(NamedTuple):
    """By which a file that has changed is told from the same file."""

    size: int
    mtime_ns: int


class Cell(NamedTuple):
    """A place in a Parquet file.

    Attributes:
        column: its name.
        row_group: from 0.
        row: in the row group, from 0.
        item: in the cell's list, from 0; 0 where the cell is no list.
        link: names the row, for the questions asked in it.
    """

    column: str
    row_group: int
    row: int
    item: int
    link: str


class Picture(NamedTuple):
    """A picture of a set.

    Attributes:
        name: unique in its set.
        file: the picture, or the Parquet file that holds it.
        stamp: of the file.
        cell: where in a Parquet file; None for a file of its own.
        source: `source_filename` of a CV-Bench row: what the picture was drawn from.
    """

    name: str
    file: Path
    stamp: Stamp
    cell: Cell | None = None
    source: str | None = None

    @property
    def link(self) -> str:
        """By which questions name it."""
        return self.name if self.cell is None else self.cell.link


class Exchange(NamedTuple):
    """A question and what is answered.

    Attributes:
        location: for people, such as records.jsonl:12.
        question: as it is asked.
        answers: any of which is right; of a choice its words, not its letter.
        links: of the pictures it is asked about.
    """

    location: str
    question: str
    answers: tuple[str, ...]
    links: tuple[str, ...]


def stamp_of(file: Path) -> Stamp:
    """Size and time of a file.

    Raises:
        OSError: if it is missing or out of reach.
    """
    state = file.stat()
    return Stamp(state.st_size, state.st_mtime_ns)


def as_source(value: object) -> str | None:
    """What a row says that its picture was drawn from; None if it says nothing that could be a path."""
    return value if isinstance(value, str) and value else None


def listed(name: str, file: Path, source: str | None = None) -> Picture | LeftOut:
    """A file as a picture of a set, if it is there."""
    try:
        return Picture(name, file, stamp_of(file), None, source)
    except OSError as error:
        return LeftOut(name, Reason.MISSING, f"{file}: {error.strerror or error}; check the path and its folder.")


def found_in(roots: Sequence[Path], name: str, source: str | None = None) -> Picture | LeftOut:
    """The picture that a path names, in the first of the folders that has it."""
    try:
        files = [locate(root, name) for root in roots]
    except ImageError as error:
        return LeftOut(name, Reason.MISSING, str(error))
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        places = " or ".join(map(str, files))
        return LeftOut(name, Reason.MISSING, f"there is no file {places}; check the path and its folder.")
    return listed(name, found, source)


def read_contents(pictures: Sequence[Picture]) -> Iterator[bytes | LeftOut]:
    """The encoded bytes of each picture, in order; of a Parquet file neighbouring rows are read in one go."""
    for (file, column, row_group), group in groupby(pictures, key=_stretch):
        if column is None:
            yield from (_read_file(picture) for picture in group)
        else:
            yield from _read_cells(file, column, row_group, list(group))


def _stretch(picture: Picture) -> tuple[Path, str | None, int]:
    if picture.cell is None:
        return Path(), None, 0
    return picture.file, picture.cell.column, picture.cell.row_group


def _read_file(picture: Picture) -> bytes | LeftOut:
    try:
        return picture.file.read_bytes()
    except OSError as error:
        return LeftOut(picture.name, Reason.MISSING, f"{picture.file}: {error.strerror or error}.")


def _read_cells(file: Path, column: str, row_group: int, pictures: Sequence[Picture]) -> Iterator[bytes | LeftOut]:
    from cambrian_data.leakage.parquet import read_cells

    places = [(picture.cell.row, picture.cell.item) for picture in pictures if picture.cell]
    contents = read_cells(file, column, row_group, places)
    for number, picture in enumerate(pictures):
        try:
            content = next(contents)
        except DataError as error:
            yield from (LeftOut(rest.name, Reason.UNREADABLE, str(error)) for rest in pictures[number:])
            return
        yield content or LeftOut(picture.name, Reason.MISSING, "the cell holds no bytes; embed the picture.")
