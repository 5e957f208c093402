"""A file of records, read by number: of each one only its place in the file is held, 16 bytes.

A record and the paths of its images are looked at when they are asked for, so building a run's data reads no record and
opens no image. The rows of one JSON array have no line of their own; they are held in memory as the text they were.
"""

import os
import weakref
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from cambrian_cli.errors import CommandError
from cambrian_data import formats, images
from cambrian_data.errors import DataError, ImageError, RecordError
from cambrian_data.formats import rows
from cambrian_data.formats.stream import to_records
from cambrian_data.records import Record, Row
from cambrian_model.training.bad_samples import UnreadableSampleError

Sample = dict[str, Any]


class RecordFile:
    """The conversations of a file in any form we know, image paths absolute.

    Args:
        path: JSON Lines or one JSON array.
        folder: Where image paths begin.
        on_bad: Whether a file that cannot be read to its end is an error ("error"), or its rest is one bad sample.

    Raises:
        DataError: The file cannot be read, holds no records, or is in no known form.
    """

    def __init__(self, path: Path, folder: Path, on_bad: Literal["error", "skip"] = "error") -> None:
        self.path = path
        self._place = str(path)
        self._rows = _rows_of(path, on_bad)
        self._images = _ImageFolder(folder)
        self._form = self._recognise(on_bad)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Sample]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Sample:
        """Returns one conversation.

        Raises:
            UnreadableSampleError: The record is malformed, or an image path leads out of the folder; names its line.
        """
        if not -len(self) <= number < len(self):
            raise IndexError(f"{self.path} has {len(self)} records; asked for number {number}")
        line, content = self._rows.content(number % len(self))
        place = f"{self._place}:{line}"
        try:
            sample = self._form.read_plain(content) or self._record(number % len(self)).to_dict()
            images = sample["images"]
            sample["images"] = [self._images.locate(image) for image in images] if images else []
        except RecordError as error:
            raise UnreadableSampleError(place, error.problem) from error
        except ImageError as error:
            raise UnreadableSampleError(place, str(error)) from error
        if sample["id"] is None:
            sample["id"] = f"{self.path.name}:{line}"
        sample["location"] = place
        return sample

    def _record(self, number: int) -> Record:
        numbered = rows.NumberedRow(*self._rows.read(number))
        (record,) = to_records(
            self.path, formats.refuse_other_forms(self.path, [numbered], self._form), self._form.to_record, None
        )
        return record

    def _recognise(self, on_bad: str) -> formats.Form:
        """Returns the form of the first row that can be read."""
        if not len(self._rows):
            raise DataError(f"{self.path} holds no records; expected JSON Lines in chat or LLaVA form.")
        for number in range(len(self._rows)):
            line, row = self._rows.read(number)
            if not isinstance(row, RecordError):
                return formats.recognise(row, self.path, line)
            if on_bad == "error":
                raise row
        raise CommandError(f"{self.path}: none of its {len(self._rows)} records can be read.")


class _Lines:
    """The rows of JSON Lines: where each begins, and its line in the file, from 1."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts, self._lines = array("q"), array("q")
        with path.open("rb") as file:
            rows.first_character(file)  # leaves the file behind a byte order mark
            place = file.tell()
            for line, content in enumerate(file, start=1):
                if not content.isspace():
                    self._starts.append(place)
                    self._lines.append(line)
                place += len(content)
        self._starts.append(place)
        self._open()

    def __len__(self) -> int:
        return len(self._lines)

    def __getstate__(self) -> tuple[Path, "array[int]", "array[int]"]:
        return self._path, self._starts, self._lines

    def __setstate__(self, state: tuple[Path, "array[int]", "array[int]"]) -> None:
        self._path, self._starts, self._lines = state
        self._open()

    def content(self, number: int) -> tuple[int, bytes]:
        """Returns the line of a row, and what stands there."""
        start = self._starts[number]
        return self._lines[number], os.pread(self._file, self._starts[number + 1] - start, start)

    def read(self, number: int) -> tuple[int, Row | RecordError]:
        """Returns a row and its line."""
        line, content = self.content(number)
        return line, rows.parse(content.strip(), self._path, line, ended=content.endswith(b"\n"))

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)


class _Array:
    """The rows of one JSON array, as text in one piece of memory; `errors` stand where it breaks off."""

    def __init__(self, path: Path, numbered: Iterable[rows.NumberedRow]) -> None:
        self._path = path
        self._text = bytearray()
        self._starts, self._lines = array("q", [0]), array("q")
        self.errors: dict[int, RecordError] = {}
        for line, row in numbered:
            if isinstance(row, RecordError):
                self.errors[len(self._lines)] = row
            else:
                self._text += rows.encode(row)
            self._starts.append(len(self._text))
            self._lines.append(line)

    def __len__(self) -> int:
        return len(self._lines)

    def content(self, number: int) -> tuple[int, bytes]:
        """Returns the line of a row, and its JSON; nothing in place of an error."""
        return self._lines[number], bytes(memoryview(self._text)[self._starts[number] : self._starts[number + 1]])

    def read(self, number: int) -> tuple[int, Row | RecordError]:
        """Returns a row and its line."""
        line, content = self.content(number)
        if number in self.errors:
            return line, self.errors[number]
        return line, rows.parse(content, self._path, line, ended=True)


class _ImageFolder:
    """Finds images in a folder, and never outside, as `images.locate` does; each folder inside is looked up once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._found: dict[str, str] = {}

    def locate(self, image: str) -> str:
        """Returns the absolute path of an image."""
        parent, _, name = image.rpartition("/")
        if _is_unusual(image) or name in ("", "."):
            return str(images.locate(self._root, image))  # the unusual, most of it to be refused
        if parent not in self._found:
            self._found[parent] = str(images.locate(self._root, parent or "."))
        path = f"{self._found[parent]}/{name}"
        return str(images.locate(self._root, image)) if os.path.islink(path) else path  # noqa: PTH114  (ten times faster)


def _is_unusual(image: str) -> bool:
    """Whether a path has signs of one that is to be refused."""
    return "\0" in image or "\\" in image or ":" in image or ".." in image or image.startswith("/")


def _rows_of(path: Path, on_bad: str) -> _Lines | _Array:
    try:
        with path.open("rb") as file:
            rows.check_encoding(path, file)
            is_array = rows.first_character(file) == b"["
        if not is_array:
            return _Lines(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}.") from error
    found = _Array(path, rows.read_rows(path))
    if found.errors and on_bad == "error":
        raise next(iter(found.errors.values()))
    return found
