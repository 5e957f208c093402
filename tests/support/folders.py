"""What lies in a folder: all of its files, and the rows of a benchmark in the hub's layout."""

import json
from pathlib import Path
from typing import Any


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file, by its path in the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of test_2d.jsonl and test_3d.jsonl, or of the one that is there."""
    texts = [path.read_text() for part in ("2d", "3d") if (path := folder / f"test_{part}.jsonl").exists()]
    return [json.loads(line) for text in texts for line in text.splitlines()]
