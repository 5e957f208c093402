"""Training on packed rows is training on the same samples one by one without padding: equal losses, equal weights.

Both sides sum the loss over the supervised tokens of a step and divide by their number.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cambrian_model.language.loss import LossOptions
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.processing.sample import Sample
from cambrian_model.training.collate import collate
from tests.support.tiny_model import IMAGE_TOKEN_ID, pack, tiny_config, tiny_encoders, tiny_model, tiny_sample

LANGUAGES = ["llama", "qwen2", "gemma3_text", "phi3"]
STEPS, ROW_TOKENS = 20, 96
SIZES = [(20, 50), (70, 20), (33, 33)]
SVA = {
    "width": 32,
    "depth": 1,
    "num_heads": 4,
    "query_grid_sides": [4],
    "in_llm": {"start": 0, "stride": 1, "count": 1},
}


def new_model(language: str, attention: str) -> CambrianForConditionalGeneration:
    """Two blocks of an encoder, and two decoder layers, the first with an SVA block."""
    text = tiny_config(language).get_text_config()
    text.num_hidden_layers = 2
    if language == "gemma3_text":  # a window shorter than most samples
        text.sliding_window, text.layer_types = 16, ["sliding_attention", "full_attention"]
    model = tiny_model(text_config=text, vision_encoders=[replace(tiny_encoders()[0], feature_layer=1)], connector=SVA)
    model.set_attn_implementation(attention)
    return model.train()


def make_sample(seed: int) -> Sample:
    """A sample with none, one or two pictures, of which uneven numbers of tokens are supervised."""
    pictures = [SIZES[(seed + i) % 3] for i in range(seed % 3)]
    raw = tiny_sample(seed, pictures, text=4 + seed % 4)
    ids = raw["input_ids"][0]
    labels = ids.masked_fill((ids == IMAGE_TOKEN_ID) | (torch.arange(len(ids)) % (2 + seed % 2) == 0), -100)
    return Sample(ids, labels, raw["pixel_values"][:1], raw["image_sizes"])


def row_of(step: int) -> list[Sample]:
    """A row of three samples, with none, one and two pictures in turn, and padding behind them."""
    return [make_sample(3 * step + (i + step) % 3) for i in range(3)]


def packed_batches(row: list[Sample]) -> list[dict[str, Any]]:
    return [collate([row], ROW_TOKENS, pad_token_id=0).inputs]


def single_batches(row: list[Sample]) -> list[dict[str, Any]]:
    return [
        {
            "input_ids": sample.input_ids[None],
            "labels": sample.labels[None],
            "pixel_values": sample.pixel_values,
            "image_sizes": sample.image_sizes,
        }
        for sample in row
    ]


def train(
    model: CambrianForConditionalGeneration, steps: list[list[dict[str, Any]]]
) -> tuple[list[float], dict[str, Tensor]]:
    """Takes one AdamW step for each list of batches; returns every step's loss and the weights at the end."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, eps=1e-6, weight_decay=0.1)
    losses = []
    for batches in steps:
        supervised = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)
        loss = torch.zeros(())
        for batch in batches:
            part = model(**batch, num_items_in_batch=supervised).loss
            part.backward()
            loss += part.detach()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, {name: parameter.detach() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_packed_training_is_unpadded_training_one_by_one(language, attention):
    steps = [row_of(step) for step in range(STEPS)]
    packed = new_model(language, attention)
    packed.loss_options = LossOptions("chunked", chunk_tokens=16)
    packed_losses, packed_weights = train(packed, [packed_batches(row) for row in steps])
    losses, weights = train(new_model(language, attention), [single_batches(row) for row in steps])
    start = dict(new_model(language, attention).named_parameters())
    # 1e-5 of losses near 5 and of weights near 1: float32 sums in another order, over 20 steps of about 2e-3 each.
    # AdamW divides by a gradient's own size; its epsilon is above what rounding makes of gradients that are zero.
    torch.testing.assert_close(packed_losses, losses, atol=1e-5, rtol=0)
    for name, weight in weights.items():
        torch.testing.assert_close(packed_weights[name], weight, atol=1e-5, rtol=0, msg=name)
    moved = [(weight - start[name]).abs().max() > 1e-2 for name, weight in weights.items()]
    assert sum(moved) > 0.8 * len(moved)  # norms' biases that cancel in a softmax stay


def test_a_leak_between_samples_would_show():
    steps = [row_of(step) for step in range(3)]
    model = new_model("llama", "sdpa")
    leaking = [[{**b, "attention_mask": torch.ones_like(b["input_ids"])} for b in packed_batches(row)] for row in steps]
    losses, _ = train(model, leaking)
    expected, _ = train(new_model("llama", "sdpa"), [single_batches(row) for row in steps])
    assert max(abs(a - b) for a, b in zip(losses, expected, strict=True)) > 1e-4  # ten times what is allowed above


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning")  # transformers sets it
@pytest.mark.parametrize("language", LANGUAGES)
def test_packed_logits_of_flex_attention_are_those_of_single_samples(language):
    model = new_model(language, "flex_attention").eval()
    samples = [tiny_sample(1, [SIZES[0]], 5), tiny_sample(2, [], 7), tiny_sample(3, [SIZES[1], SIZES[2]], 3)]
    packed, *single = (
        model(**{**inputs, "pixel_values": inputs["pixel_values"][:1]}, use_cache=False).logits[0]
        for inputs in (pack(samples), *samples)
    )
    # 1e-5: the same sums in another order; a leak between samples would show at 1e-1
    torch.testing.assert_close(packed, torch.cat(single), atol=1e-5, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("language", LANGUAGES)
def test_packed_training_with_flex_attention_is_unpadded_training_one_by_one(language):
    def on_gpu(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {name: [x.cuda() for x in v] if isinstance(v, list) else v.cuda() for name, v in batch.items()}
            for batch in batches
        ]

    steps = [row_of(step) for step in range(STEPS)]
    packed, single = (new_model(language, "flex_attention").cuda() for _ in range(2))
    losses, weights = train(packed, [on_gpu(packed_batches(row)) for row in steps])
    expected_losses, expected = train(single, [on_gpu(single_batches(row)) for row in steps])
    # 1e-3: the kernel's products may use TF32; a leak between samples would show at 1e-1
    torch.testing.assert_close(losses, expected_losses, atol=1e-3, rtol=0)
    for name, weight in expected.items():
        torch.testing.assert_close(weights[name], weight, atol=1e-3, rtol=0)
