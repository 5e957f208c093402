"""Rows: the JSON objects of a file, one a line or in one array, read as a stream with their line numbers."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from cambrian_data.errors import DataError, RecordError
from cambrian_data.records import Row, shown

CHUNK_BYTES = 1 << 18
MAX_ROW_BYTES = 64 << 20  # what a broken array may make us hold before we give up
SPACE = " \t\r\n"
NUL_CAUSE = "NUL bytes, which no UTF-8 text has; save the file as UTF-8"


class NumberedRow(NamedTuple):
    """A row and the line of the file, from 1, on which it begins; an error in place of a row that is no JSON object."""

    line: int
    row: Row | RecordError


def read_rows(path: Path) -> Iterator[NumberedRow]:
    """Streams the rows of a JSON Lines file, or of one JSON array of objects, as its first character tells.

    A byte order mark, CRLF, blank lines and a last line without its end are accepted. A line that is malformed comes
    as an error in its place, and the next line is read; an array cannot be read past such a place.

    Raises:
        DataError: if the file cannot be opened or read, or is UTF-16 or other than text.
    """
    try:
        with path.open("rb") as file:
            check_encoding(path, file)
            first = first_character(file)
            if first == b"[":
                yield from read_array(path, file)
            else:
                yield from read_lines(path, file)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}.") from error


def check_encoding(path: Path, file: BinaryIO) -> None:
    """Raises DataError for UTF-16 and UTF-32, with or without their mark; the file is left at its start."""
    head = file.read(4)
    file.seek(0)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in head:
        raise DataError(f"{path} is not UTF-8 but UTF-16 or no text at all; save the file as UTF-8.")


def first_character(file: BinaryIO) -> bytes:
    """The first byte that is no white space; the file is left after a byte order mark, or at its start."""
    head = file.read(len(codecs.BOM_UTF8))
    start = len(head) if head == codecs.BOM_UTF8 else 0
    file.seek(start)
    while (byte := file.read(1)).isspace():
        pass
    file.seek(start)
    return byte


def read_lines(path: Path, file: BinaryIO) -> Iterator[NumberedRow]:
    """The rows of JSON Lines."""
    for line, content in enumerate(file, start=1):
        if content.strip():
            ended = content.endswith(b"\n")
            yield NumberedRow(line, parse(content.strip(), path, line, ended=ended))


def parse(content: bytes, path: Path, line: int, *, ended: bool) -> Row | RecordError:
    """The JSON object, or what is wrong with it."""
    try:
        row = msgspec.json.decode(content)
    except UnicodeDecodeError as error:
        return RecordError(f"invalid UTF-8 at byte {error.start + 1} of a text; save the file as UTF-8.", path, line)
    except (msgspec.DecodeError, RecursionError) as error:
        if b"\0" in content:
            return RecordError(f"not UTF-8: found {NUL_CAUSE}.", path, line)
        cause = "the file ends in the middle of this record. " if not ended else ""
        return RecordError(
            f"malformed JSON: {cause}{explain(content, error)}. Fix or remove the record.",
            path,
            line,
        )
    if not isinstance(row, dict):
        return RecordError(f"found {shown(row)}; expected a JSON object, one on each line.", path, line)
    return row


def explain(content: bytes, error: Exception) -> str:
    """Where and why the JSON is malformed."""
    try:
        json.loads(content)
    except json.JSONDecodeError as found:
        return f"{found.msg.lower()} at column {found.colno}"
    except UnicodeDecodeError as found:
        return f"invalid UTF-8 at byte {found.start + 1}"
    except RecursionError:
        return "nested too deeply"
    if b"\\ud" in content.lower():
        return "half of a surrogate pair, which is no character"
    return str(error)


def read_array(path: Path, file: BinaryIO) -> Iterator[NumberedRow]:
    """The objects of one JSON array, as LLaVA ships its data; holds one object at a time."""
    window = Window(file)
    try:
        window.skip_space()
        window.take("[")
        window.skip_space()
        while not window.starts_with("]"):
            line, text = window.line, window.take_object()
            yield NumberedRow(line, parse(text.encode(), path, line, ended=True))
            window.skip_space()
            if not window.starts_with("]"):
                window.take(",")
                window.skip_space()
        window.take("]")
        window.skip_space()
        if window.text:
            raise ValueError("text after the end of the array")
    except UnicodeDecodeError:
        yield NumberedRow(
            window.line,
            RecordError("invalid UTF-8 in this record or after it; save the file as UTF-8.", path, window.line),
        )
    except (ValueError, RecursionError) as error:
        yield NumberedRow(
            window.line,
            RecordError(f"malformed JSON array: {error}. The rest of it cannot be read.", path, window.line),
        )


class Window:
    """The part of a text file that is being looked at, and the number of its first line."""

    def __init__(self, file: BinaryIO) -> None:
        self.text = ""
        self.line = 1
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def extend(self, size: int = CHUNK_BYTES) -> bool:
        """Reads on; False at the end of the file."""
        content = self._file.read(size)
        self.text += self._decoder.decode(content, final=not content)
        if "\0" in self.text:
            raise ValueError(f"not UTF-8: in this record or after it are {NUL_CAUSE}")
        return bool(content)

    def drop(self, count: int) -> None:
        """Moves past characters."""
        self.line += self.text.count("\n", 0, count)
        self.text = self.text[count:]

    def skip_space(self) -> None:
        """Moves to the next character that means something."""
        while True:
            self.drop(len(self.text) - len(self.text.lstrip(SPACE)))
            if self.text or not self.extend():
                return

    def starts_with(self, character: str) -> bool:
        """Whether the character is next."""
        return self.text.startswith(character)

    def take(self, character: str) -> None:
        """Moves past the expected character."""
        if not self.starts_with(character):
            raise ValueError(f'found {self.describe()}, expected "{character}"')
        self.drop(1)

    def describe(self) -> str:
        """What is next, for messages."""
        return f'"{self.text[0]}"' if self.text else "the end of the file"

    def take_object(self) -> str:
        """Moves past one JSON object and gives its text; reads twice as far each time its end is not yet in sight."""
        if not self.starts_with("{"):
            raise ValueError(f"found {self.describe()}, expected an object")
        while True:
            try:
                _, end = json.JSONDecoder().raw_decode(self.text)
            except json.JSONDecodeError as error:
                if len(self.text) > MAX_ROW_BYTES or not self.extend(max(CHUNK_BYTES, len(self.text))):
                    line = self.line + error.lineno - 1
                    raise ValueError(f"{error.msg.lower()} at line {line}, column {error.colno}") from None
            else:
                text = self.text[:end]
                self.drop(end)
                return text


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Writes JSON Lines (UTF-8, LF) that is either whole or not there; gives the number of rows.

    Raises:
        RecordError: if a row cannot be written as JSON.
        DataError: if the file cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    count = 0
    try:
        with temporary.open("wb") as file:
            for count, row in enumerate(rows, start=1):  # noqa: B007  (the count is the result)
                file.write(encode(row) + b"\n")
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}. Make room or choose another place."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return count


def encode(row: Row) -> bytes:
    """The row as JSON."""
    try:
        return msgspec.json.encode(row)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise RecordError(f"the record {shown(row.get('id'))} cannot be written as JSON: {error}.") from error
