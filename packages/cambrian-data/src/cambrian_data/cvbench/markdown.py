"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def table(columns: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A table with a line break at its end; what came from data cannot end a cell."""
    lines = (columns, ["---"] * len(columns), *rows)
    return "".join(f"| {' | '.join(map(escaped, line))} |\n" for line in lines)


def escaped(cell: object) -> str:
    """A cell in one line."""
    return str(cell).replace("|", "\\|").replace("\n", " ")
