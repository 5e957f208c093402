"""The SVA gives the original's numbers: outputs and gradients of its "joint" sampler.

Tolerances are those that came with the recorded numbers (float32 against float64: 1e-6; ours adds the rounding of
absorbed projections).
"""

import pytest
import torch
from torch import nn

from cambrian_model.checkpoints.released import block_to_ours, block_to_released
from cambrian_model.connectors.sva import SVABlock, VisualContext, WindowShape
from tests.support.reference import Fixture, load_fixture

FIXTURES = [
    "a_two_towers_kv1",
    "a2_two_towers_kv1_mixed_dims",
    "b_four_towers_depth3",
    "c_kv2_kv3_masks",
    "c2_kv2_kv3_one_tower_dead",
    "d_llm_query_dim",
    "e_single_tower_kv3",
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
            summary_dim=config["context_dim"],
        )
        for _ in range(config["num_of_layers"])
    )
    blocks.load_state_dict({to_ours(name): tensor for name, tensor in fixture.params.items()}, strict=True)
    return blocks


def to_ours(name: str) -> str:
    _, layer, rest = name.split(".", 2)
    return f"{layer}.{block_to_ours(rest)}"


def to_released(name: str) -> str:
    layer, rest = name.split(".", 1)
    return f"layers.{layer}.{block_to_released(rest)}"


def run(fixture: Fixture, blocks: nn.ModuleList, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    num_encoders = len(fixture.meta["config"]["kv_size_list"])
    latents = [inputs[f"latents.{i}"] for i in range(num_encoders)]
    context = VisualContext(
        tuple(x - x.mean(-1, keepdim=True) for x in latents),
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
    fixture = load_fixture(f"sva_joint/{name}")
    blocks = build_blocks(fixture)
    inputs = {k: v.requires_grad_() if v.is_floating_point() else v for k, v in fixture.inputs.items()}

    output = run(fixture, blocks, inputs)
    torch.testing.assert_close(output, fixture.outputs["output"].squeeze(1), **fixture.meta["tolerances"]["output"])

    (output * inputs["cotangent"].squeeze(1)).sum().backward()
    ours = {f"param.{to_released(name)}": parameter.grad for name, parameter in blocks.named_parameters()}
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
