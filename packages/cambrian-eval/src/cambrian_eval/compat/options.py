"""Options of a row, by the columns in which benchmarks keep them."""

from __future__ import annotations

from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from cambrian_eval.errors import DataError

_COLUMNS = ("choices", "options", "text_options")
EMPTY = "nan"


def options_of(row: Mapping[str, Any], benchmark: str) -> dict[str, str]:
    """Options by letter: from a list, or from columns named A, B and so on, of which null ones are no options.

    A column that holds the text "nan", as MMBench's empty ones do, is an option: the tools take it for one.

    Raises:
        DataError: The row has neither.
    """
    for column in _COLUMNS:
        if column in row:
            return dict(zip(ascii_uppercase, row[column], strict=False))
    found = {letter: row[letter] for letter in ascii_uppercase if row.get(letter) is not None}
    if not found:
        raise DataError(
            f"{benchmark}: the row holds {', '.join(map(str, row)) or 'nothing'}; expected its options, as a list in "
            f"{' or '.join(_COLUMNS)} or in columns A, B and so on."
        )
    return found


def letter_of(truth: str) -> str:
    """The letter of "(A)", "(a)" or "A"."""
    return truth.strip("()").upper()
