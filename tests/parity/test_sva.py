"""The SVA gives the original's numbers: outputs and gradients of its "joint" and "sep" samplers.

Tolerances are those that came with the recorded numbers (float32 against float64: 1e-6; ours adds the rounding of
absorbed projections).
"""

import pytest
import torch
from torch import nn

from cambrian_model.checkpoints.released import block_to_ours, block_to_released
from cambrian_model.connectors.sva import SVABlock
from cambrian_model.connectors.visual_context import VisualContext
from cambrian_model.connectors.window_attention import WindowShape
from tests.support.reference import Fixture, load_fixture

FIXTURES = [
    "sva_joint/a_two_towers_kv1",
    "sva_joint/a2_two_towers_kv1_mixed_dims",
    "sva_joint/b_four_towers_depth3",
    "sva_joint/c_kv2_kv3_masks",
    "sva_joint/c2_kv2_kv3_one_tower_dead",
    "sva_joint/d_llm_query_dim",
    "sva_joint/e_single_tower_kv3",
    "sva_sep/a_two_towers_kv1",
    "sva_sep/b_four_towers_depth3",
    "sva_sep/c_kv2_kv3_masks",
    "sva_sep/d_llm_query_dim",
    "sva_sep/e_single_tower_kv2",
]


def build_blocks(fixture: Fixture) -> nn.ModuleList:
    config = fixture.meta["config"]
    windows = [WindowShape(*pair) for pair in zip(config["kv_size_list"], config["kv_dim_list"], strict=True)]
    blocks = nn.ModuleList(
        SVABlock(
            config["q_dim"],
            config["vision_hidden_size"],
            windows,
            config["num_heads"],
            attention_of(fixture),
            summary_dim=config["context_dim"],
        )
        for _ in range(config["num_of_layers"])
    )
    ours = {to_ours(name, attention_of(fixture)): tensor for name, tensor in fixture.params.items()}
    blocks.load_state_dict(ours, strict=True)
    return blocks


def attention_of(fixture: Fixture) -> str:
    return {"joint": "joint", "sep": "separate"}[fixture.meta["config"]["layer_type"]]


def to_ours(name: str, attention: str) -> str:
    _, layer, rest = name.split(".", 2)
    return f"{layer}.{block_to_ours(rest, attention)}"


def to_released(name: str, attention: str) -> str:
    layer, rest = name.split(".", 1)
    return f"layers.{layer}.{block_to_released(rest, attention)}"


def run(fixture: Fixture, blocks: nn.ModuleList, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    num_encoders = len(fixture.meta["config"]["kv_size_list"])
    latents = [inputs[f"latents.{i}"] for i in range(num_encoders)]
    context = VisualContext(
        tuple(latents),
        tuple(inputs[f"mask.{i}"] for i in range(num_encoders)),
        inputs["context"].squeeze(1),
        torch.arange(len(inputs["queries"])),
    )
    queries = inputs["queries"].squeeze(1)
    for block in blocks:
        queries = block(queries, context)
    return queries


@pytest.mark.parametrize("name", FIXTURES)
def test_output_and_gradients_equal_the_original(name):
    fixture = load_fixture(name)
    blocks = build_blocks(fixture)
    inputs = {k: v.requires_grad_() if v.is_floating_point() else v for k, v in fixture.inputs.items()}

    output = run(fixture, blocks, inputs)
    torch.testing.assert_close(output, fixture.outputs["output"].squeeze(1), **fixture.meta["tolerances"]["output"])

    (output * inputs["cotangent"].squeeze(1)).sum().backward()
    attention = attention_of(fixture)
    ours = {f"param.{to_released(name, attention)}": p.grad for name, p in blocks.named_parameters()}
    ours |= {name: tensor.grad for name, tensor in inputs.items()}
    assert set(fixture.grads) <= set(ours)
    for name, expected in fixture.grads.items():
        torch.testing.assert_close(ours[name], expected, **fixture.meta["tolerances"]["grads"])


def test_masked_features_do_not_matter():
    fixture = load_fixture("sva_joint/c_kv2_kv3_masks")
    blocks = build_blocks(fixture)
    garbage = dict(fixture.inputs)
    for i in range(3):
        garbage[f"latents.{i}"] = torch.where(garbage[f"mask.{i}"][..., None], garbage[f"latents.{i}"], 1e3)
    with torch.no_grad():
        # 1e-6: the masked keys have weight zero; only their place in the sum remains
        torch.testing.assert_close(
            run(fixture, blocks, garbage), run(fixture, blocks, fixture.inputs), atol=1e-6, rtol=0
        )
