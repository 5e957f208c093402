"""What is audited: a benchmark or a training set in any of the forms that people have them in, recognised by itself.

A folder in CV-Bench's layout, a folder of pictures, a folder of Parquet files, a Parquet file, or a file of JSON in
LLaVA's, chat or CV-Bench's form. Sets are streamed: nothing but the names of what was seen is kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Protocol

from cambrian_data.cvbench.rows import PARTS, find_table
from cambrian_data.errors import DataError, RecordError
from cambrian_data.formats import read_records
from cambrian_data.formats.rows import first_character, read_rows
from cambrian_data.leakage.contents import Contents, Kind, contents_of, kind_of
from cambrian_data.leakage.dialogues import exchanges_of_record, exchanges_of_row
from cambrian_data.leakage.parquet import ParquetPart
from cambrian_data.leakage.pictures import (
    PICTURE_FIELD,
    SOURCE_FIELD,
    SUFFIXES,
    Exchange,
    LeftOut,
    Picture,
    Reason,
    as_source,
    found_in,
    listed,
)
from cambrian_data.records import Record, Row, shown


class Part(Protocol):
    """One file or folder of a set; whatever it gives comes with a number that grows up to `size()`."""

    def size(self) -> int:
        """Rows, records or files."""

    def pictures(self) -> Iterator[tuple[int, Picture | LeftOut]]:
        """The pictures, in a fixed order; one may come several times."""

    def exchanges(self) -> Iterator[tuple[int, Exchange | LeftOut]]:
        """The questions and answers, in a fixed order."""


class PictureSet(NamedTuple):
    """A benchmark or a training set.

    Attributes:
        name: as the user gave it.
        kind: what it was taken for.
        parts: in order.
    """

    name: str
    kind: str
    parts: Sequence[Part]

    def size(self) -> int:
        """Rows, records or files in all."""
        return sum(part.size() for part in self.parts)

    def pictures(self) -> Iterator[tuple[int, Picture | LeftOut]]:
        """Every picture once, each with how far we are."""
        seen: set[str] = set()
        done = 0
        for part in self.parts:
            for number, picture in part.pictures():
                if picture.name not in seen:
                    seen.add(picture.name)
                    yield done + number, picture
            done += part.size()

    def exchanges(self) -> Iterator[tuple[int, Exchange | LeftOut]]:
        """Every question, each with how far we are."""
        done = 0
        for part in self.parts:
            for number, exchange in part.exchanges():
                yield done + number, exchange
            done += part.size()


def open_set(path: Path, roots: Sequence[Path] = ()) -> PictureSet:
    """Recognises a set by what lies there.

    Args:
        path: a folder or a file.
        roots: folders in which image paths of records begin, tried in order; that of the records if there are none.

    Raises:
        DataError: if it is nothing that we know.
    """
    name = printable(str(path))
    for root in roots:
        if not root.is_dir():
            raise DataError(f"{root} is no folder; expected the folder in which image paths begin.")
    if path.is_dir():
        return open_folder(path, name, roots)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file or folder; expected a benchmark or a training set.")
    if path.suffix == ".parquet":
        return PictureSet(name, "Parquet", [ParquetPart(path, path.name, roots or [path.parent])])
    row = first_row(path)
    kind = kind_of(row)
    if kind is Kind.RECORDS:
        return PictureSet(name, kind, [RecordsPart(path, roots or [path.parent])])
    if kind is Kind.ROWS:
        return PictureSet(name, kind, [RowsPart(path)])
    raise DataError(
        f'{path} has the keys {shown(list(row))}; expected records ("messages" or "conversations"), rows of a '
        'benchmark ("filename" and "question"), Parquet, or a folder.'
    )


def open_folder(folder: Path, name: str, roots: Sequence[Path]) -> PictureSet:
    """The set in a folder: CV-Bench's files, pictures at any depth, or Parquet files at any depth.

    Raises:
        DataError: if it holds none of these, or sets of several kinds, for then some of it would not be looked at.
    """
    tables = [file for part in PARTS if (file := find_table(folder, part)) is not None]
    if tables:
        return PictureSet(name, "CV-Bench folder", [hub_part(file) for file in tables])
    contents = contents_of(folder)
    refuse_mixture(contents)
    if contents.picture is not None:
        return PictureSet(name, "folder of pictures", [FolderPart(folder)])
    if contents.tables:
        roots = roots or [folder]
        parts = [ParquetPart(file, file.relative_to(folder).as_posix(), roots) for file in contents.tables]
        return PictureSet(name, "folder of Parquet files", [*parts, OtherFilesPart(contents)])
    raise DataError(
        f"{folder} holds {', '.join(contents.endings()[:8]) or 'no files'}; expected pictures, Parquet files or "
        "CV-Bench's test_2d and test_3d. "
        "Name a file of records itself, with --images for its pictures."
    )


def refuse_mixture(contents: Contents) -> None:
    """Raises DataError for a folder with sets of several kinds, which says what to name instead."""
    kinds = contents.kinds()
    if len(kinds) < 2:
        return
    told = " and ".join(f"{kind} ({printable(example)})" for kind, example in kinds.items())
    instead = contents.instead()
    listed_paths = ", ".join(printable(path) for path in instead[:4]) + (", ..." if len(instead) > 4 else "")
    raise DataError(
        f"{printable(str(contents.folder))} holds {told}, and as one set some of it would not be looked at. Give "
        f"instead {listed_paths} (by repeating the option if you want several, with --images for pictures that records "
        "name), or move one kind elsewhere."
    )


def hub_part(file: Path) -> Part:
    """CV-Bench's questions of a part."""
    return ParquetPart(file, file.name, [file.parent]) if file.suffix == ".parquet" else RowsPart(file)


