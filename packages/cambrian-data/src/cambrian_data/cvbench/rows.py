"""The rows of a benchmark in the hub's layout, each with its place for messages, without their pictures.

A part's rows come from `test_2d.parquet` or `test_3d.parquet` or, where there is no Parquet, from JSON Lines, as in the
evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cambrian_data.errors import DataError, RecordError
from cambrian_data.formats.rows import read_rows
from cambrian_data.parquet import opened
from cambrian_data.records import Row

PARTS = ("2D", "3D")
PICTURE = "image"  # the column of Parquet that holds the pictures
SUFFIXES = (".parquet", ".jsonl")


class PlacedRow(NamedTuple):
    """A row and where it stands."""

    where: str
    row: Row


def find_table(folder: Path, part: str) -> Path | None:
    """The file of a part, None if there is none."""
    files = (folder / f"test_{part.lower()}{suffix}" for suffix in SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def read_table(path: Path) -> Iterator[PlacedRow]:
    """The rows of a part's file, pictures left out.

    Raises:
        DataError: if it cannot be read.
    """
    if path.suffix == ".parquet":
        for number, row in enumerate(read_columns(path), start=1):
            yield PlacedRow(f"{path}, row {number}", row)
        return
    for line, found in read_rows(path):
        if isinstance(found, RecordError):
            raise found
        yield PlacedRow(f"{path}:{line}", found)


def read_columns(path: Path, *names: str) -> list[Row]:
    """Columns of a Parquet file as rows; all but the pictures where none are named.

    Raises:
        DataError: if the file cannot be read as Parquet, or lacks a column.
    """
    with opened(path) as file:
        held = [name for name in file.schema_arrow.names if name != PICTURE]
        missing = [name for name in names if name not in held]
        if missing:
            raise DataError(f"{path}: has no column {', '.join(missing)}; expected the hub's.")
        rows: list[Row] = file.read(columns=list(names) or held).to_pylist()
    return rows
