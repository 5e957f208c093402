"""What lies in a folder that is no benchmark in CV-Bench's layout: pictures, Parquet files, files of records."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from cambrian_data.errors import DataError, RecordError
from cambrian_data.formats import FORMS
from cambrian_data.formats.rows import first_character, read_rows
from cambrian_data.leakage.pictures import PICTURE_FIELD, SUFFIXES
from cambrian_data.records import Row

JSON_SUFFIXES = frozenset({".json", ".jsonl"})
MAX_FIRST_LINE = 1 << 20  # bytes; what is longer is one object, such as annotations of all pictures
ROWS_LOOKED_AT = 20  # of which the first ones may be broken


class Kind(StrEnum):
    """What a file of JSON may hold."""

    RECORDS = "records"
    ROWS = "CV-Bench rows"


class Contents(NamedTuple):
    """What a folder holds, at any depth; links to folders are not followed.

    Attributes:
        folder: that was looked at.
        picture: the first one; None if there is none.
        picture_folders: in which pictures lie.
        tables: Parquet files.
        records: files of records or of a benchmark's rows.
        others: all other files; not looked for where there are pictures, which are listed as they are read.
    """

    folder: Path
    picture: Path | None
    picture_folders: Sequence[Path]
    tables: Sequence[Path]
    records: Sequence[Path]
    others: Sequence[Path]

    def endings(self) -> list[str]:
        """Suffixes of what is no set by itself in a folder, or the names of files without one."""
        return sorted({file.suffix or file.name for file in (*self.records, *self.others)})

    def kinds(self) -> dict[str, str]:
        """By kind of set the path of an example in the folder."""
        firsts = {
            "pictures": self.picture,
            "Parquet files": next(iter(self.tables), None),
            "records": next(iter(self.records), None),
        }
        return {kind: str(file.relative_to(self.folder)) for kind, file in firsts.items() if file is not None}

    def instead(self) -> list[str]:
        """Paths of which each is a set of one kind; of pictures none, if something else lies among them."""
        files = [*self.tables, *self.records]
        pictures = alone(self.picture_folders, files)
        tables = alone([file.parent for file in self.tables], [*self.picture_folders, *self.records])
        found = [*([pictures] if pictures else []), *([tables] if tables else self.tables), *self.records]
        return [str(path) for path in found]


def alone(folders: Sequence[Path], others: Sequence[Path]) -> Path | None:
    """The folder that holds all of these and none of the others; None if there is no such folder."""
    if not folders:
        return None
    common = Path(os.path.commonpath(folders))
    return None if any(other.is_relative_to(common) for other in others) else common


def contents_of(folder: Path) -> Contents:
    """Looks through a folder."""
    picture: Path | None = None
    picture_folders: list[Path] = []
    tables: list[Path] = []
    records: list[Path] = []
    others: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        files = [Path(place, name) for name in sorted(names)]
        pictures = [file for file in files if file.suffix.lower() in SUFFIXES]
        if pictures:
            picture = picture or pictures[0]
            picture_folders.append(Path(place))
            others.clear()
        parquet = [file for file in files if file.suffix == ".parquet"]
        json = [file for file in files if file.suffix in JSON_SUFFIXES and holds_records(file)]
        tables += parquet
        records += json
        if picture is None:
            known = {*parquet, *json}
            others += [file for file in files if file not in known]
    return Contents(folder, picture, picture_folders, tables, records, others)


def holds_records(file: Path) -> bool:
    """Whether a file of JSON begins with records or rows of a benchmark; annotations of pictures do not."""
    try:
        with file.open("rb") as stream:
            if first_character(stream) != b"[" and len(stream.readline(MAX_FIRST_LINE)) == MAX_FIRST_LINE:
                return False
        rows = [row for _, row in islice(read_rows(file), ROWS_LOOKED_AT) if not isinstance(row, RecordError)]
    except (OSError, DataError):
        return False  # listed as no picture
    return bool(rows) and kind_of(rows[0]) is not None


def kind_of(row: Row) -> Kind | None:
    """What a file with this first row holds; None if nothing that we know."""
    if any(form.key in row for form in FORMS):
        return Kind.RECORDS
    return Kind.ROWS if PICTURE_FIELD in row and "question" in row else None
