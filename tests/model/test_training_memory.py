"""The memory estimate: states exactly, activations against what autograd keeps of real, tiny models."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.training.compute import checkpoint_activations
from cambrian_model.training.memory import (
    Component,
    Memory,
    MicroBatch,
    Setting,
    When,
    estimate_activations,
    estimate_states,
)
from cambrian_model.training.parts import matching
from cambrian_model.training.recipe.engine import LossSection, ParallelSection
from tests.support.tiny_model import VOCABULARY, pack, tiny_config, tiny_model, tiny_sample

EVERYTHING = ("vision_encoders", "connector", "in_llm", "language_model")

# What is left out: word embeddings, rotary tables, the mask itself, what enters the head; and blocks that see a cell
# less than a square picture has. Measured on these models: at most 4 %.
TOLERANCE = 0.05
# Of checkpointed layers so little stays that the same weighs more. Measured: at most 6 %.
CHECKPOINTED_TOLERANCE = 0.08


def train_only(model: CambrianForConditionalGeneration, parts: Sequence[str]) -> CambrianForConditionalGeneration:
    names = {name for part in parts for name in matching(part, dict(model.named_parameters()))}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    return model.train()


def without_numbers(parts: Sequence[str], language: str = "llama", **changes: Any) -> CambrianForConditionalGeneration:
    with torch.device("meta"):
        return train_only(CambrianForConditionalGeneration(tiny_config(language, **changes)), parts)


def two_rows() -> dict[str, Any]:
    row = pack([tiny_sample(1, [(64, 64)], text=40), tiny_sample(2, [(64, 64)], text=40)])
    return {
        "input_ids": row["input_ids"].repeat(2, 1),
        "position_ids": row["position_ids"].repeat(2, 1),
        "pixel_values": [pixels.repeat(2, 1, 1, 1) for pixels in row["pixel_values"]],
        "image_sizes": row["image_sizes"].repeat(2, 1),
    }


def kept_bytes(model: CambrianForConditionalGeneration, inputs: dict[str, Any], is_low: bool) -> int:
    """Returns what autograd keeps of a forward pass beside the model's own tensors."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    keeping = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with keeping, torch.autocast("cpu", torch.bfloat16, enabled=is_low):
        output = model(**inputs)
    assert output.logits.requires_grad
    return sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in own)


@pytest.mark.parametrize(
    ("language", "parts", "precision", "attention", "checkpointed"),
    [
        ("llama", EVERYTHING, "fp32", "eager", ()),
        ("llama", ("connector",), "bf16", "sdpa", ()),
        ("llama", EVERYTHING, "fp32", "sdpa", ("language_model", "vision_encoders")),
        ("llama", ("connector", "in_llm"), "bf16", "sdpa", ("language_model",)),
        ("gemma3_text", EVERYTHING, "bf16", "sdpa", ()),
        ("gemma3_text", ("language_model",), "fp32", "sdpa", ()),
    ],
)
def test_activations_are_what_autograd_keeps(language, parts, precision, attention, checkpointed):
    model = train_only(tiny_model(language), parts)
    model.set_attn_implementation(attention)
    checkpoint_activations(model, checkpointed)
    inputs = two_rows()
    batch = MicroBatch(rows=2, row_tokens=inputs["input_ids"].shape[1], images=4, supervised=7)
    setting = Setting(precision=precision, attention=attention, checkpointed=checkpointed)
    estimated = estimate_activations(without_numbers(parts, language), batch, setting)
    kept = sum(component.num_bytes for component in estimated.components if component.when == "kept")
    tolerance = CHECKPOINTED_TOLERANCE if checkpointed else TOLERANCE
    assert kept == pytest.approx(kept_bytes(model, inputs, precision == "bf16"), rel=tolerance)


BATCH = MicroBatch(rows=2, row_tokens=64, images=3, supervised=40)


