"""The audit's CSV files: UTF-8, one header line, written whole or not at all."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

Value = str | int | float | bool | None


def cell(value: Value) -> str:
    """A value as it stands in a CSV file: nothing for None, yes and no, shares with four digits."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


class TableFile:
    """A CSV file that takes its name when it is complete.

    Args:
        path: to write.
        columns: of the header.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path, self._temporary = path, path.with_name(path.name + ".tmp")
        self._file = self._temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(columns)

    def __enter__(self) -> TableFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        if kind is None:
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink(missing_ok=True)

    def write(self, values: Iterable[Value]) -> None:
        """Adds a row."""
        self._writer.writerow([cell(value) for value in values])