def first_row(path: Path) -> Row:
    """The first readable row of a file of JSON.

    Raises:
        DataError: if there is none.
    """
    problem: RecordError | None = None
    for _, row in read_rows(path):
        if not isinstance(row, RecordError):
            return row
        problem = problem or row
    raise problem or DataError(f"{path} holds no rows; expected records or rows of a benchmark.")


def count_rows(path: Path) -> int:
    """Lines of JSON Lines, or objects of an array."""
    if is_array(path):
        return sum(1 for _ in read_rows(path))
    with path.open("rb") as file:
        return sum(not line.isspace() for line in file)


def is_array(path: Path) -> bool:
    """Whether a file of JSON is one array, whose records may all stand on one line."""
    with path.open("rb") as file:
        return first_character(file) == b"["


def place_of(path: Path, in_array: bool, line: int | None, number: int) -> str:
    """Names a record: by its line where there is one a line, by its number (from 1) in an array."""
    return f"{path.name}, record {number}" if in_array else f"{path.name}:{line}"


def printable(name: str) -> str:
    """A file's name as text that can be written, whatever bytes it has."""
    return name.encode("utf-8", "backslashreplace").decode()


class FolderPart:
    """The pictures in a folder, at any depth, in the order of their names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def size(self) -> int:
        """Files."""
        return sum(len(files) for _, _, files in os.walk(self._folder))

    def pictures(self) -> Iterator[tuple[int, Picture | LeftOut]]:
        """The pictures, by their suffixes; other files and links to folders are left out."""
        failures: list[OSError] = []
        number = 0
        for folder, folders, files in os.walk(self._folder, onerror=failures.append):
            folders.sort()
            for name in folders:
                if (Path(folder) / name).is_symlink():
                    yield number, self._left_out(Path(folder, name), "a link to a folder; name that folder instead.")
            for name in sorted(files):
                number += 1
                file = Path(folder, name)
                if file.suffix.lower() in SUFFIXES:
                    yield number, listed(self._name(file), file)
                else:
                    yield number, self._left_out(file, f'not a picture by its suffix "{file.suffix}".')
        for error in failures:
            yield number, LeftOut(printable(str(error.filename)), Reason.CLOSED_FOLDER, f"{error.strerror}.")

    def _left_out(self, path: Path, detail: str) -> LeftOut:
        return LeftOut(self._name(path), Reason.NOT_A_PICTURE, detail)

    def _name(self, path: Path) -> str:
        return printable(path.relative_to(self._folder).as_posix())

    def exchanges(self) -> Iterator[tuple[int, Exchange | LeftOut]]:
        """None: nothing is asked in a folder of pictures."""
        return iter(())


class OtherFilesPart:
    """The files beside Parquet files, which are not read."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents

    def size(self) -> int:
        """Files."""
        return len(self._contents.others)

    def pictures(self) -> Iterator[tuple[int, Picture | LeftOut]]:
        """None; each file is left out."""
        for number, file in enumerate(self._contents.others, start=1):
            name = printable(file.relative_to(self._contents.folder).as_posix())
            yield number, LeftOut(name, Reason.NOT_A_PICTURE, f'not Parquet by its suffix "{file.suffix}".')

    def exchanges(self) -> Iterator[tuple[int, Exchange | LeftOut]]:
        """None."""
        return iter(())


