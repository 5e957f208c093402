"""The random generators of one process: Python's, NumPy's, torch's on the CPU and on the accelerator it uses.

They are captured at once, written later, in safetensors: arrays as tensors, single numbers as JSON in its header.
"""

import hashlib
import json
import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

NUMBERS = "numbers"  # key of the file's header


class RandomState(NamedTuple):
    """What all generators need to go on: arrays, and what else they keep."""

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]


def capture_random_state() -> RandomState:
    """Returns the state of this process's generators."""
    version, words, gauss_next = random.getstate()
    numpy_state: dict[str, Any] = np.random.get_state(legacy=False)
    tensors = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
    }
    if device := torch.accelerator.current_accelerator(check_available=True):
        # Of this process's own device only: to ask the others would open them all on every rank.
        tensors[device.type] = torch.get_device_module(device).get_rng_state()
    numbers = {
        "python": [version, gauss_next],
        "numpy": [numpy_state["state"]["pos"], numpy_state["has_gauss"], numpy_state["gauss"]],
    }
    return RandomState(tensors, numbers)


def restore_random_state(state: RandomState) -> None:
    """Puts this process's generators into a state; that of an accelerator which is not here stays unused."""
    torch.set_rng_state(state.tensors["torch"])
    version, gauss_next = state.numbers["python"]
    random.setstate((version, tuple(state.tensors["python"].tolist()), gauss_next))
    pos, has_gauss, gauss = state.numbers["numpy"]
    key = state.tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state(
        {"bit_generator": "MT19937", "state": {"key": key, "pos": pos}, "has_gauss": has_gauss, "gauss": gauss}
    )
    device = torch.accelerator.current_accelerator(check_available=True)
    if device and device.type in state.tensors:
        torch.get_device_module(device).set_rng_state(state.tensors[device.type])


def write_random_state(state: RandomState, path: Path) -> None:
    """Writes a state as safetensors."""
    save_file(state.tensors, path, metadata={NUMBERS: json.dumps(state.numbers)})


def read_random_state(path: Path) -> RandomState:
    """Returns what `write_random_state` wrote."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
        return RandomState(tensors, json.loads(file.metadata()[NUMBERS]))


def seed_everything(*parts: int | str) -> None:
    """Seeds Python, NumPy and torch, on every device, from `parts`."""
    seed = int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
