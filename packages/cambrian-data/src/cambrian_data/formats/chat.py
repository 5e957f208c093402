"""The Hugging Face chat form as JSON Lines: the form of `Record` itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cambrian_data.errors import RecordError
from cambrian_data.formats.rows import read_rows, write_rows
from cambrian_data.formats.stream import to_records
from cambrian_data.records import FIELDS, Record, Row

KEY = "messages"
"""The key by which a row of this form is known."""


def to_record(row: Row, location: str | None = None) -> Record:
    """A parsed row as a record; unknown keys are kept.

    Raises:
        RecordError: if the row is not a record in chat form.
    """
    for key, hint in (("messages", "the conversation"), ("images", "the list of image paths, [] for text alone")):
        if key not in row:
            raise RecordError(f'the record has no "{key}"; add {hint}.')
    for key in ("id", "source"):
        if key in row and row[key] is None:
            raise RecordError(f'"{key}" is null; give it a value or leave it out.')
    extra = {key: value for key, value in row.items() if key not in FIELDS}
    return Record(row.get("id"), row.get("source"), row["messages"], row["images"], extra, location)


def from_record(record: Record) -> Row:
    """The row of a record: the inverse of to_record.

    Raises:
        RecordError: if an image is held as bytes, which JSON cannot.
    """
    if any(isinstance(image, bytes) for image in record.images):
        raise RecordError(
            f"record {record.id!r} holds a picture as bytes; save it and name its path to write JSON Lines."
        )
    return {key: value for key, value in record.to_dict().items() if key not in ("id", "source") or value is not None}


def read(path: Path, on_invalid: Callable[[RecordError], None] | None = None) -> Iterator[Record]:
    """Streams the records of a file.

    Args:
        path: JSON Lines, or one JSON array.
        on_invalid: called with the error of each record that is dropped; without it the first error is raised.

    Raises:
        RecordError: with file and line.
        DataError: if the file cannot be read.
    """
    return to_records(Path(path), read_rows(Path(path)), to_record, on_invalid)


def write(path: Path, records: Iterable[Record]) -> int:
    """Writes JSON Lines; gives the number of records."""
    return write_rows(Path(path), map(from_record, records))
