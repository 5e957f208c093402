"""The FLOP model against torch's own counter on real, tiny models; peaks of devices.

The counter sees matrix products and convolutions, on any kernel but that of grouped experts (`aten._grouped_mm`); the
two products inside SVA's own operator have formulas that `flops.py` registers.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from cambrian_model.config import VisionEncoderConfig
from cambrian_model.connectors.window_attend import _backward, window_attend
from cambrian_model.image_tokens import visible_region
from cambrian_model.language.loss import LossOptions
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.training.compute import checkpoint_activations
from cambrian_model.training.flops import BatchShape, FlopModel, peak_flops
from cambrian_model.training.parts import matching
from tests.support.tiny_model import GRID_SIDE, VOCABULARY, pack, tiny_encoders, tiny_model, tiny_sample

SIZES = [(64, 64), (40, 64)]
CELLS = sum(region.rows * region.columns for region in (visible_region(size, GRID_SIDE) for size in SIZES))
EVERYTHING = ("vision_encoders", "connector", "in_llm", "language_model")

# What the model leaves out: the products of single vectors in SVA's bias terms. Measured: at most 0.1 % of forward or
# backward on models this small, where they weigh the most.
TOLERANCE = 2e-3


def train_only(model: CambrianForConditionalGeneration, parts: Sequence[str]) -> CambrianForConditionalGeneration:
    names = {name for part in parts for name in matching(part, dict(model.named_parameters()))}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    return model.train()


def batch() -> dict[str, Any]:
    return pack([tiny_sample(1, SIZES[:1], text=20), tiny_sample(2, SIZES[1:], text=30)])


def count(model: CambrianForConditionalGeneration) -> tuple[float, float]:
    """Returns what the counter sees of forward and backward."""
    inputs = batch()
    with FlopCounterMode(display=False) as forward:
        loss = model(**inputs, labels=inputs["input_ids"].clone()).loss
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


def shape() -> BatchShape:
    tokens = batch()["input_ids"].shape[1]
    return BatchShape.of_rows(1, tokens, supervised=tokens, images=len(SIZES), cells=CELLS)


def assert_as_counted(model: CambrianForConditionalGeneration) -> None:
    counted, flops = count(model), FlopModel.of(model, loss="whole")
    parts = flops.by_part(shape()).values()
    predicted = (sum(forward for forward, _ in parts), sum(backward for _, backward in parts))
    assert predicted == pytest.approx(counted, rel=TOLERANCE)
    assert flops.model_flops(shape()) == pytest.approx(sum(counted), rel=TOLERANCE)


@pytest.mark.parametrize("language", ["llama", "qwen2", "phi3", "gemma3_text"])
@pytest.mark.parametrize("parts", [("connector",), EVERYTHING], ids=["connector", "everything"])
def test_every_language_model_costs_what_the_counter_sees(language, parts):
    model = train_only(tiny_model(language), parts)
    model.set_attn_implementation("eager")
    vit: Any = model.encoders[0].body  # eager too: a fused attention makes its scores again, which is no model FLOP
    for block in vit.blocks:
        block.attn.fused_attn = False
    assert_as_counted(model)


@pytest.mark.parametrize(
    "parts",
    [
        ("vision_encoders",),
        ("in_llm",),
        ("language_model",),
        ("sva",),
        ("connector", "in_llm"),
        ("projector", "*.mlp.*"),
    ],
    ids=lambda parts: "+".join(parts),
)
def test_backward_costs_what_gradients_flow_through(parts):
    """Nothing below the lowest trained part, half where a frozen part lies above it."""
    model = train_only(tiny_model("llama"), parts)
    model.set_attn_implementation("sdpa")
    counted = sum(count(model))
    assert FlopModel.of(model, loss="whole").hardware_flops(shape()) == pytest.approx(counted, rel=TOLERANCE)


def test_a_frozen_encoder_under_a_trained_connector_has_no_backward_pass():
    flops = FlopModel.of(train_only(tiny_model(), ["connector"]))
    encoders = {part: costs for part, costs in flops.by_part(shape()).items() if part.startswith("vision encoder")}
    assert len(encoders) == 2
    assert all(forward > 0 and backward == 0 for forward, backward in encoders.values())
    without = FlopModel.of(train_only(tiny_model(), ["connector"]), has_pixels=False)
    saved = sum(forward for forward, _ in encoders.values())
    assert flops.model_flops(shape()) - without.model_flops(shape()) == pytest.approx(saved)


def experts(model_type: str, **sizes: int) -> PreTrainedConfig:
    return CONFIG_MAPPING[model_type](
        vocab_size=VOCABULARY,
        hidden_size=48,
        intermediate_size=56,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        num_experts_per_tok=2,
        pad_token_id=0,
        **sizes,
    )


@pytest.mark.parametrize(
    "text",
    [experts("mixtral", num_local_experts=4), experts("qwen3_moe", num_experts=4, moe_intermediate_size=24)],
    ids=lambda text: text.model_type,
)
def test_experts_cost_as_many_as_a_token_is_sent_to(text):
    model = train_only(tiny_model(text_config=text), ["connector", "language_model"])
    model.set_attn_implementation("eager")
    model.language_model.set_experts_implementation("eager")  # the counter does not see grouped products
    assert_as_counted(model)


@pytest.mark.parametrize(
    "connector",
    [
        {"type": "mlp2x_gelu"},
        {"type": "resampler", "width": 32, "depth": 2, "num_heads": 4},
        {"type": "c_abstractor", "width": 32, "depth": 1},
        {"type": "ldp_v2"},
        {"type": "sva", "width": 32, "depth": 1, "num_heads": 4, "query_grid_sides": [2, 4], "attention": "separate"},
    ],
    ids=lambda connector: connector["type"],
)
def test_every_connector_and_a_transformers_encoder_cost_what_the_counter_sees(connector):
    clip = {
        "model_type": "clip_vision_model",
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 16,
    }
    encoder = VisionEncoderConfig("transformers", "clip", image_side=64, width=48, grid_side=4, model_args=clip)
    model = train_only(
        tiny_model(connector=connector, vision_encoders=[tiny_encoders()[0], encoder]), ["vision_encoders", "connector"]
    )
    model.set_attn_implementation("sdpa")
    counted = sum(count(model))
    assert FlopModel.of(model, loss="whole").hardware_flops(shape()) == pytest.approx(counted, rel=TOLERANCE)


@pytest.mark.parametrize("language", ["llama", "gemma3_text", "mixtral"])
def test_checkpointed_layers_are_computed_twice(language):
    """But for the last product of a layer, if nothing needs its result: no norm, no experts and no SVA block."""
    changes = {"text_config": experts("mixtral", num_local_experts=4)} if language == "mixtral" else {}
    model = train_only(tiny_model("llama" if changes else language, **changes), ["connector", "in_llm"])
    model.set_attn_implementation("eager")
    if changes:
        model.language_model.set_experts_implementation("eager")
    plain = sum(count(model))
    checkpoint_activations(model, ["language_model"])
    flops = FlopModel.of(model, loss="whole", checkpointed=("language_model",))
    again = flops.hardware_flops(shape()) - flops.model_flops(shape())
    assert again == pytest.approx(sum(count(model)) - plain, rel=TOLERANCE)


def test_logits_in_chunks_are_made_twice():
    model = train_only(tiny_model("llama"), ("connector", "language_model"))
    model.set_attn_implementation("sdpa")
    model.loss_options = LossOptions("chunked", chunk_tokens=16)
    inputs, supervised = batch(), 30
    labels = inputs["input_ids"].clone()
    labels[:, :-supervised] = -100
    model(**inputs, labels=labels)  # the first call also checks the head
    with FlopCounterMode(display=False) as counter:
        model(**inputs, labels=labels).loss.backward()
    expected = FlopModel.of(model).hardware_flops(dataclasses.replace(shape(), supervised=supervised))
    assert expected == pytest.approx(counter.get_total_flops(), rel=TOLERANCE)


def test_trained_encoders_are_taken_to_be_computed_twice_as_a_whole():
    """An upper bound: what lies outside of blocks, and the last product of some blocks, is not repeated."""
    model = train_only(tiny_model("llama"), ["vision_encoders"])
    model.set_attn_implementation("sdpa")
    plain = sum(count(model))
    checkpoint_activations(model, ["vision_encoders"])
    flops = FlopModel.of(model, loss="whole", checkpointed=("vision_encoders",))
    assert plain < sum(count(model)) <= flops.hardware_flops(shape())


def test_a_model_without_numbers_costs_the_same():
    model = train_only(tiny_model(), EVERYTHING)
    with torch.device("meta"):
        empty = CambrianForConditionalGeneration(model.config)
    assert FlopModel.of(train_only(empty, EVERYTHING)) == FlopModel.of(model)


def test_documents_attend_to_themselves_alone_and_logits_are_made_where_supervised():
    packed = BatchShape.of_documents([30, 50], supervised=7)
    assert packed == BatchShape(tokens=80, pairs=30**2 + 50**2, supervised=7)
    flops = FlopModel.of(train_only(tiny_model(), ["language_model"]))
    costs = {part: flops.by_part(packed)[part] for part in ("attention", "head")}
    width = 4 * 12  # heads x head_dim
    assert costs["attention"] == (3 * 4 * width * packed.pairs, 3 * 8 * width * packed.pairs)  # 3 layers
    assert costs["head"] == (2 * 48 * VOCABULARY * 7, 4 * 48 * VOCABULARY * 7)
    assert flops.hardware_flops(packed) > flops.model_flops(packed)  # chunks of logits are made again


def test_the_operator_of_sva_counts_what_it_multiplies():
    """Exactly: its formula against what the counter sees when the operator's code runs in the open."""
    q, weight, gain = torch.randn(6, 4, 8), torch.randn(32, 10), torch.randn(10)
    features, position, mask = torch.randn(6, 3, 10), torch.randn(3, 10), torch.ones(6, 3, dtype=torch.bool)
    arguments = (q, weight, gain, weight, gain, features, position, mask)
    weights = window_attend(*arguments)[2]
    backward = (q, torch.randn(6, 4), *arguments[:-1], weights)
    for operator, given in ((window_attend, arguments), (_backward, backward)):
        with FlopCounterMode(display=False) as by_formula:
            operator(*given)
        with FlopCounterMode(display=False) as in_the_open:
            operator._init_fn(*given)
        assert by_formula.get_total_flops() == in_the_open.get_total_flops() > 0


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [
        ("NVIDIA H200", "bf16", 989e12),
        ("NVIDIA H100 80GB HBM3", "bf16", 989e12),
        ("NVIDIA H100 PCIe", "bf16", 756e12),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312e12),
        ("NVIDIA A10", "fp16", 125e12),
        ("Tesla V100-SXM2-16GB", "fp16", 125e12),
        ("Tesla V100-SXM2-16GB", "bf16", None),
        ("NVIDIA L40S", "bf16", 362e12),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2e12),
        ("NVIDIA B200", "bf16", 2250e12),
        ("AMD Instinct MI300X", "bf16", 1307e12),
        ("H100", "bf16", 989e12),
        ("NVIDIA A1000", "bf16", None),
        ("cpu", "fp32", None),
    ],
)
def test_the_peak_of_a_device_is_known_by_its_name(device, precision, expected):
    assert peak_flops(device, precision) == expected
