"""A real model in miniature: two timm encoders of different grids, SVA blocks inside a random language model.

Different sizes for different dimensions, so that a swapped axis fails.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from cambrian_model.config import CambrianConfig, VisionEncoderConfig
from cambrian_model.image_tokens import num_image_tokens
from cambrian_model.model import CambrianForConditionalGeneration

VOCABULARY = 97
IMAGE_TOKEN_ID = VOCABULARY + 2  # outside the vocabulary, on purpose
GRID_SIDE = 4


def tiny_encoders() -> list[VisionEncoderConfig]:
    return [
        VisionEncoderConfig("timm", "test_vit", image_side=64, width=64, grid_side=4, model_args={"img_size": 64}),
        VisionEncoderConfig("timm", "test_convnext", image_side=64, width=32, grid_side=8, feature_layer=1),
    ]


def tiny_config(language: str = "llama", **changes: Any) -> CambrianConfig:
    text = CONFIG_MAPPING[language](
        vocab_size=VOCABULARY,
        hidden_size=48,
        intermediate_size=56,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    connector = {
        "width": 32,
        "depth": 2,
        "num_heads": 4,
        "query_grid_sides": [4],
        "in_llm": {"start": 0, "stride": 2, "count": 2},
    }
    values = {
        "text_config": text,
        "vision_encoders": tiny_encoders(),
        "connector": connector,
        "grid_side": GRID_SIDE,
        "image_token_id": IMAGE_TOKEN_ID,
    }
    return CambrianConfig(**{**values, **changes})


def tiny_model(language: str = "llama", seed: int = 0, **changes: Any) -> CambrianForConditionalGeneration:
    """A model whose SVA blocks inside the language model matter from the start (theirs begin at zero)."""
    torch.manual_seed(seed)
    model = CambrianForConditionalGeneration(tiny_config(language, **changes)).eval()
    for name, parameter in model.named_parameters():
        if ".sva.proj_out.2" in name:
            torch.nn.init.normal_(parameter, std=0.2)
        if "embed_tokens" in name:
            torch.nn.init.normal_(parameter)
    return model


def tiny_sample(seed: int, sizes: list[tuple[int, int]], text: int = 5) -> dict[str, Any]:
    """Inputs of one sample: some text, then each picture of `sizes` (height, width) followed by more text."""
    generator = torch.Generator().manual_seed(seed)
    words = lambda: torch.randint(3, VOCABULARY, (text,), generator=generator).tolist()  # noqa: E731
    ids = words()
    for size in sizes:
        ids += [IMAGE_TOKEN_ID] * num_image_tokens(size, GRID_SIDE) + words()
    return {
        "input_ids": torch.tensor([ids]),
        "pixel_values": [torch.rand(len(sizes), 3, 64, 64, generator=generator) for _ in range(2)],
        "image_sizes": torch.tensor(sizes, dtype=torch.long).reshape(-1, 2),
    }


def join(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Pictures of several samples, in order."""
    return {
        "pixel_values": [torch.cat([s["pixel_values"][i] for s in samples]) for i in range(2)],
        "image_sizes": torch.cat([s["image_sizes"] for s in samples]),
    }


def pack(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Several samples in one row, isolated by positions that restart."""
    ids = [s["input_ids"] for s in samples]
    return {
        "input_ids": torch.cat(ids, dim=1),
        "position_ids": torch.cat([torch.arange(x.shape[1])[None] for x in ids], dim=1),
        **join(samples),
    }


def pad_left(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Several samples as a left-padded batch."""
    longest = max(s["input_ids"].shape[1] for s in samples)
    ids = torch.zeros(len(samples), longest, dtype=torch.long)
    mask: Tensor = torch.zeros_like(ids)
    for row, sample in enumerate(samples):
        length = sample["input_ids"].shape[1]
        ids[row, longest - length :] = sample["input_ids"]
        mask[row, longest - length :] = 1
    return {"input_ids": ids, "attention_mask": mask, **join(samples)}