class RecordsPart:
    """The records of a file in LLaVA's or chat form."""

    def __init__(self, path: Path, roots: Sequence[Path]) -> None:
        self._path, self._roots = path, roots

    def size(self) -> int:
        """Records; lines, where there is one a line."""
        return count_rows(self._path)

    def _records(self) -> Iterator[tuple[int, str, Record | LeftOut]]:
        """Number, place and content of every record, those that cannot be read in their places."""
        in_array = is_array(self._path)
        broken: list[RecordError] = []
        number = 0
        for record in chain(read_records(self._path, on_invalid=broken.append), [None]):
            for error in broken:
                number += 1
                place = place_of(self._path, in_array, error.line, number)
                yield number, place, LeftOut(place, Reason.BAD_RECORD, error.problem)
            broken.clear()
            if record is not None:
                number += 1
                line = int((record.location or "").rpartition(":")[2])
                yield number, place_of(self._path, in_array, line, number), record

    def pictures(self) -> Iterator[tuple[int, Picture | LeftOut]]:
        """The pictures that records name."""
        for number, _, record in self._records():
            if isinstance(record, LeftOut):
                yield number, record
                continue
            yield from ((number, found_in(self._roots, path)) for path in record.images if isinstance(path, str))

    def exchanges(self) -> Iterator[tuple[int, Exchange | LeftOut]]:
        """The questions of users and the answers that follow."""
        for number, place, record in self._records():
            if isinstance(record, LeftOut):
                continue  # listed with the pictures
            yield from ((number, each) for each in exchanges_of_record(record, place))


class RowsPart:
    """Rows of a benchmark beside the pictures that they name, as in CV-Bench's JSON Lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._roots = [root for root in (path.parent, path.parent / "img") if root.is_dir()]

    def size(self) -> int:
        """Rows; lines, where there is one a line."""
        return count_rows(self._path)

    def pictures(self) -> Iterator[tuple[int, Picture | LeftOut]]:
        """The pictures that rows name."""
        for number, place, row in self._rows():
            name = None if isinstance(row, RecordError) else row.get(PICTURE_FIELD)
            if isinstance(row, RecordError):
                yield number, LeftOut(place, Reason.BAD_RECORD, row.problem)
            elif isinstance(name, str) and name:
                yield number, found_in(self._roots, name, as_source(row.get(SOURCE_FIELD)))
            else:
                problem = f'"{PICTURE_FIELD}" is {shown(name)}; expected the path of a picture.'
                yield number, LeftOut(place, Reason.BAD_RECORD, problem)

    def exchanges(self) -> Iterator[tuple[int, Exchange | LeftOut]]:
        """The questions with the words of the right choices."""
        for number, place, row in self._rows():
            if isinstance(row, RecordError) or not isinstance(row.get(PICTURE_FIELD), str):
                continue  # listed with the pictures
            try:
                yield from ((number, each) for each in exchanges_of_row(row, place, (row[PICTURE_FIELD],)))
            except RecordError as error:
                yield number, LeftOut(place, Reason.BAD_RECORD, error.problem)

    def _rows(self) -> Iterator[tuple[int, str, Row | RecordError]]:
        """Number, place and content of every row."""
        in_array = is_array(self._path)
        for number, (line, row) in enumerate(read_rows(self._path), start=1):
            yield number, place_of(self._path, in_array, line, number), row
