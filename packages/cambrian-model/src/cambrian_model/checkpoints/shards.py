"""The weights of a folder: one file, or several that an index ties together, each checked against the others."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cambrian_model.checkpoints.foreign import reading
from cambrian_model.checkpoints.tensor_file import StoredTensor, TensorFile, read_tensor_file
from cambrian_model.errors import CheckpointError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TORCH_WEIGHTS = "pytorch_model.bin"
TORCH_INDEX = "pytorch_model.bin.index.json"


@dataclass(frozen=True)
class Weights:
    """All weights of a folder.

    Attributes:
        files: Its files, in order.
    """

    files: tuple[TensorFile, ...]

    def __iter__(self) -> Iterator[StoredTensor]:
        for file in self.files:
            yield from file.tensors

    @property
    def num_bytes(self) -> int:
        """Size of all tensors."""
        return sum(tensor.num_bytes for tensor in self)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape by name."""
        return {tensor.name: tensor.shape for tensor in self}


def has_weights(folder: Path) -> bool:
    """Tells whether a folder holds a model's weights under one of the names that transformers knows."""
    return any((folder / name).is_file() for name in (WEIGHTS, INDEX, TORCH_WEIGHTS, TORCH_INDEX))


def read_weights(folder: Path) -> Weights:
    """Reads the headers of a model's weights, in the order in which transformers looks for them.

    Raises:
        CheckpointError: There are none, a file is missing or damaged, or index and files disagree.
    """
    for single, index in ((WEIGHTS, INDEX), (TORCH_WEIGHTS, TORCH_INDEX)):
        if (folder / single).is_file():
            return Weights((read_tensor_file(folder / single),))
        if (folder / index).is_file():
            return _read_indexed(folder / index)
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    raise CheckpointError(
        f"{folder}: no weights there; expected {WEIGHTS}, {INDEX} or {TORCH_INDEX} with its shards, or "
        f"{TORCH_WEIGHTS}; found {', '.join(found[:8]) or 'nothing'}"
    )


def _read_indexed(index: Path) -> Weights:
    with reading(index, "an index of shards"):
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if odd := [place for place in places.values() if not isinstance(place, str)]:
            raise ValueError(f"{odd[0]!r} is no name of a file")
        names = sorted(set(places.values()))
    if outside := [name for name in names if Path(name).name != name]:
        raise CheckpointError(f'{index}: names "{outside[0]}", which lies outside this folder; expected file names')
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        raise CheckpointError(
            f"{index}: names {len(names)} shards, of which {len(missing)} are missing: {', '.join(missing[:5])}; "
            "fetch them"
        )
    weights = Weights(tuple(read_tensor_file(index.parent / name) for name in names))
    _check_index(index, places, weights)
    return weights


def _check_index(index: Path, places: Mapping[str, str], weights: Weights) -> None:
    found: dict[str, str] = {}
    for file in weights.files:
        for tensor in file.tensors:
            if tensor.name in found:
                raise CheckpointError(
                    f'{index.parent}: "{tensor.name}" stands in two shards, {found[tensor.name]} and '
                    f"{file.path.name}; one of them belongs to another model"
                )
            found[tensor.name] = file.path.name
    for name in [*places, *found]:
        if places.get(name) != found.get(name):
            raise CheckpointError(
                f'{index}: "{name}" is in {places.get(name, "no shard")} by the index, but in '
                f"{found.get(name, 'no shard')} by the files; index and shards do not belong together"
            )


def shard_names(count: int) -> list[str]:
    """Returns the names of a model's files, as transformers numbers them."""
    if count == 1:
        return [WEIGHTS]
    return [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]


def index_text(places: Mapping[str, str], num_bytes: int) -> str:
    """Returns the index of several shards, as transformers writes it."""
    index = {"metadata": {"total_size": num_bytes}, "weight_map": dict(places)}
    return json.dumps(index, indent=2, sort_keys=True) + "\n"
