"""What a conversion will write, known from headers before anything is written."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from cambrian_model.checkpoints.foreign import read_object
from cambrian_model.checkpoints.shards import INDEX, index_text, shard_names
from cambrian_model.checkpoints.tensor_file import TensorFile, load_torch_file
from cambrian_model.checkpoints.transfer import Shard
from cambrian_model.errors import CheckpointError
from cambrian_model.processing.processor import CambrianProcessor


@dataclass(frozen=True)
class Options:
    """What a user may choose.

    Attributes:
        to: "native" or "released".
        precomputed_encoders: Widths of encoders whose features are passed at run time, in place of the listed ones.
        encoder_folders: Folders of encoder weights, by our name of the encoder or the original's.
        chat_template: Name of a template, in place of the one that the model was trained with.
    """

    to: str = "native"
    precomputed_encoders: tuple[int, ...] | None = None
    encoder_folders: dict[str, Path] = field(default_factory=dict)
    chat_template: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a folder will hold.

    Attributes:
        kind: What it will be.
        shards: Its weights, by file name.
        files: Its other files, by path.
        processor: Its processor, if it has one.
        notes: What the user should know.
    """

    kind: str
    shards: dict[str, Shard]
    files: dict[str, bytes]
    processor: CambrianProcessor | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def num_bytes(self) -> int:
        """Size of all weights."""
        return sum(shard.num_bytes for shard in self.shards.values())

    def write_files(self, folder: Path) -> None:
        """Writes everything but the weights."""
        if self.processor is not None:
            self.processor.save_pretrained(folder)
        for name, content in self.files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)


def renamed(file: TensorFile, rename: Callable[[str], str]) -> Shard:
    """Plans one file of weights under new names; a foreign .bin is read through torch, all else copied as bytes.

    Raises:
        CheckpointError: Two tensors would get one name.
    """
    tensors = {rename(tensor.name): tensor for tensor in file.tensors}
    if len(tensors) < len(file.tensors):
        raise CheckpointError(f"{file.path}: several of its tensors mean the same one of ours; this file is damaged")
    old_names = {tensor.name: new for new, tensor in tensors.items()}
    load = None if file.is_safetensors else partial(_load_renamed, file.path, old_names)
    return Shard(file.path, tensors, file.metadata, load)


def _load_renamed(path: Path, names: dict[str, str]) -> dict[str, Tensor]:
    return {names[name]: tensor for name, tensor in load_torch_file(path).items() if name in names}


def model_files(shards: Sequence[Shard]) -> tuple[dict[str, Shard], dict[str, bytes]]:
    """Returns files of weights under the names that transformers looks for, and their index if they need one."""
    named = dict(zip(shard_names(len(shards)), shards, strict=True))
    if len(shards) == 1:
        return named, {}
    places = {tensor: name for name, shard in named.items() for tensor in shard.tensors}
    return named, {INDEX: index_text(places, sum(shard.num_bytes for shard in shards)).encode()}


def read_config(folder: Path) -> dict[str, Any]:
    """Reads config.json of a folder.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file; the configuration must lie beside the weights")
    return read_object(file, "a configuration")


def as_json(values: Any) -> bytes:
    """Returns the content of a JSON file, as transformers writes its own."""
    return (json.dumps(values, indent=2, sort_keys=True) + "\n").encode()
