"""Tables as CSV, to full precision. No cell of it is a formula to a spreadsheet, whatever a model is called."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cambrian_eval.metrics import MetricRow

LEVELS = (
    *("accuracy", "low", "high", "chance", "best_constant", "parse_rate"),
    *("n", "num_units", "full", "design_effect"),
)
ROW_COLUMNS = ("group", "name", "label", *LEVELS)

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(columns: Sequence[str], rows: Iterable[Sequence[str | float | None]]) -> str:
    """The text of a CSV file; None is an empty cell, and a text that a spreadsheet would run gets a quote in front."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([_cell(column) for column in columns])
    writer.writerows([_cell(cell) for cell in row] for row in rows)
    return file.getvalue()


def row_cells(row: MetricRow) -> list[str | float | None]:
    """The cells of `ROW_COLUMNS`."""
    levels = row.to_dict()
    return [row.group, row.name, row.label, *(levels[name] for name in LEVELS)]


def _cell(cell: str | float | None) -> str | float | None:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
