"""A benchmark in the hub's layout as a reviewer needs it: rows, pictures and, where it was built here, geometry.

Pictures come from the files that the rows name, or out of Parquet where these are not there. Nothing here writes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal, NamedTuple

import msgspec
from PIL import Image

from cambrian_data.cvbench.geometry import FILE, Geometry, read_geometry
from cambrian_data.cvbench.rows import PARTS, find_table, read_columns, read_table
from cambrian_data.errors import DataError, ImageError
from cambrian_data.images import load_image, locate
from cambrian_data.records import Row

PICTURE_FOLDER = "img"  # where the hub's script puts pictures that a row may name without it


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a row that a review reads; a row may have more, which an export keeps."""

    idx: int
    type: Literal["2D", "3D"]
    task: str
    question: str
    choices: list[str]
    answer: str
    prompt: str
    filename: str
    source: str
    source_dataset: str | None = None
    source_filename: str | None = None
    target_class: str | None = None


class Stamp(NamedTuple):
    """What tells a file from one that was written over it: when it was written, in nanoseconds, and its bytes."""

    time: int
    size: int


class Embedded(NamedTuple):
    """A picture inside a Parquet file, by its row from 0."""

    path: Path
    row: int


@dataclass(frozen=True, slots=True)
class Item:
    """One question under review.

    Attributes:
        row: as it stands in its table, without the embedded picture.
        asked: its fields, checked.
        picture: where its picture lies.
        geometry: of its things; None where the folder does not tell.
    """

    row: Row
    asked: Asked
    picture: Path | Embedded
    geometry: Geometry | None

    @property
    def place(self) -> int:
        """Of the right choice, from 0."""
        return ascii_uppercase.index(self.asked.answer[1])

    @property
    def categories(self) -> list[str]:
        """What the question is about: as the geometry says, else the class counted or, in 3D, the choices."""
        if self.geometry is not None:
            return self.geometry.category
        if self.asked.target_class is not None:
            return [self.asked.target_class]
        return self.asked.choices if self.asked.type == "3D" else []

    @property
    def fingerprint(self) -> str:
        """Tells this question from any other that the same `idx` may stand for in another build."""
        asked = self.asked
        parts = asked.question, asked.choices, asked.answer, asked.prompt, asked.filename, asked.source_filename
        return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark and its questions.

    Attributes:
        folder: that it was read from.
        items: by `idx`, in the order of the tables.
        has_geometry: whether the folder tells of the questions' things at all.
        stamps: of the files that were read, by name.
    """

    folder: Path
    items: Mapping[int, Item]
    has_geometry: bool
    stamps: Mapping[str, Stamp]

    def check_unchanged(self) -> None:
        """Raises DataError if the tables or the geometry are other files than those that were read."""
        if stamp_files(self.folder) != self.stamps:
            raise DataError(
                f"the benchmark has changed; start again: {self.folder} holds other tables than those that were read, "
                "and nothing is recorded."
            )


def read_benchmark(folder: Path) -> Benchmark:
    """Reads the rows of a folder and finds their pictures.

    Raises:
        DataError: if the folder holds no questions, a row or a line of geometry is malformed, an `idx` occurs twice, or
            the two do not fit together.
        ImageError: if a picture is missing or outside the folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the one that `cambrian cvbench build` has written.")
    stamps = stamp_files(folder)  # before they are read: what is changed meanwhile counts as changed
    geometry = read_geometry(folder)
    items: dict[int, Item] = {}
    for part in PARTS:
        for item in read_part(folder, part, geometry or {}):
            if item.asked.idx in items:
                raise DataError(
                    f"{folder}: idx {item.asked.idx} occurs twice; a review tells questions apart by it, so every idx "
                    "must be unique over both parts."
                )
            items[item.asked.idx] = item
    if not items:
        raise DataError(
            f"{folder} holds no questions; expected test_2d or test_3d, as .jsonl or .parquet. "
            "Build a benchmark there, or download one whole."
        )
    lost = sorted(set(geometry or {}) - set(items))
    if lost:
        raise DataError(f"{folder / FILE}: idx {lost[0]} is in no table; build the benchmark again.")
    return Benchmark(folder, items, has_geometry=geometry is not None, stamps=stamps)


