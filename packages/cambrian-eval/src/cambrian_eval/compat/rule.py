"""What a rule of another tool is, and the score it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cambrian_eval.errors import DataError
from cambrian_eval.types import Score

Rule = Callable[[str, Any, Mapping[str, Any]], Score]
"""Reply, truth as the benchmark's file writes it, and what else the row holds -> score.

Raises AbstainError where the original crashes.
"""


def scored(right: bool | float, extracted: str, rule: str) -> Score:
    """The score of a reply that was read."""
    return Score(float(right), extracted, rule)


def needed(row: Mapping[str, Any], key: str, benchmark: str) -> Any:
    """A value of the row that the benchmark's rule cannot do without.

    Raises:
        DataError: The row lacks it.
    """
    if key not in row:
        found = ", ".join(map(str, row)) or "nothing"
        raise DataError(f"{benchmark}: the row holds {found}; its rule also needs {key}.")
    return row[key]
