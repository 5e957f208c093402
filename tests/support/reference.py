"""Reads the golden numbers of the original: from ../shared/reference, or the copies in tests/golden."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "reference"
GOLDEN = ROOT / "tests" / "golden"


class Fixture(NamedTuple):
    """One recorded computation of the original."""

    meta: dict[str, Any]
    params: dict[str, Tensor]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    grads: dict[str, Tensor]


def load_fixture(name: str) -> Fixture:
    """Loads e.g. "sva_joint/a_two_towers_kv1"; skips the test where neither folder holds it."""
    for root in (SHARED, GOLDEN):
        folder = root / name
        if (folder / "meta.json").is_file():
            tensors = {part: _load(folder, part) for part in ("params", "inputs", "outputs", "grads")}
            return Fixture(json.loads((folder / "meta.json").read_text()), **tensors)
    pytest.skip(f"{name} lies in ../shared/reference, which is absent here")


def _load(folder: Path, part: str) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob(f"{part}*.safetensors")):
        tensors |= load_file(file)
    return tensors
