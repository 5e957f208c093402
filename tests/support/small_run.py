"""A run of a few steps of a small model: what tests of `train` share."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from cambrian_model.training import Progress, load_recipe
from cambrian_model.training.metrics import read_metrics
from cambrian_model.training.recipe import Recipe

SMALL = Path(__file__).with_name("small.yaml")
TIMES = ("seconds", "data_seconds", "memory_gb")  # of a line of metrics: what differs between two equal runs


def small_recipe(*overrides: str) -> Recipe:
    """Returns the recipe, with whatever differs."""
    return load_recipe(SMALL, overrides)


def lines(run: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Returns the lines of one kind of a run's metrics, without times; None: those of steps."""
    found = [line for line in read_metrics(run / "metrics.jsonl") if line.get("kind") == kind]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in found]


def losses(run: Path) -> list[float | None]:
    """Returns the loss of every step."""
    return [line["loss"] for line in lines(run)]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Returns all tensors of a folder of safetensors files."""
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def assert_same_tensors(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Compares bit by bit."""
    assert found.keys() == expected.keys()
    assert [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)] == []


def assert_same_run(found: Path, expected: Path) -> None:
    """Compares steps, validations and evaluations, and the weights that a run ended with, bit by bit."""
    for kind in (None, "validation", "evaluation"):
        assert lines(found, kind) == lines(expected, kind)
    assert_same_tensors(tensors(found / "checkpoint"), tensors(expected / "checkpoint"))


class Interrupt:
    """A `progress` that ends the run after a step of a stage, as Ctrl-C does: what is not saved by then is lost."""

    def __init__(self, step: int, stage: str = "align") -> None:
        self.step, self.stage = step, stage

    def __call__(self, now: Progress) -> None:
        """Raises KeyboardInterrupt when it is time."""
        if (now.phase, now.stage, now.done) == ("train", self.stage, self.step):
            raise KeyboardInterrupt


def spoil_pixels(picture: Path) -> None:
    """Makes a PNG of which the header and all parts are whole, and the pixels cannot be decoded."""
    content = bytearray(picture.read_bytes())
    start = content.index(b"IDAT") + 4
    content[start : start + 6] = bytes(6)
    picture.write_bytes(content)
