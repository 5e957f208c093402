"""A picture that a row may be without."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cambrian_eval.picture import Picture
    from cambrian_eval.rows import Row


def optional_picture(row: Row, field: str, *, file: str = "") -> Picture | None:
    """The picture of a field; None where the field is null, empty or absent.

    Args:
        row: Where it stands.
        field: Holds the picture or its file's name.
        file: A field that names the file instead, if the table may have one.

    Raises:
        DataError: There is a picture, but it cannot be read.
    """
    value = row.values.get(field)
    there = any(value.values()) if isinstance(value, dict) else bool(value)
    return row.picture(field, file=file) if there or row.values.get(file) else None
