"""Exact resume: what a run needs to continue as if it had never stopped, in safetensors and JSON, never in pickle.

A checkpoint is a folder that appears whole: written beside its place, its marker COMPLETE last (with the size of every
file), then renamed. Trained weights and optimizer state are keyed by parameter name, so that they do not depend on how
the optimizer's groups are ordered.
"""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cambrian_model.errors import TrainingError
from cambrian_model.training.batches import Place

FORMAT = 1
MARKER = "COMPLETE"
UNFINISHED = ".unfinished-"  # prefix of what is being written, or being deleted


@dataclass(frozen=True)
class Progressed:
    """How far a run is.

    Attributes:
        stage: Name of the running stage.
        step: Optimizer steps done in it.
        place: Where its data continues.
    """

    stage: str
    step: int
    place: Place


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run, `<stage>-<step>`, of which the last `keep` stay."""

    folder: Path
    keep: int = 2

    def save(self, done: Progressed, model: nn.Module, optimizer: torch.optim.Optimizer) -> Path:
        """Writes a checkpoint and deletes the oldest ones.

        Raises:
            TrainingError: It cannot be written, the disk being full for example; earlier checkpoints stay.
        """
        path = self.folder / f"{done.stage}-{done.step:06d}"
        with atomic_folder(path, "checkpoint") as folder:
            save_file(_trained_tensors(model), folder / "model.safetensors")
            save_file(_optimizer_tensors(optimizer), folder / "optimizer.safetensors")
            tensors, scalars = _random_state()
            save_file(tensors, folder / "random.safetensors")
            write_json(folder / "state.json", {"format": FORMAT, **asdict(done), "random": scalars})
            sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in _files(folder)}
            write_json(folder / MARKER, sizes)
        for old in self._of_stage(done.stage)[: -self.keep]:
            remove_folder(old)
        return path

    def latest(self, stage: str) -> Path | None:
        """Returns the newest whole checkpoint of a stage."""
        whole = [path for path in self._of_stage(stage) if is_complete(path)]
        return whole[-1] if whole else None

    def load(self, path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progressed:
        """Puts model, optimizer and random generators into the state of a checkpoint.

        Raises:
            TrainingError: The checkpoint was made by another version, or belongs to another model.
        """
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if state["format"] != FORMAT:
            raise TrainingError(
                f"{path} has format {state['format']}, expected {FORMAT}; start a new run in another folder"
            )
        _load_trained_tensors(model, load_file(path / "model.safetensors"), path)
        _load_optimizer_tensors(optimizer, load_file(path / "optimizer.safetensors"), path)
        _set_random_state(load_file(path / "random.safetensors"), state["random"])
        return Progressed(state["stage"], state["step"], Place(**state["place"]))

    def sweep(self) -> None:
        """Deletes what a killed run left half-written."""
        for path in self.folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _of_stage(self, stage: str) -> list[Path]:
        """Returns the folders of a stage, oldest first."""
        found = [path for path in self.folder.glob(f"{stage}-*") if path.name.removeprefix(f"{stage}-").isdigit()]
        return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


@contextmanager
def atomic_folder(path: Path, what: str) -> Iterator[Path]:
    """Gives a folder to write into that takes its place at `path` only when it is whole.

    Raises:
        TrainingError: The disk is full, or a file cannot be written; says `what` was being written.
    """
    unfinished = path.with_name(UNFINISHED + path.name)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        yield unfinished
        for file in _files(unfinished):
            _sync(file)
        if path.exists():
            remove_folder(path)
        unfinished.rename(path)
        _sync(path.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise TrainingError(
            f"could not write {what} {path}: {error}; what was written before is untouched: "
            "free disk space, or mend that; then repeat the command (a training run: with --resume)"
        ) from error


def is_complete(path: Path) -> bool:
    """Tells whether a checkpoint was written to its end: it has the marker, and every file has its size."""
    marker = path / MARKER
    if not marker.is_file():
        return False
    sizes = json.loads(marker.read_text(encoding="utf-8"))
    return all((path / name).is_file() and (path / name).stat().st_size == size for name, size in sizes.items())


def remove_folder(path: Path) -> None:
    """Deletes a folder such that no half of it is ever seen under its name."""
    condemned = path.with_name(UNFINISHED + path.name + "-removed")
    shutil.rmtree(condemned, ignore_errors=True)
    path.rename(condemned)
    shutil.rmtree(condemned, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Writes a small file at once: it is there whole, or as it was.

    Raises:
        TrainingError: The disk is full, or the file cannot be written.
    """
    unfinished = path.with_name(UNFINISHED + path.name)
    try:
        unfinished.write_text(text, encoding="utf-8")
        _sync(unfinished)
        unfinished.replace(path)
    except OSError as error:
        raise TrainingError(f"could not write {path}: {error}; free disk space, then continue with --resume") from error


