"""Rows -> records, with the place of every error, and what to do with the invalid ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cambrian_data.errors import RecordError
from cambrian_data.formats.rows import NumberedRow
from cambrian_data.records import Record, Row


def to_records(
    path: Path,
    rows: Iterable[NumberedRow],
    to_record: Callable[[Row, str | None], Record],
    on_invalid: Callable[[RecordError], None] | None,
) -> Iterator[Record]:
    """Converts rows one by one; hands errors, with file and line, to on_invalid, or raises the first."""
    for line, row in rows:
        try:
            if isinstance(row, RecordError):
                raise row
            record = to_record(row, f"{path}:{line}")
        except RecordError as error:
            placed = error if error.file is not None else error.at(path, line)
            if on_invalid is None:
                raise placed from None
            on_invalid(placed)
        else:
            yield record
