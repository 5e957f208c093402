"""A small built benchmark about rendered scenes, as a review reads it."""

import json
from pathlib import Path
from typing import Any

from cambrian_data.cvbench.benchmark import write_benchmark
from cambrian_data.cvbench.inputs import Form, Input
from cambrian_data.scenes import write_scenes

PER_TASK = 4


def write_reviewable(scenes: Path, folder: Path) -> Path:
    """Writes scenes (unless they are there) and a benchmark of four questions of each task about them."""
    write_scenes(scenes, count=40, seed=2)
    write_benchmark([Input(Form.SCENES, scenes)], folder, count_per_task=PER_TASK, seed=1)
    return folder


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of both JSONL files."""
    texts = [(folder / f"test_{part}.jsonl").read_text() for part in ("2d", "3d")]
    return [json.loads(line) for text in texts for line in text.splitlines()]
