"""Outside forms of records, one module each: `read`, `write`, `to_record`, `from_record`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from cambrian_data.errors import DataError, RecordError
from cambrian_data.formats import chat, llava
from cambrian_data.formats.rows import read_rows
from cambrian_data.formats.stream import to_records
from cambrian_data.records import Record, Row, shown

__all__ = ["chat", "llava", "read_records"]


def read_records(path: Path, on_invalid: Callable[[RecordError], None] | None = None) -> Iterator[Record]:
    """Streams the records of a file in any form we know, recognised by its first readable row.

    Args:
        path: JSON Lines or one JSON array, in chat form ("messages") or LLaVA's ("conversations").
        on_invalid: called with the error of each record that is dropped; without it the first error is raised.

    Raises:
        RecordError: for a record that is not in the file's form, with file and line.
        DataError: if the file cannot be read, is empty, or is in another form.
    """
    path = Path(path)
    rows = read_rows(path)
    head = []
    for numbered in rows:
        head.append(numbered)
        if not isinstance(numbered.row, RecordError):
            to_record = recognise(numbered.row, path, numbered.line)
            break
        if on_invalid is None:
            raise numbered.row
    else:
        raise DataError(f"{path} holds no records; expected JSON Lines in chat or LLaVA form.")
    yield from to_records(path, chain(head, rows), to_record, on_invalid)


def recognise(row: Row, path: Path, line: int) -> Callable[[Row, str | None], Record]:
    """The to_record of the form that the row is in."""
    if chat.KEY in row:
        return chat.to_record
    if llava.KEY in row:
        return llava.to_record
    raise RecordError(
        f'found the keys {shown(list(row))}; expected "messages" (chat form) or "conversations" (LLaVA\'s form).',
        path,
        line,
    )
