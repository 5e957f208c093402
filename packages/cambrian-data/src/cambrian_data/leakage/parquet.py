"""Sets in Parquet: pictures as `{bytes, path}`, bytes, paths or lists of these; questions in columns beside them.

A file is read a row group at a time, and of the pictures' columns only the paths until they are hashed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cambrian_data.errors import DataError, RecordError
from cambrian_data.leakage.dialogues import TEXT_FIELDS, exchanges_of_row
from cambrian_data.leakage.pictures import (
    SOURCE_FIELD,
    Cell,
    Exchange,
    LeftOut,
    Picture,
    Reason,
    Stamp,
    as_source,
    found_in,
    stamp_of,
)
from cambrian_data.parquet import opened

NAMES = frozenset({"image", "images", "picture", "pictures", "jpg", "png"})
"""Columns that hold pictures if they hold bytes, or paths if they hold text."""

ROWS_AT_ONCE, ROWS_OF_TEXT = 32, 1024  # a few MB with and without pictures


class Form(StrEnum):
    """How a column holds pictures."""

    CELL = "bytes"
    CELLS = "list of bytes"
    PATH = "path"
    PATHS = "list of paths"


class ParquetPart:
    """The rows of a Parquet file.

    Args:
        file: to read.
        name: of the file in its set.
        roots: folders in which paths begin.

    Raises:
        DataError: if it cannot be read, or has neither pictures nor questions.
    """

    def __init__(self, file: Path, name: str, roots: Sequence[Path]) -> None:
        self._file, self._name, self._roots = file.resolve(), name, roots
        with opened(file) as table:
            schema = table.schema_arrow
            self._leaves = {table.schema.column(index).path for index in range(len(table.schema))}
            self._count = table.metadata.num_rows
        self._forms = {field.name: form for field in schema if (form := form_of(field)) is not None}
        self._texts = [name for name in TEXT_FIELDS if name in schema.names]
        self._has_source = SOURCE_FIELD in schema.names
        if not self._forms and not self._texts:
            raise DataError(
                f"{file} has the columns {', '.join(schema.names)}; expected pictures ({{bytes, path}}, or a column "
                '"image") or questions ("question", "conversations", "messages").'
            )

    def size(self) -> int:
        """Rows."""
        return self._count

    def pictures(self) -> Iterator[tuple[int, Picture | LeftOut]]:
        """The pictures, each with the number of its row, row group by row group."""
        stamp = stamp_of(self._file)
        with opened(self._file) as table:
            before = 0
            for row_group in range(table.num_row_groups):
                for column, form in self._forms.items():
                    yield from self._pictures_in(table, stamp, before, row_group, column, form)
                before += table.metadata.row_group(row_group).num_rows

    def _pictures_in(
        self, table: pq.ParquetFile, stamp: Stamp, before: int, row_group: int, column: str, form: Form
    ) -> Iterator[tuple[int, Picture | LeftOut]]:
        light = self._light_column(column, form)
        fields = [field for field in (light, SOURCE_FIELD if self._has_source else None) if field is not None]
        count = table.metadata.row_group(row_group).num_rows
        rows = table.read_row_group(row_group, columns=fields).to_pylist() if fields else [{}] * count
        for row, values in enumerate(rows):
            number = before + row + 1
            source = as_source(values.get(SOURCE_FIELD))
            for item, value in enumerate(as_list(values[column] if light else ...)):
                if form in (Form.PATH, Form.PATHS):
                    yield number, found_in(self._roots, value, source)
                else:
                    cell = Cell(column, row_group, row, item, self._link(number))
                    yield number, Picture(self._picture_name(cell, form), self._file, stamp, cell, source)

    def _light_column(self, column: str, form: Form) -> str | None:
        """What of a column tells which pictures there are: of cells with a path the path; None if each row has one."""
        if form in (Form.PATH, Form.PATHS):
            return column
        paths = [leaf for leaf in self._leaves if leaf.startswith(f"{column}.") and leaf.endswith(".path")]
        return paths[0] if paths else column if form is Form.CELLS else None

    def _picture_name(self, cell: Cell, form: Form) -> str:
        place = cell.link if len(self._forms) == 1 else f"{cell.link}.{cell.column}"
        return f"{place}[{cell.item}]" if form is Form.CELLS else place

    def _link(self, number: int) -> str:
        return f"{self._name}:{number}"

    def exchanges(self) -> Iterator[tuple[int, Exchange | LeftOut]]:
        """The questions and answers, each with the number of its row."""
        if not self._texts:
            return
        paths = [column for column, form in self._forms.items() if form in (Form.PATH, Form.PATHS)]
        cells = len(paths) < len(self._forms)
        number = 0
        with opened(self._file) as table:
            for batch in table.iter_batches(ROWS_OF_TEXT, columns=[*self._texts, *paths]):
                for row in batch.to_pylist():
                    number += 1
                    link = self._link(number)
                    links = [path for column in paths for path in as_list(row.pop(column))]
                    try:
                        yield from (
                            (number, each)
                            for each in exchanges_of_row(row, link, (*links, link) if cells else tuple(links))
                        )
                    except RecordError as error:
                        yield number, LeftOut(link, Reason.BAD_RECORD, error.problem)


def form_of(field: pa.Field) -> Form | None:
    """How the column holds pictures; None if it holds something else."""
    kind, many = field.type, False
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind, many = kind.value_type, True
    if pa.types.is_struct(kind):
        names = {kind.field(index).name: kind.field(index).type for index in range(kind.num_fields)}
        is_cell = "bytes" in names and is_bytes(names["bytes"])
    else:
        is_cell = is_bytes(kind) and field.name in NAMES
    if is_cell:
        return Form.CELLS if many else Form.CELL
    if field.name in NAMES and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return Form.PATHS if many else Form.PATH
    return None


def is_bytes(kind: pa.DataType) -> bool:
    """Whether values of this type are bytes."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def as_list(value: Any) -> list[Any]:
    """The pictures of a cell: none for null."""
    if value is None:
        return []
    return [item for item in value if item is not None] if isinstance(value, list) else [value]


def read_cells(file: Path, column: str, row_group: int, places: Sequence[tuple[int, int]]) -> Iterator[bytes | None]:
    """The encoded pictures at places (row in the row group, item), in the order of rows.

    Raises:
        DataError: if the file cannot be read.
    """
    waiting = iter(places)
    place = next(waiting, None)
    with opened(file) as table:
        start = 0
        for batch in table.iter_batches(ROWS_AT_ONCE, row_groups=[row_group], columns=[column]):
            while place is not None and place[0] < start + len(batch):
                yield content_of(batch.column(0)[place[0] - start].as_py(), place[1])
                place = next(waiting, None)
            if place is None:
                return
            start += len(batch)
    raise DataError(f"{file} has fewer rows than before; leave it alone while it is being read.")


def content_of(value: Any, item: int) -> bytes | None:
    """The bytes of a cell's picture."""
    found = as_list(value)[item]
    return found["bytes"] if isinstance(found, dict) else found
