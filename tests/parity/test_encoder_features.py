"""From what a backbone gives to the connector's tokens, against the original's wrappers: selection, interpolation."""

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from cambrian_model.config import VisionEncoderConfig
from cambrian_model.vision import HfEncoder, TimmEncoder, VisionEncoder
from tests.support.reference import Fixture, load_fixture
from tests.support.tiny_transformers import CONFIGS

PATCH = 7


@pytest.fixture(scope="module")
def fixture() -> Fixture:
    return load_fixture("preprocessing/tower_postprocess")


class GivenStates(nn.Module):
    """A transformers backbone whose output was recorded."""

    def __init__(self, states: Tensor, like: nn.Module) -> None:
        super().__init__()
        self.states, self.config = states, like.config

    def forward(self, pixels: Tensor) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=self.states)


class GivenStages(nn.Module):
    """A timm ConvNet whose stages were recorded."""

    def __init__(self, stages: list[Tensor]) -> None:
        super().__init__()
        self.stages = stages

    def forward_intermediates(self, pixels: Tensor, indices: list[int], **options: object) -> list[Tensor]:
        return [self.stages[i] for i in indices]


def run(encoder: VisionEncoder, expected: Tensor) -> Tensor:
    return encoder(torch.zeros(len(expected), 3, encoder.config.image_side, encoder.config.image_side))


def encoder_of(states: Tensor, model_type: str, grid_side: int, asked_side: int, level: int = -1) -> HfEncoder:
    model_args = {
        "model_type": model_type,
        **CONFIGS[model_type],
        "num_hidden_layers": 4,
        "image_size": PATCH * grid_side,
    }
    config = VisionEncoderConfig(
        "transformers", "x", PATCH * grid_side, states.shape[2], asked_side, level, model_args=model_args
    )
    encoder = HfEncoder(config)
    encoder.body = GivenStates(states, encoder.body)
    return encoder


@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize(
    ("tower", "model_type"), [("clip", "clip_vision_model"), ("dino", "dinov2"), ("siglip", "siglip_vision_model")]
)
def test_class_tokens_are_dropped_and_patches_interpolated_as_in_the_original(fixture, case, tower, model_type):
    sizes = fixture.meta["cases"][case]
    states = fixture.inputs[f"tokens_with_cls.{case}"]
    states = states[:, 1:] if tower == "siglip" else states
    asked_side = round(sizes["interp_tokens"] ** 0.5)
    encoder = encoder_of(states, model_type, sizes["grid_side"], asked_side)
    expected = fixture.outputs[f"{tower}.{case}"]
    # Bilinear interpolation in float32 by another release of PyTorch.
    torch.testing.assert_close(run(encoder, expected), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("level", [0, -2, -1])
def test_clip_takes_the_hidden_state_that_the_original_selects(fixture, level):
    states = [fixture.inputs[f"clip_hidden_states.{i}"] for i in range(5)]
    encoder = encoder_of(states[level], "clip_vision_model", 3, 3, level)
    expected = fixture.outputs[f"clip_select_layer.{level}"]
    assert torch.equal(run(encoder, expected), expected)
    built = HfEncoder(encoder.config).body.encoder.layers  # level n leaves the n-th layer: the rest is not built
    assert len(built) == range(5)[level]


@pytest.mark.parametrize("tokens", [36, 64])
@pytest.mark.parametrize("is_multi_stage", [False, True])
def test_convnext_stages_are_interpolated_one_by_one_and_concatenated(fixture, tokens, is_multi_stage):
    stages = [fixture.inputs[f"convnext_stage.{i}"] for i in range(4)]
    levels = (0, 1, 2, 3) if is_multi_stage else -1
    encoder = TimmEncoder(VisionEncoderConfig("timm", "test_convnext", 64, 0, round(tokens**0.5), levels))
    encoder.body = GivenStages(stages)
    expected = fixture.outputs[f"convnext.multi{int(is_multi_stage)}.{tokens}"]
    # Bilinear interpolation in float32 by another release of PyTorch.
    torch.testing.assert_close(run(encoder, expected), expected, atol=1e-6, rtol=0)
