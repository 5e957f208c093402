"""Parquet files, opened such that whatever is wrong with one is an error that names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cambrian_data.errors import DataError


@contextmanager
def opened(file: Path) -> Iterator[pq.ParquetFile]:
    """The file, closed at the end; what is wrong with it becomes a DataError."""
    try:
        with pq.ParquetFile(file) as table:
            yield table
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as Parquet ({error}); write or download it again.") from error
