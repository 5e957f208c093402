"""Rows of a table file, Parquet, JSONL or CSV, each with the place it came from and its fields checked when read."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from cambrian_eval.errors import DataError
from cambrian_eval.picture import Album

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from cambrian_eval.picture import Picture

_BATCH = 16  # rows of Parquet in memory at once, pictures included


@dataclass(frozen=True)
class Row:
    """One row: typed access to its fields, every complaint with the row's place.

    Attributes:
        place: `file:row`, counted from 1 (JSONL and CSV: the line).
        values: Its fields as they were read; an optional field that the file lacks is None.
        album: Where its pictures are found and kept.
    """

    place: str
    values: dict[str, Any]
    album: Album

    def error(self, field: str, expected: str) -> DataError:
        """What to raise where a field holds something else than `expected`."""
        found = repr(self.values[field])
        shown = found if len(found) <= 200 else f"{found[:200]}..."
        return DataError(f"{self.place}: found {field} {shown}, expected {expected}.")

    def text(self, field: str) -> str:
        """A text that is not blank, as it stands."""
        value = self.values[field]
        if not isinstance(value, str) or not value.strip():
            raise self.error(field, "a text")
        return value

    def optional_text(self, field: str) -> str:
        """A text; empty where the field is blank, null or absent."""
        value = self.values[field]
        if not isinstance(value, str | None):
            raise self.error(field, "a text or nothing")
        return value if value and value.strip() else ""

    def key(self, field: str) -> str:
        """A name or a whole number that identifies something, as text."""
        value = self.values[field]
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str) or not value.strip():
            raise self.error(field, "a name or a whole number")
        return value.strip()

    def optional_number(self, field: str) -> float | None:
        """A finite number, or None where the field is null, blank or absent."""
        value = self.values[field]
        if value is None or value == "":
            return None
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise self.error(field, "a number or nothing")
        return number

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of texts, as it stands; in CSV written as a JSON list. Empty where the list is."""
        value = self._list(field)
        if value is None or not all(isinstance(item, str) for item in value):
            raise self.error(field, "a list of texts")
        return tuple(value)

    def optional_texts(self, field: str) -> tuple[str, ...]:
        """A list of texts, as it stands; empty where the field is null, absent or all blank, as secret answers are."""
        texts = () if self.values[field] is None else self.texts(field)
        return texts if any(text.strip() for text in texts) else ()

    def one_of(self, field: str, names: Sequence[str]) -> str:
        """One of `names`, whatever its case in the data."""
        value = self.values[field]
        found = {name.casefold(): name for name in names}
        if not isinstance(value, str) or value.strip().casefold() not in found:
            raise self.error(field, f"one of {', '.join(names)}")
        return found[value.strip().casefold()]

    def inner(self, field: str, name: str) -> str:
        """A text inside a field that holds named texts."""
        value = self.values[field]
        text = value.get(name) if isinstance(value, dict) else None
        if not isinstance(text, str) or not text.strip():
            raise self.error(field, f"named texts with {name!r} among them")
        return text

    def choices(self, field: str) -> tuple[str, ...]:
        """Two to 26 options, in order; numbers become texts."""
        value = self._list(field)
        if value is None or not 2 <= len(value) <= len(ascii_uppercase):
            raise self.error(field, "a list of 2 to 26 texts")
        if not all(isinstance(choice, str | int | float) for choice in value):
            raise self.error(field, "a list of texts or numbers")
        return tuple(str(choice) for choice in value)

    def letter(self, field: str, choices: Sequence[str]) -> str:
        """The letter of one of `choices`, written "B" or "(B)"."""
        match = re.fullmatch(r"\(?([A-Z])\)?", str(self.values[field]).strip())
        if match is None or match[1] not in ascii_uppercase[: len(choices)]:
            raise self.error(field, f"a letter from (A) to ({ascii_uppercase[len(choices) - 1]})")
        return match[1]

    def picture(self, field: str, *, file: str = "file_name") -> Picture:
        """The picture in `field`: its bytes, or the name of a file in the data's folder.

        Args:
            field: Holds `{"bytes", "path"}`, as the hub's tables do, the bytes alone, or a file's name.
            file: The field that names the picture, and its file where `field` is null or absent.

        Raises:
            DataError: No picture, a name that leads out of the folder, or a file that is not there.
        """
        value = self.values.get(field)
        return self._picture(field, value, str(self.values.get(file) or ""))

    def pictures(self, field: str) -> tuple[Picture, ...]:
        """The pictures of a field that holds one or a list of them, in order; at least one."""
        value = self.values[field]
        items = value if isinstance(value, list) else [value]
        if not items:
            raise self.error(field, "at least one picture")
        return tuple(self._picture(field, item, "") for item in items)

    def _list(self, field: str) -> list[Any] | None:
        value = self.values[field]
        if isinstance(value, str) and value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return None
        return value if isinstance(value, list) else None

    def _picture(self, field: str, value: Any, named: str) -> Picture:
        if isinstance(value, str):
            return self.album.file(value, self.place)
        if isinstance(value, bytes) and value:
            return self.album.embedded(named or self.place, value)
        data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (None, None)
        if not isinstance(data, bytes | None):
            raise DataError(f"{self.place}: found {field}.bytes of type {type(data).__name__}, expected bytes.")
        if data:
            return self.album.embedded(str(named or path or self.place), data)
        return self.album.file(str(path or named), self.place)


def read_rows(
    path: Path, required: Sequence[str], optional: Sequence[str] = (), album: Album | None = None
) -> Iterator[Row]:
    """Read a `.parquet`, `.jsonl` or `.csv` file row by row; of Parquet only the named columns.

    Args:
        path: The file.
        required: Fields that every row has.
        optional: Further fields to read; None where a row has none.
        album: Keeps the pictures; by default one of the file's folder.

    Raises:
        DataError: The file cannot be read, or a required field is missing.
    """
    read = {".parquet": _parquet, ".jsonl": _jsonl, ".csv": _csv}[path.suffix]
    kept = album or Album(path.parent)
    names = (*required, *(name for name in optional if name not in required))
    for place, values in read(path, required, names):
        yield Row(place, {name: values.get(name) for name in names}, kept)


def _parquet(path: Path, required: Sequence[str], names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            found = file.schema_arrow.names
            _require(path.name, found, required)
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH, columns=[name for name in names if name in found]):
                for values in batch.to_pylist():
                    number += 1
                    yield f"{path.name}:{number}", values
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name}: cannot be read as Parquet ({error}). Download or write it again.") from error


def _jsonl(path: Path, required: Sequence[str], _names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{path.name}:{number}"
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{place}: not JSON ({error}); one object a line is expected.") from error
            if not isinstance(values, dict):
                raise DataError(f"{place}: found {type(values).__name__}, expected an object with named fields.")
            _require(place, values, required)
            yield place, values


def _csv(path: Path, required: Sequence[str], _names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, strict=True)
            _require(path.name, table.fieldnames or (), required)
            for values in table:
                place = f"{path.name}:{table.line_num}"
                if None in values or None in values.values():
                    raise DataError(
                        f"{place}: found another number of cells than the header has. Quote cells that hold commas."
                    )
                yield place, values
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(
            f"{path.name}: cannot be read as CSV ({error}). UTF-8 with a header line is expected."
        ) from error


def _require(place: str, found: Iterable[str], required: Sequence[str]) -> None:
    names = list(found)
    missing = [name for name in required if name not in names]
    if missing:
        raise DataError(
            f"{place}: missing field {', '.join(map(repr, missing))}; found: {', '.join(names)}; "
            f"needed: {', '.join(required)}. Add the field or use the published data."
        )
