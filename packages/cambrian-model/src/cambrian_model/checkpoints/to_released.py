"""What the released form of a checkpoint of ours, or of a connector alone, will hold.

Vision encoders are left out, as in every released checkpoint: the original loads them by name. What lies under
`released/` is written back to the letter; a model that never was a released one gets a configuration and a tokenizer
that the original can read.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cambrian_model.checkpoints.completeness import check_complete, expected_shapes, optional_names
from cambrian_model.checkpoints.connector import is_connector_name
from cambrian_model.checkpoints.encoders import released_towers
from cambrian_model.checkpoints.foreign import reading
from cambrian_model.checkpoints.native import CONNECTOR_FILE
from cambrian_model.checkpoints.plan import Plan, as_json, model_files, read_config, renamed
from cambrian_model.checkpoints.released import (
    PROJECTOR_FILES,
    KeyNames,
    check_released_config,
    config_to_released,
    config_with_encoders,
    text_config_from_released,
)
from cambrian_model.checkpoints.shards import read_weights
from cambrian_model.checkpoints.tensor_file import TensorFile, read_tensor_file
from cambrian_model.checkpoints.to_native import ENCODERS, KEPT, is_kept
from cambrian_model.config import IMAGE_TOKEN, CambrianConfig
from cambrian_model.errors import CheckpointError
from cambrian_model.processing.processor import CambrianProcessor

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


def plan_released(folder: Path) -> Plan:
    """Plans the released form of a checkpoint of ours.

    Raises:
        CheckpointError: Its weights are not those of its configuration, or the original cannot build this model.
    """
    config, weights = _config(folder), read_weights(folder)
    check_complete(folder, weights.shapes, expected_shapes(config), optional_names(config))
    names = KeyNames.of(config)
    shards = [renamed(_without_encoders(file), names.to_released) for file in weights.files]
    named, index = model_files([shard for shard in shards if shard.tensors])
    num_left_out = sum(tensor.name.startswith(ENCODERS) for tensor in weights)
    notes = [f"{num_left_out} weights of vision encoders are left out; the original loads its encoders by name"]
    return Plan("released checkpoint", named, {**_files(folder, config), **index}, notes=notes if num_left_out else [])


def plan_released_connector(folder: Path) -> Plan:
    """Plans the released form of a connector alone, a stage-1 projector; as safetensors, for no pickle is ever written.

    Raises:
        CheckpointError: Its tensors are not those of its configuration.
    """
    config, file = _config(folder), read_tensor_file(folder / CONNECTOR_FILE)
    expected = {name: shape for name, shape in expected_shapes(config).items() if is_connector_name(name)}
    check_complete(file.path, {tensor.name: tensor.shape for tensor in file.tensors}, expected)
    shard = renamed(file, KeyNames.of(config).to_released)
    name = next(name for name in PROJECTOR_FILES if name.endswith(".safetensors"))
    return Plan("stage-1 projector", {name: shard}, _files(folder, config))


def _config(folder: Path) -> CambrianConfig:
    with reading(folder, "a configuration"):
        return CambrianConfig.from_pretrained(folder)


def _without_encoders(file: TensorFile) -> TensorFile:
    return file._replace(tensors=tuple(tensor for tensor in file.tensors if not tensor.name.startswith(ENCODERS)))


def _files(folder: Path, config: CambrianConfig) -> dict[str, bytes]:
    kept = folder / KEPT
    if not kept.is_dir():
        return _new_files(folder, config)
    released = read_config(kept)
    check_released_config(released, kept / "config.json")
    _check_still_true(kept, released, config)
    return {path.name: path.read_bytes() for path in sorted(kept.iterdir()) if is_kept(path)}


def _check_still_true(kept: Path, released: Mapping[str, Any], config: CambrianConfig) -> None:
    text, known = config.get_text_config(), text_config_from_released(released)
    then = config_with_encoders(released, known.to_dict(), config.encoders)
    pairs = {
        "connector": (then.connector_config, config.connector_config),
        "grid_side": (then.grid_side, config.grid_side),
        "number of vision encoders": (len(released["mm_vision_tower_aux_list"]), len(config.encoders)),
        **{key: (getattr(known, key), getattr(text, key)) for key in ("model_type", *_SIZES)},
    }
    for name, (old, new) in pairs.items():
        if old != new:
            raise CheckpointError(
                f"{kept}: says {name} {old}, but this model has {new}; delete that folder, and a released "
                "configuration is written anew"
            )


def _new_files(folder: Path, config: CambrianConfig) -> dict[str, bytes]:
    if not (folder / "tokenizer_config.json").is_file():
        return {"config.json": as_json(config_to_released(config, released_towers(config), None))}
    processor = CambrianProcessor.from_pretrained(folder)
    values = config_to_released(config, released_towers(config), _image_position(processor))
    return {"config.json": as_json(values), **_tokenizer_files(folder, processor)}


def _image_position(processor: CambrianProcessor) -> int:
    """Returns the number of tokens before the picture of a first question."""
    question = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "a"}]}
    ids, _ = processor.encode_text([question, answer], [(1, 1)])
    return ids.index(processor.image_token_id)


def _tokenizer_files(folder: Path, processor: CambrianProcessor) -> dict[str, bytes]:
    """Returns the tokenizer as it was before the processor added an image token, for which the original adds a row."""
    files = {name: (folder / name).read_bytes() for name in _TOKENIZER_FILES if (folder / name).is_file()}
    if processor.image_token_id < max(processor.tokenizer.get_vocab().values()):
        return files  # the language model's own
    for name in _TOKENIZER_FILES[:2]:
        values = _without_image_token(json.loads(files[name]))
        files[name] = (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()
    return files


def _without_image_token(values: dict[str, Any]) -> dict[str, Any]:
    for key in ("added_tokens", "extra_special_tokens", "additional_special_tokens"):
        if isinstance(values.get(key), list):
            values[key] = [x for x in values[key] if (x.get("content") if isinstance(x, dict) else x) != IMAGE_TOKEN]
    decoder = values.get("added_tokens_decoder", {})
    for token_id in [key for key, token in decoder.items() if token["content"] == IMAGE_TOKEN]:
        del decoder[token_id]
    return values
