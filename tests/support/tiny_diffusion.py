"""A Stable Diffusion in miniature, in diffusers' folder layout."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils import logging

from tests.support.tiny_transformers import shaken

WIDTHS = (8, 12, 16)  # of the UNet's blocks, from the finest
PROMPT_TOKENS = 5


def save_tiny_diffusion(folder: Path, **unet: Any) -> Path:
    """Writes a folder with random weights; its VAE makes one latent of 4 x 4 pixels."""
    logging.disable_progress_bar()
    torch.manual_seed(0)
    parts = {"unet": _unet(**unet), "vae": _vae(), "text_encoder": _text_encoder()}
    for name, model in parts.items():
        model.save_pretrained(folder / name)
    DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(
        folder / "scheduler"
    )
    _save_tokenizer(folder / "tokenizer")
    return folder


def _unet(**changes: Any) -> UNet2DConditionModel:
    sizes: dict[str, Any] = {
        "sample_size": 16,
        "block_out_channels": WIDTHS,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "cross_attention_dim": 20,
        "norm_num_groups": 4,
        "use_linear_projection": True,
    }
    return UNet2DConditionModel(**{**sizes, **changes})


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=2,
        layers_per_block=1,
        scaling_factor=0.18215,
    )


def _text_encoder() -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=7,
        hidden_size=20,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=PROMPT_TOKENS,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return shaken(CLIPTextModel(config))


def _save_tokenizer(folder: Path) -> None:
    folder.mkdir()
    vocabulary = {"!": 0, "<|startoftext|>": 1, "<|endoftext|>": 2, "a": 3, "a</w>": 4, "b": 5, "b</w>": 6}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder, pad_token="!", model_max_length=PROMPT_TOKENS)
    tokenizer.save_pretrained(folder)
