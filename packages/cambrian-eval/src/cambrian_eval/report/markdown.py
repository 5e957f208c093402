"""Tables in Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers, with a final newline."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "".join(f"| {' | '.join(map(markdown_cell, line))} |\n" for line in lines)


def markdown_cell(text: str) -> str:
    """A text that neither ends its cell nor its line, and that starts no HTML, link, picture or code."""
    return " ".join(re.sub(r"[\\|\[`]", r"\\\g<0>", text).replace("<", "&lt;").split())
