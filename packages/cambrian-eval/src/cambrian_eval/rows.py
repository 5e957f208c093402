"""Rows of a table file, Parquet or JSONL, each with the place it came from and its required fields present."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from cambrian_eval.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path


class Row(NamedTuple):
    """One row and where it stands: `file:row`, counted from 1."""

    place: str
    values: dict[str, Any]


def read_rows(path: Path, required: Sequence[str]) -> Iterator[Row]:
    """Read a `.parquet` or `.jsonl` file row by row.

    Raises:
        DataError: The file cannot be read, or a required field is missing.
    """
    return _parquet_rows(path, required) if path.suffix == ".parquet" else _jsonl_rows(path, required)


def _parquet_rows(path: Path, required: Sequence[str]) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _require(path.name, file.schema_arrow.names, required)
            number = 0
            for batch in file.iter_batches(batch_size=64):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"{path.name}:{number}", values)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name}: cannot be read as Parquet ({error}). Download or write it again.") from error


def _jsonl_rows(path: Path, required: Sequence[str]) -> Iterator[Row]:
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
            yield Row(place, values)


def _require(place: str, found: Iterable[str], required: Sequence[str]) -> None:
    names = list(found)
    missing = [name for name in required if name not in names]
    if missing:
        raise DataError(
            f"{place}: missing field {', '.join(map(repr, missing))}; found: {', '.join(names)}; "
            f"needed: {', '.join(required)}. Add the field or use the published data."
        )