def test_weights_gradients_and_optimizer_are_exact():
    parts = ("connector", "language_model")
    model = train_only(tiny_model(), parts)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    averages = [tensor for state in optimizer.state.values() for tensor in state.values() if tensor.ndim]
    estimated = estimate_states(without_numbers(parts), Setting(has_ema=True))
    assert estimated["trained weights"] == sum(parameter.nbytes for parameter in trained)
    assert estimated["gradients"] == sum(parameter.grad.nbytes for parameter in trained if parameter.grad is not None)
    assert estimated["AdamW"] == sum(tensor.nbytes for tensor in averages)
    assert estimated["EMA"] == estimated["trained weights"]
    everything = estimated["trained weights"] + estimated["frozen weights"]
    assert everything == sum(parameter.nbytes for parameter in model.parameters())


def test_sharding_divides_all_but_frozen_encoders_unless_asked():
    model = without_numbers(("connector", "in_llm"))
    whole = estimate_states(model, Setting(ranks=4, strategy="ddp"))
    shards = estimate_states(model, Setting(ranks=4, strategy="fsdp"))
    all_shards = ParallelSection(frozen_encoders="shard")
    everywhere = estimate_states(model, Setting(ranks=4, strategy="fsdp", parallel=all_shards))
    replicas = estimate_states(model, Setting(ranks=4, strategy="fsdp", parallel=ParallelSection(replicas=2)))
    # Shards differ by at most one row of each tensor; these tensors have few rows.
    assert shards["AdamW"] == pytest.approx(whole["AdamW"] / 4, rel=0.02)
    assert replicas["AdamW"] == pytest.approx(whole["AdamW"] / 2, rel=0.02)
    encoders = 4 * sum(parameter.numel() for encoder in model.encoders for parameter in encoder.parameters())
    assert shards["frozen weights"] > encoders > everywhere["frozen weights"]
    assert shards["gathered weights"] > 0 == whole["gathered weights"]


def test_quantised_weights_take_what_their_bits_do():
    model = without_numbers(("connector",))
    linear = [m for m in model.language_model.modules() if isinstance(m, torch.nn.Linear)]
    elements = sum(module.weight.numel() for module in linear if module is not model.get_output_embeddings())
    plain = estimate_states(model, Setting())["frozen weights"]
    assert plain - estimate_states(model, Setting(quantize="int8"))["frozen weights"] == 3 * elements
    nf4 = estimate_states(model, Setting(quantize="nf4"))["frozen weights"]
    assert plain - nf4 == pytest.approx((4 - 0.5625) * elements)


def test_what_is_computed_again_is_not_kept():
    model = without_numbers(("connector", "in_llm"))
    plain = estimate_activations(model, BATCH, Setting())
    checkpointed = estimate_activations(model, BATCH, Setting(checkpointed=("language_model",)))
    assert checkpointed["activations of the decoder"] < plain["activations of the decoder"] / 5
    assert 0 < checkpointed["a decoder layer computed again"] < plain["activations of the decoder"]
    assert checkpointed.total < plain.total


def test_what_is_frozen_keeps_nothing_and_what_is_cached_does_not_run():
    model = without_numbers(("connector",))
    estimated = estimate_activations(model, BATCH, Setting())
    options = Setting(has_pixels=False, attention="flash_attention_2", loss=LossSection(implementation="whole"))
    cached = estimate_activations(model, BATCH, options)
    assert estimated["activations of encoders"] == 0
    assert estimated["frozen encoders at work"] > 0 == cached["frozen encoders at work"]
    assert estimated["logits"] == 12 * VOCABULARY * 40  # of a chunk: logits, their softmax and its gradient in float32
    assert cached["logits"] == 12 * VOCABULARY * 2 * 64  # of everything
    masks = 4 * 3 * BATCH.rows * BATCH.row_tokens**2  # of 3 layers, as numbers; flash attention has none
    saved = estimated["activations of the decoder"] - cached["activations of the decoder"]
    assert saved >= masks


def test_the_worst_moment_is_either_of_encoding_or_of_the_backward_pass():
    sizes: dict[When, list[float]] = {
        "always": [5.0, 2.0],
        "kept": [10.0, 1.0],
        "backward": [4.0, 6.0],
        "encoding": [3.0],
    }
    components = tuple(Component(f"{when} {size}", size, when) for when, all_of in sizes.items() for size in all_of)
    assert Memory(components).total == 7 + 11 + 6
    assert Memory((*components, Component("encoders", 30.0, "encoding"))).total == 7 + 30