def write_json(path: Path, value: Any) -> None:
    """Writes JSON at once, see `write_text`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Returns trained parameters and all saved buffers (running statistics change too), by name."""
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    return _savable({**trained, **_saved_buffers(model)})


def _saved_buffers(model: nn.Module) -> dict[str, Tensor]:
    saved = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name in saved}


def _load_trained_tensors(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    targets = {name: p for name, p in model.named_parameters() if p.requires_grad} | _saved_buffers(model)
    _check_same_names(targets, tensors, path)
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(tensors[name])


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Returns the optimizer's state as "quantity/parameter name"."""
    state = {
        f"{quantity}/{name}": tensor
        for name, parameter in _named_parameters(optimizer)
        for quantity, tensor in optimizer.state[parameter].items()
    }
    return _savable(state)


def _load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], path: Path) -> None:
    names = {key.partition("/")[2] for key in tensors}
    parameters = dict(_named_parameters(optimizer))
    _check_same_names(parameters, names, path)
    for key, tensor in tensors.items():
        quantity, _, name = key.partition("/")
        parameter = parameters[name]
        # AdamW keeps its step count on the CPU, and everything else beside the parameter.
        optimizer.state[parameter][quantity] = tensor if tensor.ndim == 0 else tensor.to(parameter.device)


def _named_parameters(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, nn.Parameter]]:
    for group in optimizer.param_groups:
        yield from zip(group["param_names"], group["params"], strict=True)


def _check_same_names(expected: Any, found: Any, path: Path) -> None:
    if odd := sorted(set(expected) ^ set(found)):
        raise TrainingError(
            f"{path} belongs to another model or stage: {len(odd)} names differ, the first is {odd[0]}; "
            "start a new run in another folder"
        )


def _savable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}


def _random_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the state of all random generators: arrays as tensors, single numbers as JSON."""
    version, words, gauss_next = random.getstate()
    numpy_state: dict[str, Any] = np.random.get_state(legacy=False)
    tensors = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
    }
    if torch.cuda.is_available():
        tensors |= {f"cuda/{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    scalars = {
        "python": [version, gauss_next],
        "numpy": [numpy_state["state"]["pos"], numpy_state["has_gauss"], numpy_state["gauss"]],
    }
    return tensors, scalars


def _set_random_state(tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> None:
    torch.set_rng_state(tensors["torch"])
    version, gauss_next = scalars["python"]
    random.setstate((version, tuple(tensors["python"].tolist()), gauss_next))
    pos, has_gauss, gauss = scalars["numpy"]
    key = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state(
        {"bit_generator": "MT19937", "state": {"key": key, "pos": pos}, "has_gauss": has_gauss, "gauss": gauss}
    )
    for i in range(torch.cuda.device_count() if "cuda/0" in tensors else 0):
        torch.cuda.set_rng_state(tensors[f"cuda/{i}"], i)


def seed_everything(*parts: int | str) -> None:
    """Seeds Python, NumPy and torch from `parts`."""
    seed = int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
