"""Vision models of transformers in miniature, with weights large enough that every part of them shows in the output."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging

SIDE, PATCH, WIDTH, DEPTH = 28, 7, 24, 3
GRID = SIDE // PATCH

_SIZES = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 2}
_VIT = {**_SIZES, "intermediate_size": 40, "image_size": SIDE, "patch_size": PATCH}
_DINO = {**_SIZES, "image_size": SIDE, "patch_size": PATCH}

CONFIGS: dict[str, dict[str, Any]] = {
    "aimv2_vision_model": _VIT,
    "beit": {**_VIT, "use_relative_position_bias": True},
    "clip_vision_model": _VIT,
    "convnext": {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1]},
    "data2vec-vision": _VIT,
    "deit": _VIT,
    "dinov2": {**_DINO, "use_swiglu_ffn": True},
    "dinov2_with_registers": {**_DINO, "num_register_tokens": 4},
    "dinov3_vit": {**_VIT, "num_register_tokens": 4},
    "dpt": {**_VIT, "is_hybrid": False},
    "ijepa": _VIT,
    "sam_vision_model": {
        **_SIZES,
        "mlp_dim": 40,
        "image_size": SIDE,
        "patch_size": PATCH,
        "window_size": 2,
        "global_attn_indexes": [1],
        "output_channels": 12,
    },
    "siglip_vision_model": _VIT,
    "swin": {
        "embed_dim": 8,
        "depths": [1, 1],
        "num_heads": [2, 2],
        "window_size": 2,
        "image_size": 32,
        "patch_size": 4,
    },
    "vit": _VIT,
    "vit_mae": _VIT,
}


def tiny_config(model_type: str, **changes: Any) -> PreTrainedConfig:
    return CONFIG_MAPPING[model_type](**{**CONFIGS[model_type], **changes})


def tiny_vision_model(model_type: str, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    return shaken(AutoModel.from_config(tiny_config(model_type, **changes)))


def shaken(model: PreTrainedModel) -> PreTrainedModel:
    """Gives every parameter, also those that start at zero or one, a random value."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def save(model: PreTrainedModel, folder: Path) -> Path:
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    return folder
