"""Vision encoders from timm: levels, resolutions, local folders."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from cambrian_model.config import VisionEncoderConfig
from cambrian_model.errors import CheckpointError, ConfigError
from cambrian_model.processing.images import PixelSpec, prepare_pixels
from cambrian_model.vision import TimmEncoder, build_vision_encoder, describe, load_encoder


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
    (features,) = encoder.encode(pixels)
    torch.testing.assert_close(features, expected, atol=1e-6, rtol=0)  # one block less: the same sums, float32
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
    assert torch.equal(load_encoder(source).encoder.eval()(pixels), expected)


def test_bad_sources_are_named(tmp_path):
    with pytest.raises(ConfigError, match='unknown timm model "test_vti"; did you mean "test_vit'):
        describe({"name": "timm:test_vti"})
    with pytest.raises(ConfigError, match=r'unknown timm model "qqqqq"; timm.list_models\(\) lists them'):
        describe({"name": "timm:qqqqq"})
    with pytest.raises(
        ConfigError, match=r'timm knows no weights "test_vit.r161_in1k"; did you mean "test_vit.r160_in1k"'
    ):
        describe({"name": "timm:test_vit.r161_in1k"})
    with pytest.raises(ConfigError, match=r"feature_layer is \[1, 1\]"):
        describe({"name": "timm:test_convnext", "image_side": 64, "feature_layer": [1, 1]})
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
        load_encoder(describe({"name": "timm:test_convnext", "path": str(tmp_path)}))
    with pytest.raises(ConfigError, match='unknown library "tim"; did you mean "timm"'):
        build_vision_encoder(VisionEncoderConfig("tim", "x", 64, 1, 1))
    with pytest.raises(ConfigError, match="precomputed and cannot see pixels"):
        build_vision_encoder(VisionEncoderConfig("precomputed", "x", 64, 1, 1))(torch.rand(1, 3, 64, 64))


def save_timm(model: torch.nn.Module, folder: Path, architecture: str, **card: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"architecture": architecture, **card}))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("name", "side", "grid", "told"),
    [
        ("test_vit", 96, 6, {}),  # takes any resolution by itself
        ("test_vit3", 96, 6, {"img_size": 96}),
        ("eva02_tiny_patch14_224", 56, 4, {"img_size": 56}),
        ("test_convnext", 96, 3, {}),
    ],
)
def test_any_resolution_of_whole_patches_works_without_naming_an_argument(name, side, grid, told):
    config = describe({"name": f"timm:{name}", "image_side": side}).config
    assert config.grid_side == grid
    assert config.model_args == told
    assert build_vision_encoder(config).eval()(torch.rand(1, 3, side, side)).shape == (1, grid**2, config.width)


def test_weights_of_another_resolution_are_interpolated_by_timm_and_reported(tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model("test_vit3").eval()  # 160 pixels
    folder = save_timm(whole, tmp_path / "vit", "test_vit3")
    encoder, report = load_encoder(describe({"name": "timm:test_vit3", "path": folder, "image_side": 96}))
    assert report.resized == ("pos_embed",)
    assert {name.split(".")[0] for name in report.left_out} == {"attn_pool", "head"}
    assert "1 resized (pos_embed)" in str(report)
    overlay = {"file": folder / "model.safetensors"}
    expected = timm.create_model("test_vit3", img_size=96, pretrained=True, pretrained_cfg_overlay=overlay)
    assert torch.equal(encoder.state_dict()["body.pos_embed"], expected.pos_embed)
    native, unchanged = load_encoder(describe({"name": "timm:test_vit3", "path": folder, "image_side": 160}))
    assert unchanged.resized == ()
    pixels = torch.rand(1, 3, 160, 160)
    assert torch.equal(native.eval()(pixels), whole.forward_features(pixels)[:, 1:])


def test_several_levels_are_each_interpolated_and_concatenated_on_channels():
    torch.manual_seed(0)
    source = describe({"name": "timm:test_convnext", "image_side": 64, "feature_layer": [0, 1, 2, 3], "grid_side": 6})
    assert source.config.width == 24 + 32 + 48 + 64
    encoder = TimmEncoder(source.config).eval()
    pixels = torch.rand(2, 3, 64, 64)
    stages = timm.create_model("test_convnext").eval()
    stages.load_state_dict(encoder.body.state_dict(), strict=False)
    grids = stages.forward_intermediates(pixels, intermediates_only=True)
    resized = [torch.nn.functional.interpolate(grid, size=(6, 6), mode="bilinear") for grid in grids]
    assert torch.equal(encoder(pixels), torch.cat(resized, dim=1).flatten(2).transpose(1, 2))
    unasked = describe({"name": "timm:test_convnext", "image_side": 64, "feature_layer": [1, 3]}).config
    assert (unasked.width, unasked.grid_side) == (32 + 64, 2)  # the deepest level's own grid


def test_a_sam_gives_its_blocks_and_not_its_neck():
    small = {"img_size": 64, "embed_dim": 24, "depth": 2, "num_heads": 3, "window_size": 2, "global_attn_indexes": [1]}
    config = describe({"name": "timm:samvit_base_patch16", "image_side": 64, "model_args": small}).config
    assert (config.width, config.grid_side) == (24, 4)
    encoder = TimmEncoder(config).eval()
    assert not any("neck" in name for name in encoder.state_dict())
    whole = timm.create_model("samvit_base_patch16", **small).eval()
    whole.load_state_dict(encoder.body.state_dict(), strict=False)
    pixels = torch.rand(1, 3, 64, 64)
    expected = whole.forward_intermediates(pixels, indices=[1], norm=False, intermediates_only=True)[0]
    assert torch.equal(encoder(pixels), expected.flatten(2).transpose(1, 2))


def test_a_frozen_encoder_drops_nothing_and_a_trained_one_does():
    torch.manual_seed(0)
    args = {"img_size": 64, "drop_path_rate": 0.5, "proj_drop_rate": 0.5}
    encoder = build_vision_encoder(describe({"name": "timm:test_vit", "image_side": 64, "model_args": args}).config)
    pixels = torch.rand(1, 3, 64, 64)
    encoder.requires_grad_(False).train()
    assert not encoder.training
    assert torch.equal(encoder(pixels), encoder(pixels))
    encoder.requires_grad_(True).train()
    assert encoder.training
    assert not torch.equal(encoder(pixels), encoder(pixels))


def test_a_model_that_its_own_evaluation_crops_sees_the_whole_picture():
    config = describe({"name": "timm:vit_large_patch16_siglip_384.webli"}).config
    assert timm.get_pretrained_cfg("vit_large_patch16_siglip_384.webli").crop_pct == 0.9
    spec = PixelSpec(config.image_side, config.mean, config.std, config.interpolation)
    picture = Image.new("RGB", (384, 384))
    picture.putpixel((0, 383), (255, 255, 255))
    (pixels,) = prepare_pixels(picture, [spec])
    assert (pixels[:, 383, 0] == 1).all()
    assert (pixels == 1).sum() == 3


def test_weights_that_are_not_this_encoders_are_refused_by_name(tmp_path):
    torch.manual_seed(0)
    spec = {"name": "timm:test_vit", "image_side": 160}
    tensors = timm.create_model("test_vit").state_dict()

    def refusal(changes: dict[str, torch.Tensor | None]) -> str:
        folder = save_timm(timm.create_model("test_vit"), tmp_path / "vit", "test_vit")
        changed = {name: tensor.contiguous() for name, tensor in {**tensors, **changes}.items() if tensor is not None}
        save_file(changed, folder / "model.safetensors")
        with pytest.raises(CheckpointError) as error:
            load_encoder(describe({**spec, "path": folder}))
        return str(error.value)

    assert "1 missing (blocks.1.norm1.bias)" in refusal({"blocks.1.norm1.bias": None})
    assert "1 unexpected (blocks.6.norm1.bias)" in refusal({"blocks.6.norm1.bias": torch.zeros(64)})
    assert "norm.bias: (63,), expected (64,)" in refusal({"norm.bias": torch.zeros(63)})
    assert "patch_embed" in refusal({"patch_embed.proj.weight": torch.zeros(63, 3, 16, 16)})


def test_a_classifier_of_any_size_is_left_out(tmp_path):
    folder = save_timm(timm.create_model("test_convnext", num_classes=7), tmp_path / "x", "test_convnext")
    report = load_encoder(describe({"name": "timm:test_convnext", "path": folder, "image_side": 64})).report
    assert "head.fc.weight" in report.left_out


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x80\x04\x95\x10\x00\x00\x00pickle", "cannot be read as safetensors weights"),
        (None, "cannot be read as safetensors weights"),  # cut off in the middle
    ],
)
def test_damaged_or_disguised_weights_are_refused(tmp_path, content, reason):
    folder = save_timm(timm.create_model("test_convnext"), tmp_path / "x", "test_convnext")
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(content if content is not None else whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=reason):
        load_encoder(describe({"name": "timm:test_convnext", "path": folder}))


def test_a_pickle_is_never_read(tmp_path):
    folder = save_timm(timm.create_model("test_convnext"), tmp_path / "x", "test_convnext")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"found pytorch_model.bin, which may be a pickle and is never loaded"):
        load_encoder(describe({"name": "timm:test_convnext", "path": folder}))


def test_published_weights_that_are_not_here_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"run `hf download timm/test_vit.r160_in1k`; or set path to a folder"):
        load_encoder(describe({"name": "timm:test_vit.r160_in1k", "pretrained": True}))
    with pytest.raises(CheckpointError, match=r"timm knows only https.*IN1K-vit.h.14-300e.pth.tar, which is a pickle"):
        load_encoder(describe({"name": "timm:vit_huge_patch14_gap_224.in1k_ijepa", "pretrained": True}))


def test_published_weights_are_taken_from_the_hubs_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    torch.manual_seed(0)
    whole = timm.create_model("test_convnext").eval()
    repository = tmp_path / "models--timm--test_convnext.r160_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    save_timm(whole, repository / "snapshots" / ("0" * 40), "test_convnext")
    source = describe({"name": "timm:test_convnext.r160_in1k", "pretrained": True, "feature_layer": 1})
    pixels = torch.rand(1, 3, 64, 64)
    expected = whole.forward_intermediates(pixels, indices=[1], intermediates_only=True)[0].flatten(2).transpose(1, 2)
    encoder = load_encoder(source._replace(config=replace(source.config, grid_side=8))).encoder
    assert torch.equal(encoder.eval()(pixels), expected)
