"""Activation checkpointing and compilation: the same gradients, less memory, few graphs."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import tests.support.compiled_layers
from cambrian_model.config import VisionEncoderConfig
from cambrian_model.errors import ConfigError
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.training.compute import Checkpointed, checkpoint_activations
from cambrian_model.vision import build_vision_encoder, describe, load_encoder
from cambrian_model.vision.base import VisionEncoder
from tests.support import tiny_transformers
from tests.support.tiny_diffusion import save_tiny_diffusion
from tests.support.tiny_model import IMAGE_TOKEN_ID, pack, tiny_model, tiny_sample

ROOT = Path(__file__).parents[2]


def hf_encoder(model_type: str) -> VisionEncoderConfig:
    return VisionEncoderConfig(
        "transformers",
        model_type,
        image_side=32 if model_type == "convnext" else tiny_transformers.SIDE,
        width=0,
        grid_side=4,
        model_args=tiny_transformers.tiny_config(model_type).to_diff_dict(),
    )


def timm_encoder(name: str, grid_side: int = 4, **model_args: Any) -> VisionEncoderConfig:
    return VisionEncoderConfig("timm", name, image_side=64, width=0, grid_side=grid_side, model_args=model_args)


def kept_for_backward(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[int, Any]:
    """Returns the bytes that a call keeps for the backward pass, parameters left out, and what it returns."""
    kept = {p.untyped_storage().data_ptr() for p in module.parameters()}
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = module(*args, **kwargs)
    return sum(size for pointer, size in found.items() if pointer not in kept), output


def gradients(module: nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    return found


def assert_saves_memory_alone(encoder: VisionEncoder, side: int) -> None:
    encoder.train()
    pixels = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    results = []
    for checkpointing in (False, True):
        if checkpointing:
            encoder.checkpoint_activations()
        size, features = kept_for_backward(encoder, pixels)
        features.square().sum().backward()
        results.append((size, features.detach(), gradients(encoder)))
    (whole, features, expected), (part, same_features, found) = results
    assert part < whole / 2
    assert torch.equal(features, same_features)
    assert found.keys() == expected.keys()
    for name in expected:  # computed twice from the same numbers by the same code
        assert torch.equal(found[name], expected[name]), name


@pytest.mark.parametrize(
    "config",
    [timm_encoder("test_vit", img_size=64), timm_encoder("test_convnext"), hf_encoder("dinov2"), hf_encoder("dpt")],
    ids=lambda config: config.name,
)
def test_an_encoder_keeps_less_and_gives_the_same_gradients(config):
    torch.manual_seed(0)
    assert_saves_memory_alone(build_vision_encoder(config), config.image_side)


def test_stable_diffusion_keeps_less_and_gives_the_same_gradients(tmp_path):
    encoder = load_encoder(describe({"name": f"diffusers:{save_tiny_diffusion(tmp_path / 'tiny')}"})).encoder
    assert_saves_memory_alone(encoder, 64)


@pytest.mark.parametrize("config", [hf_encoder("convnext"), timm_encoder("dla34")], ids=lambda config: config.name)
def test_an_encoder_that_cannot_is_refused(config):
    with torch.device("meta"):
        encoder = build_vision_encoder(config)
    with pytest.raises(ConfigError, match=rf"encoder {config.name} cannot checkpoint its activations; .*freeze it"):
        encoder.checkpoint_activations()


def batch() -> dict[str, Any]:
    inputs = pack([tiny_sample(1, [(20, 50)], 5), tiny_sample(2, [], 7), tiny_sample(3, [(70, 20), (33, 33)], 3)])
    return {**inputs, "labels": inputs["input_ids"].masked_fill(inputs["input_ids"] == IMAGE_TOKEN_ID, -100)}


def step(model: CambrianForConditionalGeneration) -> tuple[int, Tensor, dict[str, Tensor]]:
    size, output = kept_for_backward(model, **batch())
    output.loss.backward()
    return size, output.loss.detach(), gradients(model)


@pytest.mark.parametrize("language", ["llama", "gemma3_text"])
def test_parts_are_checkpointed_apart_and_together_with_the_same_gradients(language):
    sizes = []
    choices: list[list[Checkpointed]] = [[], ["language_model"], ["vision_encoders"]]
    expected = step(tiny_model(language).train())
    for parts in (*choices, [*choices[1], *choices[2]]):
        model = tiny_model(language).train()
        checkpoint_activations(model, parts)
        size, loss, found = step(model)
        sizes.append(size)
        assert torch.equal(loss, expected[1])
        assert found.keys() == expected[2].keys()
        for name in found:  # computed twice from the same numbers by the same code
            assert torch.equal(found[name], expected[2][name]), name
    whole, *parts_alone, both = sizes
    assert whole == expected[0]
    saved = [whole - size for size in parts_alone]
    assert min(saved) > 0.15 * whole
    assert whole - both > 0.95 * sum(saved)


def test_frozen_encoders_are_passed_over_also_where_they_could_not():
    cannot = replace(hf_encoder("convnext"), width=20)
    model = tiny_model(vision_encoders=[cannot, replace(timm_encoder("test_convnext", grid_side=8), width=64)])
    with pytest.raises(ConfigError, match="encoder convnext cannot"):
        checkpoint_activations(model, ["vision_encoders"])
    model.encoders[0].requires_grad_(False)
    checkpoint_activations(model, ["vision_encoders"])
    assert all(stage.grad_checkpointing for stage in cast(Any, model.encoders[1]).body.stages)


def test_word_embeddings_of_a_frozen_language_model_ask_for_no_gradients():
    model = tiny_model().train()
    model.language_model.requires_grad_(False)
    checkpoint_activations(model, ["language_model"])
    assert not model.get_input_embeddings()(torch.tensor([[5]])).requires_grad


@pytest.mark.slow  # half a minute to two minutes of compilation
@pytest.mark.parametrize("options", [["aot_eager"], ["inductor", "--checkpointing"]], ids=lambda options: options[0])
def test_compiled_layers_give_the_same_gradients_from_few_graphs_whatever_the_number_of_pictures(options):
    if options[0] == "inductor" and not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        pytest.skip("inductor needs a C++ compiler, and there is none")
    command = [sys.executable, "-m", tests.support.compiled_layers.__name__, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    # Encoder block, connector's input, SVA block, output, decoder layer: for no picture, one, several. The encoder sees
    # one where there is none; decoder layers without a block, which are the same for all, are one more.
    assert said["graphs"] == [6, 10] + [15] * 7
    assert said["breaks"] == 0
    assert said["worst"] <= 1e-6  # of the largest gradient: float32 sums in the order that fused loops take
