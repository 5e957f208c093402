"""The weights of an encoder: found in a folder or the hub's cache, read from safetensors alone, loaded strictly.

What the encoder keeps must be there and fit; what a file holds beside it must be a part that the encoder has no use for
(a classifier, a text model), and is reported.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from torch import Tensor

from cambrian_model.checkpoints.foreign import reading
from cambrian_model.errors import CheckpointError

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = f"{WEIGHTS_FILE}.index.json"
PICKLES = (".bin", ".pt", ".pth", ".tar", ".ckpt", ".pkl")


class LoadReport(NamedTuple):
    """What came of loading an encoder's weights.

    Attributes:
        source: Where they came from.
        loaded: How many tensors the encoder now holds from there.
        left_out: Tensors of the source that the encoder has no use for.
        resized: Tensors that were interpolated to another resolution.
    """

    source: str
    loaded: int
    left_out: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = sorted({name.split(".")[0] for name in self.left_out})
        left_out = f", {len(self.left_out)} left out ({', '.join(parts)})" if parts else ""
        resized = f", {len(self.resized)} resized ({', '.join(self.resized)})" if self.resized else ""
        return f"{self.source}: {self.loaded} weights loaded{left_out}{resized}"


class Misfit(NamedTuple):
    """How a source's tensors differ from those that an encoder keeps."""

    missing: Sequence[str] = ()
    unexpected: Sequence[str] = ()
    reshaped: Sequence[str] = ()

    def refuse(self, source: str | Path) -> None:
        """Fails if there is any difference.

        Raises:
            CheckpointError: Names what is missing, unexpected or of another shape.
        """
        found = [f"{len(names)} {kind} ({_some(names)})" for kind, names in self._asdict().items() if names]
        if found:
            raise CheckpointError(
                f"{source}: these are not this encoder's weights: {'; '.join(found)}. Name the encoder that they "
                "belong to, or give its own weights"
            )


def compare(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], unexpected: Iterable[str] = ()) -> Misfit:
    """Compares the tensors that an encoder keeps with those of a source, by name and shape."""
    return Misfit(
        sorted(wanted.keys() - found.keys()),
        sorted(unexpected),
        [
            f"{name}: {tuple(found[name].shape)}, expected {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in found and found[name].shape != tensor.shape
        ],
    )


def fetch(hub_id: str, patterns: Collection[str]) -> Path:
    """Returns the folder of the hub's cache that holds these files of a model, downloading what is not there.

    Raises:
        CheckpointError: The hub cannot be reached (or is switched off) and the cache does not hold them, there is no
            such model, or access is refused.
    """
    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(patterns)))
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise CheckpointError(
            f"{hub_id}: not in the hub's cache, and it cannot be downloaded: {reason}. Where the hub can be reached, "
            f"run `hf download {hub_id}`; or set path to a folder that holds the model"
        ) from error


def weight_files(source: Path) -> list[Path]:
    """Returns the safetensors files of a model: `source` itself, or those of a folder.

    Raises:
        CheckpointError: There are none; says what is there instead.
    """
    if source.is_file() and source.suffix == ".safetensors":
        return [source]
    if (source / WEIGHTS_FILE).is_file():
        return [source / WEIGHTS_FILE]
    if (source / INDEX_FILE).is_file():
        with reading(source / INDEX_FILE, "an index of shards"):
            shards = json.loads((source / INDEX_FILE).read_text(encoding="utf-8"))["weight_map"].values()
        return [source / name for name in dict.fromkeys(shards)]
    others = sorted(source.glob("*.safetensors"))
    if len(others) == 1:
        return others
    raise CheckpointError(_no_weights(source))


def _no_weights(source: Path) -> str:
    if source.suffix in PICKLES:
        found = [source.name]
    elif not source.exists():
        return f"{source}: no such folder; expected a folder with {WEIGHTS_FILE}"
    else:
        found = sorted(file.name for file in source.glob("*") if file.suffix in (*PICKLES, ".safetensors"))
    pickles = [name for name in found if Path(name).suffix in PICKLES]
    if not pickles:
        return f"{source}: no {WEIGHTS_FILE} there; found {', '.join(found) or 'no weights'}"
    return (
        f"{source}: found {', '.join(pickles)}, which may be a pickle and is never loaded; convert it to "
        f"{WEIGHTS_FILE} where you trust it: torch.load(FILE, weights_only=True), then safetensors.torch.save_file"
    )


def read_tensors(source: Path) -> dict[str, Tensor]:
    """Reads all tensors of a model's safetensors.

    Raises:
        CheckpointError: There are none, or a file is damaged or something else.
    """
    tensors: dict[str, Tensor] = {}
    for file in weight_files(source):
        if not file.is_file():
            raise CheckpointError(f"{file}: missing; {INDEX_FILE} names it")
        with reading(file, "safetensors weights"):
            tensors |= load_file(file)
    return tensors


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
