"""A built benchmark as it lies on the disk."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LETTERS = "ABCDEF"


@dataclass(frozen=True)
class Built:
    """Everything that was written.

    Attributes:
        folder: of the benchmark.
        rows: of both JSONL files, in order, 2D before 3D.
        geometry: by idx.
        manifest: of cvbench.json.
    """

    folder: Path
    rows: tuple[dict[str, Any], ...]
    geometry: dict[int, dict[str, Any]]
    manifest: dict[str, Any]

    def rules(self, source: str) -> dict[str, Any]:
        """The rules that were applied to a source."""
        return self.manifest["request"]["rules"]["scenes" if source.startswith("Scenes") else "photographs"]


def read(folder: Path) -> Built:
    """The built folder."""
    rows = tuple(row for part in ("2d", "3d") for row in lines(folder / f"test_{part}.jsonl"))
    geometry = {line["idx"]: line for line in lines(folder / "geometry.jsonl")}
    return Built(folder, rows, geometry, json.loads((folder / "cvbench.json").read_text()))


def lines(file: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; none where it was not written."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def right(row: dict[str, Any]) -> str | None:
    """The text of the right choice; None if its letter names none."""
    letter = row["answer"].strip("()")
    place = LETTERS.find(letter) if len(letter) == 1 else -1
    return row["choices"][place] if 0 <= place < len(row["choices"]) else None
