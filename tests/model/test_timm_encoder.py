"""Vision encoders from timm: levels, resolutions, local folders."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file

from cambrian_model.config import VisionEncoderConfig
from cambrian_model.errors import CheckpointError, ConfigError
from cambrian_model.vision import TimmEncoder, build_vision_encoder
from cambrian_model.vision.timm_encoder import describe, load_timm_encoder


@pytest.mark.parametrize(
    ("name", "level", "model_args", "width", "side"),
    [
        ("test_vit", -1, {"img_size": 64}, 64, 4),
        ("test_vit", -2, {"img_size": 64}, 64, 4),
        ("test_convnext", 1, {}, 32, 8),
        ("test_efficientnet", 0, {}, 16, 32),
        ("test_resnet", -1, {}, 96, 2),
    ],
)
def test_describe_finds_width_and_grid_of_a_level_without_weights(name, level, model_args, width, side):
    spec = {"name": f"timm:{name}", "image_side": 64, "feature_layer": level, "model_args": model_args}
    config = describe(spec).config
    assert (config.width, config.grid_side) == (width, side)
    features = build_vision_encoder(config).eval()(torch.rand(2, 3, 64, 64))
    assert features.shape == (2, side * side, width)


def test_features_are_those_of_the_unpruned_model():
    torch.manual_seed(0)
    whole = timm.create_model("test_vit", img_size=64).eval()
    encoder = TimmEncoder(VisionEncoderConfig("timm", "test_vit", 64, 64, 4, -2, model_args={"img_size": 64})).eval()
    encoder.body.load_state_dict(whole.state_dict(), strict=False)
    pixels = torch.rand(2, 3, 64, 64)
    expected = whole.get_intermediate_layers(pixels, n=[len(whole.blocks) - 2])[0]
    torch.testing.assert_close(encoder.encode(pixels), expected, atol=1e-6, rtol=0)
    last = len(whole.blocks) - 1
    assert not any(name.startswith(f"blocks.{last}.") for name in encoder.body.state_dict())


def test_features_are_interpolated_to_the_asked_grid():
    config = describe({"name": "timm:test_convnext", "image_side": 64, "feature_layer": 1, "grid_side": 6}).config
    assert config.num_tokens == 36
    assert build_vision_encoder(config)(torch.rand(1, 3, 64, 64)).shape == (1, 36, 32)


def test_a_local_folder_brings_weights_and_normalisation(tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model("test_convnext").eval()
    card = {
        "architecture": "test_convnext",
        "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 96, 96]},
    }
    (tmp_path / "config.json").write_text(json.dumps(card))
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    source = describe({"name": "timm:test_convnext", "path": str(tmp_path), "feature_layer": 1})
    assert source.config.mean == (0.1, 0.2, 0.3)
    assert source.config.image_side == 96
    pixels = torch.rand(1, 3, 96, 96)
    expected = whole.forward_intermediates(pixels, indices=[1], intermediates_only=True)[0].flatten(2).transpose(1, 2)
    assert torch.equal(load_timm_encoder(source).eval()(pixels), expected)


def test_bad_sources_are_named(tmp_path):
    with pytest.raises(ConfigError, match='unknown timm model "test_vti"; did you mean "test_vit'):
        describe({"name": "timm:test_vti"})
    with pytest.raises(ConfigError, match="no feature layer -1 of 50 x 50 pixels"):
        describe({"name": "timm:test_vit", "image_side": 50})
    with pytest.raises(ConfigError, match="no feature layer 99 of 64 x 64 pixels"):
        describe({"name": "timm:test_convnext", "image_side": 64, "feature_layer": 99})
    with pytest.raises(ConfigError, match="does not take these model_args"):
        describe({"name": "timm:test_convnext", "image_side": 64, "model_args": {"bogus": 1}})
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        describe({"name": "timm:test_vit", "path": str(tmp_path)})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match='no "architecture"'):
        describe({"name": "timm:test_vit", "path": str(tmp_path)})
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_convnext"}))
    with pytest.raises(CheckpointError, match='holds timm model "test_convnext", but the recipe names "test_vit"'):
        describe({"name": "timm:test_vit", "path": str(tmp_path)})
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04not safetensors")
    with pytest.raises(CheckpointError, match=r"model.safetensors"):
        load_timm_encoder(describe({"name": "timm:test_convnext", "path": str(tmp_path)}))
    with pytest.raises(ConfigError, match='unknown library "tim"; did you mean "timm"'):
        build_vision_encoder(VisionEncoderConfig("tim", "x", 64, 1, 1))
    with pytest.raises(ConfigError, match="precomputed and cannot see pixels"):
        build_vision_encoder(VisionEncoderConfig("precomputed", "x", 64, 1, 1))(torch.rand(1, 3, 64, 64))