def stamp_files(folder: Path) -> dict[str, Stamp]:
    """The stamps of the tables and the geometry of a folder, without those that are not there."""
    files = [find_table(folder, part) for part in PARTS] + [folder / FILE]
    stamps = {file.name: stamp(file) for file in files if file is not None}
    return {name: found for name, found in stamps.items() if found is not None}


def stamp(file: Path) -> Stamp | None:
    """The stamp of a file; None if it is not there."""
    try:
        status = file.stat()
    except OSError:
        return None
    return Stamp(status.st_mtime_ns, status.st_size)


def read_part(folder: Path, part: str, geometry: Mapping[int, Geometry]) -> Iterator[Item]:
    """The questions of a part, none where it has no table."""
    table = find_table(folder, part)
    if table is None:
        return
    embedded = embedded_pictures(table) if table.suffix == ".parquet" else {}
    for place, row in read_table(table):
        asked = to_asked(place, row, part)
        told = geometry.get(asked.idx)
        if told is not None and told.file != asked.filename:
            raise DataError(f"{folder / FILE}: idx {asked.idx} is about {told.file}; {place} says {asked.filename}.")
        picture = picture_file(folder, asked.filename) or embedded.get(asked.idx)
        if picture is None:
            raise ImageError(
                f"{place}: the picture {asked.filename} is not in {folder}, and no Parquet table holds it; "
                "expected one of the two. Download or build the benchmark whole."
            )
        yield Item(row, asked, picture, told)


def embedded_pictures(path: Path) -> dict[int, Embedded]:
    """Where the picture of each `idx` lies in a Parquet file."""
    return {row["idx"]: Embedded(path, number) for number, row in enumerate(read_columns(path, "idx"))}


def to_asked(place: str, row: Row, part: str) -> Asked:
    """The fields of a row.

    Raises:
        DataError: if one is missing or malformed, or the row belongs to the other part.
    """
    try:
        asked = msgspec.convert(row, Asked)
    except msgspec.ValidationError as error:
        raise DataError(f"{place}: {error}. Expected a row as on the hub.") from error
    if asked.type != part:
        raise DataError(f"{place}: type is {asked.type}, expected {part}; move the row to its own table.")
    if not 2 <= len(asked.choices) <= len(ascii_uppercase):
        raise DataError(f"{place}: has {len(asked.choices)} choices; expected 2 to 26.")
    letters = ascii_uppercase[: len(asked.choices)]
    if not re.fullmatch(rf"\([{letters}]\)", asked.answer):
        raise DataError(f'{place}: answer is "{asked.answer}"; expected a letter from (A) to ({letters[-1]}).')
    return asked


def picture_file(folder: Path, name: str) -> Path | None:
    """The file that a row names, directly or under img/; None where neither is there.

    Raises:
        ImageError: if the name leads out of the folder.
    """
    for candidate in (name, f"{PICTURE_FOLDER}/{name}"):
        path = locate(folder, candidate)
        if path.is_file():
            return path
    return None


def picture_bytes(item: Item) -> bytes:
    """The encoded picture of a question, as it lies on disk.

    Raises:
        ImageError: if it cannot be read.
    """
    if isinstance(item.picture, Embedded):
        return embedded_bytes(item.picture)
    try:
        return item.picture.read_bytes()
    except OSError as error:
        raise ImageError(f"{item.picture}: cannot be read ({error.strerror or error}).") from error


def embedded_bytes(picture: Embedded) -> bytes:
    """The encoded picture in a row of a Parquet file; reads one row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = 0
    try:
        with pq.ParquetFile(picture.path) as file:
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                if picture.row < first + count:
                    cell: Any = file.read_row_group(group, columns=["image"])["image"][picture.row - first].as_py()
                    break
                first += count
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ImageError(f"{picture.path}: cannot be read as Parquet ({error}); download it again.") from error
    content = cell.get("bytes") if isinstance(cell, dict) else None
    if not isinstance(content, bytes):
        raise ImageError(f"{picture.path}, row {picture.row + 1}: image holds no bytes; expected an encoded picture.")
    return content


def load_picture(item: Item) -> Image.Image:
    """The picture of a question as a model is shown it: upright, 8-bit RGB.

    Raises:
        ImageError: if it is missing, broken or too large.
    """
    if isinstance(item.picture, Path):
        return load_image(item.picture)
    place = Path(f"{item.picture.path}, row {item.picture.row + 1}, {item.asked.filename}")
    return load_image(place, embedded_bytes(item.picture))
