"""A part of the benchmark as Parquet with the pictures in it, as `datasets.load_dataset` reads it: written in pieces.

The schema's metadata tells the `datasets` library which column holds pictures. Pieces (row groups) are small, so that
neither who writes nor who reads needs more memory than for some pictures.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Self

import pyarrow as pa
import pyarrow.parquet as pq

from cambrian_data.records import Row

PIECE_ROWS = 64
PIECE_BYTES = 32 << 20

TEXTS = (
    *("question", "answer", "prompt", "filename", "source", "source_dataset", "source_filename", "target_class"),
    *("type", "task"),
)
FORMS = {name: pa.string() for name in TEXTS} | {
    "idx": pa.int64(),
    "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    "choices": pa.list_(pa.string()),
    "target_size": pa.float64(),
    "bbox": pa.list_(pa.list_(pa.float64())),
}
COLUMNS = (
    *("idx", "type", "task", "image", "question", "choices", "answer", "prompt", "filename", "source"),
    *("source_dataset", "source_filename", "target_class", "target_size", "bbox"),
)


def feature(form: Any) -> dict[str, Any]:
    """A column's form as the `datasets` library writes it down, in the spelling that old and new versions read."""
    if pa.types.is_list(form):
        return {"feature": feature(form.value_type), "_type": "Sequence"}
    if pa.types.is_struct(form):
        return {"_type": "Image"}
    return {"dtype": "float64" if pa.types.is_float64(form) else str(form), "_type": "Value"}


SCHEMA = pa.schema(
    [(name, FORMS[name]) for name in COLUMNS],
    metadata={"huggingface": json.dumps({"info": {"features": {name: feature(FORMS[name]) for name in COLUMNS}}})},
)


class PartTable:
    """Writes the rows of one part to a file, each with its picture; a context, at whose end the file is whole."""

    def __init__(self, file: BinaryIO) -> None:
        plain = [name for name in COLUMNS if name != "image"]  # no two pictures are alike
        self._writer = pq.ParquetWriter(file, SCHEMA, use_dictionary=plain, write_statistics=False)
        self._rows: list[Row] = []
        self._size = 0

    def add(self, row: Row, picture: bytes) -> None:
        """Takes one row of the layout and the bytes of its picture."""
        self._rows.append({**row, "image": {"bytes": picture, "path": PurePosixPath(row["filename"]).name}})
        self._size += len(picture)
        if len(self._rows) >= PIECE_ROWS or self._size >= PIECE_BYTES:
            self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if error == (None, None, None):
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=SCHEMA))
        self._rows, self._size = [], 0
