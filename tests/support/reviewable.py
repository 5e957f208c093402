"""A small built benchmark about rendered scenes, as a review reads it."""

from pathlib import Path

from cambrian_data.cvbench.benchmark import write_benchmark
from cambrian_data.cvbench.inputs import Form, Input
from cambrian_data.scenes import write_scenes

PER_TASK = 4


def write_reviewable(scenes: Path, folder: Path) -> Path:
    """Writes scenes (unless they are there) and a benchmark of four questions of each task about them."""
    write_scenes(scenes, count=40, seed=2)
    write_benchmark([Input(Form.SCENES, scenes)], folder, count_per_task=PER_TASK, seed=1)
    return folder
