"""Reads a split that its authors publish in a file of its own name, or in any form that `dataset.read_split` finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian_eval.dataset import find_split, read_split
from cambrian_eval.errors import DataError
from cambrian_eval.picture import Album
from cambrian_eval.rows import read_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cambrian_eval.rows import Row


def read_published(
    folder: Path, name: str, split: str, fields: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[Row]:
    """Read the rows of the file `name` in the folder, or of the split where there is no such file.

    Raises:
        DataError: Neither is there, a field is missing, or there are no rows.
    """
    path = folder / name
    if not path.is_file():
        check_split(folder, name, split)
        yield from read_split(folder, split, fields, optional=optional)
        return
    row = None
    for row in read_rows(path, fields, optional, Album(folder)):
        yield row
    if row is None:
        raise DataError(f"{path}: a file without questions; found 0 rows, expected at least one.")


def check_split(folder: Path, name: str, split: str) -> None:
    """Complain about a missing split with the published file's name.

    Raises:
        DataError: The split is not there.
    """
    try:
        find_split(folder, split)
    except DataError as error:
        raise DataError(f"{error} The published file is {name}.") from None
