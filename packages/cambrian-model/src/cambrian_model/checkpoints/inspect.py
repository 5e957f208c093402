"""What a folder or file is: its kind, its parts, their parameters, types and sizes, and what of it was trained.

Only headers and configurations are read, so a checkpoint of 30 GB answers as quickly as a small one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from cambrian_model.checkpoints.foreign import read_object, reading
from cambrian_model.checkpoints.native import CONNECTOR_FILE, MODEL_TYPE
from cambrian_model.checkpoints.plan import read_config
from cambrian_model.checkpoints.released import (
    MODEL_TYPES,
    PROJECTOR_FILES,
    KeyNames,
    check_released_config,
    config_from_released,
    encoder_widths,
    stage_1_name,
    text_config_from_released,
    tower_tensor,
    trained_parts,
)
from cambrian_model.checkpoints.shards import has_weights, read_weights
from cambrian_model.checkpoints.tensor_file import StoredTensor, is_torch_file, read_tensor_file
from cambrian_model.checkpoints.to_native import KEPT
from cambrian_model.checkpoints.unfinished import NOTE
from cambrian_model.config import CambrianConfig
from cambrian_model.errors import CheckpointError

RUN, RECIPE, RESULT = "run.json", "recipe.yaml", "result.json"  # of a training run
STATE = "state.json"  # of a training checkpoint
ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


@dataclass
class Part:
    """One part of a model, or of a file.

    Attributes:
        name: What it is.
        detail: What is known of it: its library, its size.
        tensors: Its tensors.
        parameters: Their elements.
        num_bytes: Their size.
        dtypes: Their types.
        training: "trained" or "frozen" where that is known.
    """

    name: str
    detail: str = ""
    tensors: int = 0
    parameters: int = 0
    num_bytes: int = 0
    dtypes: list[str] = field(default_factory=list)
    training: str | None = None

    def add(self, tensor: StoredTensor) -> None:
        """Counts one tensor."""
        self.tensors += 1
        self.parameters += tensor.num_parameters
        self.num_bytes += tensor.num_bytes
        self.dtypes = sorted({*self.dtypes, tensor.dtype})


@dataclass
class Inspection:
    """What was found.

    Attributes:
        path: Where.
        kind: What it is.
        facts: What else is known of it, by name.
        parts: Its parts.
    """

    path: Path
    kind: str
    facts: dict[str, Any]
    parts: list[Part]


def inspect(path: str | Path) -> Inspection:
    """Finds out what a folder or file is.

    Raises:
        CheckpointError: There is nothing, nothing that we know, or it is damaged.
    """
    path = Path(path)
    if path.is_file():
        return _file(path)
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such file or folder")
    for mark, function in _MARKS.items():
        if (path / mark).is_file():
            with reading(path, "what its files say it is"):
                return function(path)
    if (projector := _projector(path)) is not None:
        return projector
    found = sorted(entry.name for entry in path.iterdir())
    raise CheckpointError(
        f"{path}: holds {', '.join(found[:8]) or 'nothing'}; expected a checkpoint, a training run, or weights"
    )


# --- files


def _file(path: Path) -> Inspection:
    file = read_tensor_file(path)
    if path.name in PROJECTOR_FILES:
        return _stage_1(path)
    kind = "file of torch.save, tensors alone" if is_torch_file(path) else "safetensors file"
    return Inspection(path, kind, dict(file.metadata), _parts(file.tensors, _native_part))


def _projector(folder: Path) -> Inspection | None:
    files = [folder / name for name in PROJECTOR_FILES if (folder / name).is_file()]
    return _stage_1(files[0]) if files else None


def _stage_1(file: Path) -> Inspection:
    def part(name: str) -> str:
        known = stage_1_name(name)
        if known is None:
            return "unknown"
        return "in_llm" if known.startswith("model.vision_sampler_layers.") else "connector"

    return Inspection(file, "stage-1 projector", {}, _parts(read_tensor_file(file).tensors, part))


# --- folders with a config.json


def _configured(folder: Path) -> Inspection:
    config = read_config(folder)
    model_type = config.get("model_type")
    if model_type == MODEL_TYPE:
        return _native(folder)
    if model_type in MODEL_TYPES:
        return _released(folder, config)
    if "architecture" in config:
        return _other(folder, "timm encoder", {"architecture": config["architecture"]})
    if model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        sizes = ("vocab_size", "hidden_size", "num_hidden_layers")
        return _other(folder, "language model", {"model_type": model_type, **_chosen(config, sizes)})
    if model_type in CONFIG_MAPPING:
        return _other(folder, "transformers model", {"model_type": model_type})
    raise CheckpointError(f'{folder / "config.json"}: model_type is "{model_type}", which nothing here knows')


def _native(folder: Path) -> Inspection:
    with reading(folder, "a configuration"):
        config = CambrianConfig.from_pretrained(folder)
    is_connector = (folder / CONNECTOR_FILE).is_file()
    tensors = read_tensor_file(folder / CONNECTOR_FILE).tensors if is_connector else read_weights(folder)
    parts = _parts(tensors, _native_part)
    _describe(parts, config)
    _mark_trained(parts, _native_training(folder))
    facts = {"processor": (folder / "processor_config.json").is_file(), **_connector_facts(config)}
    return Inspection(folder, "connector" if is_connector else "native checkpoint", facts, parts)


def _native_part(name: str) -> str:
    if name.startswith("vision_encoders."):
        return ".".join(name.split(".")[:2])
    return "in_llm" if ".sva." in name else name.split(".")[0]


def _native_training(folder: Path) -> dict[str, bool]:
    """Returns which parts were trained: by the run that the folder lies in, or by the flags of the original."""
    for run in (folder.parent, folder.parent.parent):
        if (run / RUN).is_file():
            stages = read_object(run / RUN, "JSON").get("parts", {})
            stage = folder.name if folder.name in stages else next(reversed(stages), None)
            return _trained_in(stages[stage]) if stage else {}
    kept = folder / KEPT / "config.json"
    return trained_parts(read_object(kept, "JSON")) if kept.is_file() else {}


def _trained_in(stage: Mapping[str, Mapping[str, Any]]) -> dict[str, bool]:
    return {part: row["lr"] is not None for part, row in stage.items()}


def _released(folder: Path, released: Mapping[str, Any]) -> Inspection:
    check_released_config(released, folder / "config.json")
    facts = {"model_type": released["model_type"]}
    if not has_weights(folder) and (projector := _projector(folder)) is not None:
        _mark_trained(projector.parts, trained_parts(released))
        return Inspection(folder, projector.kind, facts, projector.parts)
    weights = read_weights(folder)
    widths = encoder_widths(weights.shapes, len(released["mm_vision_tower_aux_list"]))
    text = text_config_from_released(released)
    config = config_from_released(released, text.to_dict(), [width or 0 for width in widths])
    names = KeyNames.of(config)

    def part(name: str) -> str:
        tower = tower_tensor(name)
        return f"vision_encoders.{tower.tower}" if tower else _native_part(names.to_ours(name))

    parts = _parts(weights, part)
    _describe(parts, config, released["mm_vision_tower_aux_list"])
    _mark_trained(parts, trained_parts(released))
    return Inspection(folder, "released checkpoint", {**facts, **_connector_facts(config)}, parts)


def _other(folder: Path, kind: str, facts: Mapping[str, Any]) -> Inspection:
    return Inspection(folder, kind, dict(facts), _parts(read_weights(folder), lambda name: kind))


# --- folders of training


def _run(folder: Path) -> Inspection:
    facts = read_object(folder / RUN, "JSON") if (folder / RUN).is_file() else {}
    chosen = {**_chosen(facts, ("recipe", "seed", "stages", "started")), "finished": (folder / RESULT).is_file()}
    models = [folder / "checkpoint", *(folder / "stages" / stage for stage in reversed(facts.get("stages", [])))]
    model = next((path for path in models if (path / "config.json").is_file()), None)
    parts = _native(model).parts if model else []
    return Inspection(folder, "training run", chosen, parts)


def _training_checkpoint(folder: Path) -> Inspection:
    facts = _chosen(read_object(folder / STATE, "JSON"), ("stage", "step"))
    tensors = read_tensor_file(folder / "model.safetensors").tensors
    parts = _parts(tensors, _native_part)
    for part in parts:
        part.training = "trained"
    parts += _parts(read_tensor_file(folder / "optimizer.safetensors").tensors, lambda name: "optimizer")
    return Inspection(folder, "training checkpoint (what resuming needs)", facts, parts)


def _adapter(folder: Path) -> Inspection:
    facts = _chosen(
        read_object(folder / ADAPTER, "JSON"), ("peft_type", "base_model_name_or_path", "r", "target_modules")
    )
    parts = _parts(read_tensor_file(folder / ADAPTER_WEIGHTS).tensors, lambda name: "adapter")
    _mark_trained(parts, {"adapter": True})
    return Inspection(folder, "adapter of a model (peft)", facts, parts)


def _unfinished(folder: Path) -> Inspection:
    note = read_object(folder / NOTE, "JSON")
    facts = {**_chosen(note["arguments"], ("source", "to")), "finished files": sorted(note["hashes"])}
    return Inspection(folder, "unfinished conversion; repeat its command to continue it", facts, [])


# What each kind of folder is known by, the more particular first.
_MARKS: dict[str, Callable[[Path], Inspection]] = {
    NOTE: _unfinished,
    STATE: _training_checkpoint,
    RECIPE: _run,
    ADAPTER: _adapter,
    "config.json": _configured,
}


# --- parts


def _parts(tensors: Iterable[StoredTensor], part_of: Callable[[str], str]) -> list[Part]:
    parts: dict[str, Part] = {}
    for tensor in tensors:
        name = part_of(tensor.name)
        parts.setdefault(name, Part(name)).add(tensor)
    return [parts[name] for name in sorted(parts, key=_order)]


def _order(name: str) -> tuple[int, str]:
    """Orders parts as a picture passes them."""
    order = ("vision_encoders", "connector", "in_llm", "language_model")
    root = name.split(".")[0]
    return (order.index(root) if root in order else len(order), name)


def _describe(parts: list[Part], config: CambrianConfig, towers: Sequence[str] = ()) -> None:
    """Says what each part is, and adds the encoders that have no weights here; `towers` are the original's names."""
    text = config.get_text_config()
    known = {part.name: part for part in parts}
    for i, encoder in enumerate(config.encoders):
        name = f"vision_encoders.{i}"
        if name not in known:
            parts.insert(i, Part(name))
            known[name] = parts[i]
        called = towers[i] if towers else f"{encoder.library}:{encoder.name}"
        width = f"width {encoder.width}, " if encoder.width else ""
        known[name].detail = f"{called}, {width}grid {encoder.grid_side} x {encoder.grid_side}"
    details = {
        "connector": str(config.connector_config.type),
        "in_llm": f"after decoder layers {', '.join(map(str, config.in_llm_layers))}",
        "language_model": f"{text.model_type}, width {text.hidden_size}, {text.num_hidden_layers} layers",
    }
    for name, detail in details.items():
        if name in known:
            known[name].detail = detail


def _mark_trained(parts: Iterable[Part], trained: Mapping[str, bool]) -> None:
    for part in parts:
        root = part.name.split(".")[0]
        if root in trained:
            part.training = "trained" if trained[root] else "frozen"


def _connector_facts(config: CambrianConfig) -> dict[str, Any]:
    values = dict(config.connector or {})  # type: ignore[arg-type]
    return {"image tokens": f"{config.grid_side} x {config.grid_side}", "connector": values}


def _chosen(values: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: values[key] for key in keys if key in values}
