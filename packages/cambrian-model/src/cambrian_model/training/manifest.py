"""References to weights by path and hash: of a model's frozen parts, and from one stage's model to the next one's.

An exported model folder holds `training.json`: which stage of which recipe made it, from what, and the hash of every
weights file, so that a stage can tell whether its input is what its predecessor wrote.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import xxhash
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from cambrian_model.errors import TrainingError
from cambrian_model.training.files import write_json

MANIFEST = "training.json"
WRAPPERS = frozenset({"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"})


@dataclass(frozen=True)
class Reference:
    """Weights that lie elsewhere.

    Attributes:
        path: Where they came from: a folder, or the name of released weights.
        hash: What they must be, see `fingerprint` and `hash_weights`.
    """

    path: str
    hash: str


@dataclass(frozen=True)
class Manifest:
    """Where an exported model comes from.

    Attributes:
        recipe: Name of the recipe.
        stage: Name of the stage that made it.
        input: The model folder that the stage started from; None: it was built from the recipe.
        trained: Names of the parts that the stage trained.
        weights: Hash (SHA-256) of every weights file, by its path in the folder.
    """

    recipe: str
    stage: str
    input: Reference | None
    trained: Sequence[str]
    weights: Mapping[str, str]

    @property
    def hash(self) -> str:
        """One hash for all weights files: that of a `Reference` to this model."""
        return _joined(self.weights)


@dataclass(frozen=True)
class Facts:
    """What a stage says of the model that it exports; see `Manifest`."""

    recipe: str
    stage: str
    input: Reference | None
    trained: Sequence[str]


def plain_name(name: str) -> str:
    """Returns a parameter's name without what DDP, FSDP, compilation and activation checkpointing put into it."""
    return ".".join(part for part in name.removeprefix("module.").split(".") if part not in WRAPPERS)


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Returns a hash (xxh3) of names, types, shapes and values, whatever the order, device or sharding.

    Every rank must call it: a sharded tensor is gathered, one at a time.
    """
    digest = xxhash.xxh3_128()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        digest.update(json.dumps([name, str(whole.dtype), list(whole.shape)]).encode())
        digest.update(whole.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def refer_to_frozen(model: nn.Module, source: str) -> Reference | None:
    """Returns a reference to all parameters that are not trained; None if there are none.

    Every rank must call it, once per stage: it reads all of them.

    Args:
        model: Plain or wrapped, whole or sharded.
        source: Where they came from, for a reader.
    """
    frozen = {plain_name(name): p for name, p in model.named_parameters() if not p.requires_grad}
    return Reference(source, fingerprint(frozen)) if frozen else None


def write_manifest(folder: Path, facts: Facts) -> Manifest:
    """Writes `training.json` beside a model's weights, which must be there already.

    Raises:
        TrainingError: There are no weights, or the disk is full.
    """
    manifest = Manifest(facts.recipe, facts.stage, facts.input, list(facts.trained), _hash_files(folder))
    write_json(folder / MANIFEST, asdict(manifest))
    return manifest


def read_manifest(folder: Path) -> Manifest | None:
    """Returns what `training.json` says; None for a model that no stage exported.

    Raises:
        TrainingError: It is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        source = Reference(**found.pop("input")) if found["input"] else found.pop("input")
        return Manifest(input=source, **found)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise TrainingError(
            f"{path} is no record of a stage: {error}; train the stage again, or delete the file to take the model as "
            "it is"
        ) from error


def check_manifest(folder: Path) -> Manifest | None:
    """Reads a model's weights and compares them with its `training.json`; returns that, or None if there is none.

    Raises:
        TrainingError: A weights file was changed, added or deleted since; names the first.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    found = _hash_files(folder)
    for name in sorted(manifest.weights.keys() | found.keys()):
        if found.get(name) != manifest.weights.get(name):
            raise TrainingError(
                f'{folder / name} is not what stage "{manifest.stage}" exported: found {_shown(found, name)}, '
                f"expected {_shown(manifest.weights, name)}; train that stage again, or delete {folder / MANIFEST} to "
                "take the model as it is"
            )
    return manifest


def hash_weights(folder: Path) -> str:
    """Returns one hash for all weights files of a model folder, whether a stage exported it or not.

    Raises:
        TrainingError: There are none.
    """
    return _joined(_hash_files(folder))


def _hash_files(folder: Path) -> dict[str, str]:
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        raise TrainingError(f"{folder} holds no weights (*.safetensors); give the folder of a model")
    return {file.relative_to(folder).as_posix(): _sha256(file) for file in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _joined(weights: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(sorted(weights.items())).encode()).hexdigest()


def _shown(hashes: Mapping[str, str], name: str) -> str:
    return f"SHA-256 {hashes[name]}" if name in hashes else "no such file"
