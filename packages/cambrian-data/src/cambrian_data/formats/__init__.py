"""Outside forms of records, one module each: `read`, `write`, `to_record`, `from_record`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from cambrian_data.errors import DataError, RecordError
from cambrian_data.formats import chat, llava, plain
from cambrian_data.formats.rows import NumberedRow, read_rows
from cambrian_data.formats.stream import to_records
from cambrian_data.records import Record, Row, shown

__all__ = ["chat", "llava", "read_records"]


class Form(NamedTuple):
    """What a file's rows may be: the name for messages, the key by which a row is known, and its readers.

    `read_plain` reads the JSON of a row as `to_record(row).to_dict()`, many times faster, if the row is a plain one.
    """

    name: str
    key: str
    to_record: Callable[[Row, str | None], Record]
    read_plain: Callable[[bytes], Row | None]


FORMS = (
    Form("the chat form", chat.KEY, chat.to_record, plain.read_chat),
    Form("LLaVA's form", llava.KEY, llava.to_record, plain.read_llava),
)
"""In the order in which a row is recognised."""


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
            form = recognise(numbered.row, path, numbered.line)
            break
        if on_invalid is None:
            raise numbered.row
    else:
        raise DataError(f"{path} holds no records; expected JSON Lines in chat or LLaVA form.")
    yield from to_records(path, refuse_other_forms(path, chain(head, rows), form), form.to_record, on_invalid)


def recognise(row: Row, path: Path, line: int) -> Form:
    """The form that the row is in."""
    for form in FORMS:
        if form.key in row:
            return form
    raise RecordError(
        f'found the keys {shown(list(row))}; expected "messages" (chat form) or "conversations" (LLaVA\'s form).',
        path,
        line,
    )


def refuse_other_forms(path: Path, rows: Iterable[NumberedRow], form: Form) -> Iterator[NumberedRow]:
    """The rows, with an error in place of each that is in another form than the file's."""
    for line, row in rows:
        others = [] if isinstance(row, RecordError) or form.key in row else [it for it in FORMS if it.key in row]
        if not others:
            yield NumberedRow(line, row)
            continue
        problem = f"this file is in {form.name}, line {line} is in {others[0].name}; give each form a file of its own."
        yield NumberedRow(line, RecordError(problem, path, line))
