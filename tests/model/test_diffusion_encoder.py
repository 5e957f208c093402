"""Stable Diffusion as a vision encoder, on a tiny random one."""

import builtins

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from cambrian_model import CambrianForConditionalGeneration
from cambrian_model.errors import CheckpointError, ConfigError
from cambrian_model.vision import describe, load_encoder
from tests.support import tiny_model
from tests.support.tiny_diffusion import PROMPT_TOKENS, WIDTHS, save_tiny_diffusion

SIDE = 64  # 16 latents; the up blocks give 8, 16 and 16 cells per side


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_diffusion(tmp_path_factory.mktemp("diffusion") / "tiny")


@pytest.fixture(scope="module")
def loaded(folder):
    return load_encoder(describe({"name": f"diffusers:{folder}", "grid_side": 8}))


def original_features(folder, pixels, noise, timestep=250):
    """What diffusers' own modules compute, their up blocks read by hooks: the original's steps, with given noise."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").eval()
    vae = AutoencoderKL.from_pretrained(folder / "vae").eval()
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    text = CLIPTextModel.from_pretrained(folder / "text_encoder").eval()
    ids = CLIPTokenizer.from_pretrained(folder / "tokenizer")("", padding="max_length", return_tensors="pt").input_ids
    assert ids.shape == (1, PROMPT_TOKENS)
    outputs = []
    for block in unet.up_blocks:
        block.register_forward_hook(lambda module, args, output: outputs.append(output))
    latents = vae.config.scaling_factor * vae.encode(pixels).latent_dist.mode()
    time = torch.tensor(timestep)
    noisy = scheduler.add_noise(latents, noise.expand_as(latents), time)
    prompt = text(ids)[0].expand(len(pixels), -1, -1)
    unet(noisy, time, encoder_hidden_states=prompt)
    return outputs


@torch.no_grad()
def test_features_are_those_of_the_original_given_the_noise(folder, loaded):
    encoder = loaded.encoder.eval()
    pixels = torch.rand(2, 3, SIDE, SIDE) * 2 - 1
    blocks = original_features(folder, pixels, encoder.noise)
    resized = [torch.nn.functional.interpolate(block, size=(8, 8), mode="bilinear") for block in blocks]
    expected = torch.cat(resized, dim=1).flatten(2).transpose(1, 2)
    assert expected.shape == (2, 64, WIDTHS[2] + WIDTHS[1] + WIDTHS[0])
    # The same modules on the same numbers; the two scales of the noise are rounded once more in float32.
    torch.testing.assert_close(encoder(pixels), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_noise_is_the_same_at_every_call_in_every_batch_and_by_seed(folder, loaded):
    encoder = loaded.encoder.eval()
    pixels = torch.rand(3, 3, SIDE, SIDE)
    together = encoder(pixels)
    assert torch.equal(together, encoder(pixels))
    # One picture or three: convolutions sum in another order.
    torch.testing.assert_close(encoder(pixels[1:2]), together[1:2], atol=1e-5, rtol=0)
    again = load_encoder(describe({"name": f"diffusers:{folder}"})).encoder
    assert torch.equal(again.state_dict()["noise"], encoder.noise)
    other = load_encoder(describe({"name": f"diffusers:{folder}", "model_args": {"seed": 1}})).encoder
    assert not torch.equal(other.state_dict()["noise"], encoder.noise)


@pytest.mark.parametrize(("level", "width", "side"), [(0, 16, 8), (-1, 8, 16), ([0, 1], 28, 16)])
def test_levels_choose_up_blocks_and_later_ones_are_not_built(folder, level, width, side):
    source = describe({"name": f"diffusers:{folder}", "feature_layer": level})
    assert (source.config.width, source.config.grid_side) == (width, side)
    encoder, report = load_encoder(source)
    assert encoder.eval()(torch.rand(1, 3, SIDE, SIDE)).shape == (1, side**2, width)
    last = max(level) if isinstance(level, list) else level % 3
    assert not any(name.startswith(f"unet.up_blocks.{last + 1}.") for name in encoder.state_dict())
    assert any(name.startswith("vae.decoder.") for name in report.left_out)


def test_an_odd_number_of_latents_is_taken(folder):
    source = describe({"name": f"diffusers:{folder}", "image_side": 36, "grid_side": 4})  # 9 latents
    assert load_encoder(source).encoder.eval()(torch.rand(1, 3, 36, 36)).shape == (1, 16, sum(WIDTHS))


def test_every_parameter_that_is_kept_gets_a_gradient(loaded):
    encoder = loaded.encoder.requires_grad_(True).train()
    encoder(torch.rand(1, 3, SIDE, SIDE)).square().sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []
    encoder.requires_grad_(False).eval()


@torch.no_grad()
def test_a_saved_checkpoint_needs_neither_folder_nor_text_model(folder, loaded, tmp_path):
    connector = {"type": "sva", "width": 32, "depth": 1, "num_heads": 4, "query_grid_sides": [4]}
    model = CambrianForConditionalGeneration(
        tiny_model.tiny_config(vision_encoders=[loaded.encoder.config], connector=connector)
    )
    model.encoders[0].load_state_dict(loaded.encoder.state_dict())
    model.save_pretrained(tmp_path)
    again = CambrianForConditionalGeneration.from_pretrained(tmp_path).eval()
    saved, found = loaded.encoder.state_dict(), again.encoders[0].state_dict()
    assert saved.keys() == found.keys()
    assert all(torch.equal(saved[name], found[name]) for name in saved)
    pixels = torch.rand(1, 3, SIDE, SIDE)
    # The same numbers at other places in memory: a product's last bit depends on where they lie.
    torch.testing.assert_close(again.encoders[0](pixels), loaded.encoder.eval()(pixels), atol=1e-5, rtol=0)
    assert loaded.encoder.prompt.abs().sum() > 0
    assert not any("text" in name for name in model.state_dict() if name.startswith("vision_encoders"))


def refusal(spec):
    with pytest.raises((CheckpointError, ConfigError)) as error:
        load_encoder(describe(spec))
    return str(error.value)


def test_what_does_not_fit_is_refused(folder, tmp_path):
    assert "image_side 66 is no multiple of 4" in refusal({"name": f"diffusers:{folder}", "image_side": 66})
    assert "no up block 3; the UNet has 0 to 2" in refusal({"name": f"diffusers:{folder}", "feature_layer": 3})
    assert "block_out_channels is [8, 12, 16], but stabilityai/stable-diffusion-2-1 has" in refusal(
        {"name": "sd21-512", "path": folder}
    )
    assert "unet/config.json: missing; expected a folder in diffusers' layout" in refusal(
        {"name": f"diffusers:{tmp_path}"}
    )
    told = save_tiny_diffusion(tmp_path / "told", class_embed_type="timestep")
    assert "its UNet has class_embed_type; expected one that takes a prompt alone" in refusal(
        {"name": f"diffusers:{told}"}
    )


def test_damaged_and_pickled_weights_are_refused(tmp_path):
    folder = save_tiny_diffusion(tmp_path / "tiny")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read as weights of a UNet2DConditionModel" in refusal({"name": f"diffusers:{folder}"})
    file.rename(file.with_suffix(".bin"))
    assert "diffusion_pytorch_model.safetensors: missing" in refusal({"name": f"diffusers:{folder}"})
    file.write_bytes(whole)
    (folder / "text_encoder" / "model.safetensors").rename(folder / "text_encoder" / "pytorch_model.bin")
    assert "cannot be read as a text model" in refusal({"name": f"diffusers:{folder}"})


def test_without_diffusers_the_extra_is_named(monkeypatch):
    imported = builtins.__import__

    def no_diffusers(name, *args, **kwargs):
        if name == "diffusers":
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_diffusers)
    with pytest.raises(ConfigError, match=r'needs diffusers: pip install "cambrian-model\[diffusion\]"'):
        describe({"name": "sd21-512", "image_side": 256})
