"""Released checkpoints in miniature: from recorded parameters of the original, or from a tiny model of ours."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from torch import Tensor

from cambrian_model.checkpoints.convert import convert
from cambrian_model.checkpoints.plan import Options
from cambrian_model.config import CambrianConfig, VisionEncoderConfig
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.processing import CambrianProcessor
from tests.support.reference import Fixture
from tests.support.tiny_model import tiny_config
from tests.support.tokenizers import tiny_bytes

WIDTHS = (24, 40)
ENCODERS = ",".join(map(str, WIDTHS))
CONNECTOR = {
    "type": "sva",
    "width": 32,
    "depth": 2,
    "num_heads": 16,
    "query_grid_sides": [4],
    "in_llm": {"start": 0, "stride": 2, "count": 2},
}


def precomputed_config(language: str = "llama", **changes: Any) -> CambrianConfig:
    """A model of two encoders, whose features are passed, that the original could build."""
    encoders = [
        VisionEncoderConfig("precomputed", "tower-a", image_side=4, width=WIDTHS[0], grid_side=4),
        VisionEncoderConfig("precomputed", "tower-b", image_side=8, width=WIDTHS[1], grid_side=8),
    ]
    return tiny_config(language, **{"vision_encoders": encoders, "connector": CONNECTOR, **changes})


def write_native(folder: Path, language: str = "llama", with_processor: bool = True, **changes: Any) -> Path:
    """Writes a checkpoint of ours that was never a released one."""
    config = precomputed_config(language, **changes)
    config.get_text_config().vocab_size = 330
    tokenizer = tiny_bytes()
    tokenizer.add_tokens([AddedToken("<|end|>", normalized=False)], special_tokens=True)  # Phi-3's end of an answer
    template = "phi3" if language == "phi3" else "vicuna_v1"
    processor = CambrianProcessor.from_config(config, tokenizer, template)
    if with_processor:
        config.image_token_id = processor.image_token_id
        processor.save_pretrained(folder)
    torch.manual_seed(0)
    model = CambrianForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if ".sva.proj_out.2" in name or "embed_tokens" in name:  # so that every part of it shows in the logits
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder


def write_released(folder: Path, language: str = "llama", **options: Any) -> Path:
    """Writes a released checkpoint."""
    native = folder.with_name(f"{folder.name}-before")
    convert(write_native(native, language, **options), folder, Options(to="released"))
    return folder


def write_recorded(folder: Path, fixture: Fixture) -> Path:
    """Writes a recorded model of the original as its checkpoint."""
    folder.mkdir(parents=True)
    save_file(fixture.params, folder / "model.safetensors", metadata={"format": "pt"})
    write_config(folder, fixture.meta["config"])
    return folder


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def read_config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def change_config(folder: Path, **changes: Any) -> None:
    """Changes fields of config.json; a field that is set to None goes."""
    config = {**read_config(folder), **changes}
    write_config(folder, {key: value for key, value in config.items() if value is not None})


def read_state(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder."""
    state: dict[str, Tensor] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        state |= load_file(file)
    return state


def write_state(folder: Path, state: Mapping[str, Tensor], num_shards: int = 1) -> None:
    """Writes a folder's tensors anew, in one file or in shards with their index."""
    for file in folder.glob("model*"):
        file.unlink()
    if num_shards == 1:
        save_file(dict(state), folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(state)
    places: dict[str, str] = {}
    for i in range(num_shards):
        shard = f"model-{i + 1:05d}-of-{num_shards:05d}.safetensors"
        part = {name: state[name] for name in names[i::num_shards]}
        save_file(part, folder / shard, metadata={"format": "pt"})
        places |= dict.fromkeys(part, shard)
    write_index(folder, places, sum(x.nbytes for x in state.values()))


def write_index(folder: Path, places: Mapping[str, str], num_bytes: int = 0) -> None:
    index = {"metadata": {"total_size": num_bytes}, "weight_map": dict(places)}
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
