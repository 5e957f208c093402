"""Vision encoders from transformers: feature levels, resolutions, whole models of text and pictures, strict loading."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    BeitConfig,
    CLIPConfig,
    CLIPModel,
    DPTConfig,
    DPTForDepthEstimation,
    SamConfig,
    SamModel,
    SiglipConfig,
    SiglipModel,
    ViTForImageClassification,
    ViTMAEForPreTraining,
)

from cambrian_model import CambrianForConditionalGeneration
from cambrian_model.assemble import assemble
from cambrian_model.config import VisionEncoderConfig
from cambrian_model.errors import CheckpointError, ConfigError
from cambrian_model.training.recipe import load_recipe
from cambrian_model.vision import HfEncoder, describe, load_encoder
from tests.support import tiny_model
from tests.support.tiny_transformers import (
    CONFIGS,
    DEPTH,
    GRID,
    PATCH,
    SIDE,
    WIDTH,
    save,
    shaken,
    tiny_config,
    tiny_vision_model,
)

IN_STAGES = ("convnext", "swin")
TRANSFORMERS = sorted(set(CONFIGS) - set(IN_STAGES))
PREFIX_TOKENS = {
    "aimv2_vision_model": 0,
    "deit": 2,
    "dinov2_with_registers": 5,
    "dinov3_vit": 5,
    "ijepa": 0,
    "siglip_vision_model": 0,
}
FIXED_RESOLUTION = ("aimv2_vision_model", "sam_vision_model")


def run_whole(model, pixels):
    """The library's own outputs; a masked autoencoder is kept from masking and shuffling."""
    extra = {}
    if model.config.model_type == "vit_mae":
        model.config.mask_ratio = 0.0
        extra["noise"] = torch.arange(GRID**2, dtype=torch.float).expand(len(pixels), -1)
    return model(pixels, output_hidden_states=True, **extra)


def to_tokens(states, model_type):
    """What is expected of one of the library's states: patches alone, in reading order."""
    if model_type == "sam_vision_model":
        return states.flatten(1, 2)  # images, rows, columns, width
    if states.ndim == 4:
        return states.flatten(2).transpose(1, 2)
    return states[:, PREFIX_TOKENS.get(model_type, 1 if model_type in TRANSFORMERS else 0) :]


@pytest.mark.parametrize("model_type", sorted(CONFIGS))
def test_every_feature_level_is_the_librarys_own(tmp_path, model_type):
    whole = tiny_vision_model(model_type)
    folder = save(whole, tmp_path)
    source = describe({"name": f"hf:{folder}", "image_side": CONFIGS[model_type].get("image_size", 64)})
    pixels = torch.rand(2, 3, source.config.image_side, source.config.image_side)
    outputs = run_whole(whole, pixels)
    is_sam = model_type == "sam_vision_model"  # its own output is that of the neck
    last = outputs.hidden_states[-1] if is_sam else outputs.last_hidden_state
    features = load_encoder(source).encoder.eval()(pixels)
    assert torch.equal(features, to_tokens(last, model_type))
    assert features.shape == (2, source.config.num_tokens, source.config.width)
    for level, states in enumerate(outputs.hidden_states):
        at_level = describe({"name": f"hf:{folder}", "image_side": source.config.image_side, "feature_layer": level})
        assert torch.equal(load_encoder(at_level).encoder.eval()(pixels), to_tokens(states, model_type)), level


@pytest.mark.parametrize("model_type", TRANSFORMERS)
@pytest.mark.parametrize("level", [-1, -2])
def test_every_parameter_that_is_kept_gets_a_gradient(model_type, level):
    config = VisionEncoderConfig("transformers", "x", SIDE, WIDTH, GRID, level, model_args=as_args(model_type))
    encoder = HfEncoder(config).requires_grad_(True).train()
    encoder(torch.rand(1, 3, SIDE, SIDE)).square().sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


def as_args(model_type, **changes):
    values = tiny_config(model_type, **changes).to_diff_dict()
    return {
        k: v
        for k, v in values.items()
        if k not in ("transformers_version", "stage_names", "out_features", "out_indices")
    }


@pytest.mark.parametrize("model_type", sorted(set(TRANSFORMERS) - set(FIXED_RESOLUTION)))
def test_another_resolution_interpolates_positions(tmp_path, model_type):
    folder = save(tiny_vision_model(model_type), tmp_path)
    source = describe({"name": f"hf:{folder}", "image_side": 2 * SIDE, "feature_layer": -2})
    assert source.config.grid_side == 2 * GRID
    features = load_encoder(source).encoder.eval()(torch.rand(1, 3, 2 * SIDE, 2 * SIDE))
    assert features.shape == (1, (2 * GRID) ** 2, WIDTH)
    assert features.isfinite().all()


def test_positions_of_dinov2_are_interpolated_as_in_its_own_code(tmp_path):
    whole = tiny_vision_model("dinov2")
    source = describe({"name": f"hf:{save(whole, tmp_path)}", "image_side": 3 * PATCH})
    pixels = torch.rand(2, 3, 3 * PATCH, 3 * PATCH)
    grid = whole.embeddings.position_embeddings[:, 1:].transpose(1, 2).unflatten(2, (GRID, GRID))
    resized = torch.nn.functional.interpolate(grid, scale_factor=3.1 / GRID, mode="bicubic")
    table = torch.cat([whole.embeddings.position_embeddings[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)
    small = tiny_vision_model("dinov2", image_size=3 * PATCH)  # has the resized table as its own
    small.load_state_dict({**whole.state_dict(), "embeddings.position_embeddings": table})
    expected = small(pixels).last_hidden_state[:, 1:]
    assert torch.equal(load_encoder(source).encoder.eval()(pixels), expected)


def test_several_levels_are_concatenated_in_the_order_of_depth(tmp_path):
    whole = tiny_vision_model("vit")
    folder = save(whole, tmp_path)
    source = describe({"name": f"hf:{folder}", "feature_layer": [-1, 1], "grid_side": 3})
    assert source.config.width == 2 * WIDTH
    pixels = torch.rand(2, 3, SIDE, SIDE)
    states = whole(pixels, output_hidden_states=True).hidden_states
    grids = [states[level][:, 1:].transpose(1, 2).unflatten(2, (GRID, GRID)) for level in (1, DEPTH)]
    resized = [torch.nn.functional.interpolate(grid, size=(3, 3), mode="bilinear") for grid in grids]
    encoder = load_encoder(source).encoder.eval()
    assert torch.equal(encoder(pixels), torch.cat(resized, dim=1).flatten(2).transpose(1, 2))


def test_layers_behind_the_level_are_not_built():
    config = VisionEncoderConfig("transformers", "x", SIDE, WIDTH, GRID, -2, model_args=as_args("clip_vision_model"))
    names = HfEncoder(config).state_dict()
    assert any("layers.1." in name for name in names)
    assert not any(f"layers.{DEPTH - 1}." in name or "post_layernorm" in name for name in names)


def test_a_saved_checkpoint_builds_its_encoders_without_their_folders(tmp_path):
    encoders, connector = [], {"type": "sva", "width": 32, "depth": 1, "num_heads": 4, "query_grid_sides": [4]}
    for model_type in TRANSFORMERS:
        folder = save(tiny_vision_model(model_type), tmp_path / model_type)
        encoders += [describe({"name": f"hf:{folder}", "feature_layer": level}).config for level in (-1, -2)]
    torch.manual_seed(0)
    model = CambrianForConditionalGeneration(tiny_model.tiny_config(vision_encoders=encoders, connector=connector))
    shaken(model)
    assert str(tmp_path) not in json.dumps(model.config.to_dict(), default=str)
    save(model, tmp_path / "checkpoint")
    for model_type in TRANSFORMERS:
        (tmp_path / model_type / "config.json").unlink()
    loaded = CambrianForConditionalGeneration.from_pretrained(tmp_path / "checkpoint").eval()
    pixels = torch.rand(2, 3, SIDE, SIDE)
    for ours, theirs in zip(model.encoders, loaded.encoders, strict=True):
        assert torch.equal(ours(pixels), theirs(pixels)), ours.config.name


@pytest.mark.parametrize("drop", ["hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"])
def test_a_frozen_encoder_drops_nothing_and_a_trained_one_does(drop):
    torch.manual_seed(0)
    args = as_args("dinov2", **{drop: 0.5})
    encoder = HfEncoder(VisionEncoderConfig("transformers", "x", SIDE, WIDTH, GRID, model_args=args))
    shaken(encoder.body)
    pixels = torch.rand(4, 3, SIDE, SIDE)
    encoder.requires_grad_(False).train()
    assert torch.equal(encoder(pixels), encoder(pixels))
    encoder.requires_grad_(True).train()
    assert not torch.equal(encoder(pixels), encoder(pixels))


# Whole models


def clip(**vision):
    text = {"vocab_size": 33, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2}
    return shaken(CLIPModel(CLIPConfig(text_config=text, vision_config={**CONFIGS["clip_vision_model"], **vision})))


def siglip():
    text = {"vocab_size": 33, "hidden_size": 24, "intermediate_size": 24, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2}
    return shaken(SiglipModel(SiglipConfig(text_config=text, vision_config=CONFIGS["siglip_vision_model"])))


def dpt():
    return DPTConfig(**CONFIGS["dpt"], backbone_out_indices=[0, 1, 2, 2], **SMALL_DEPTH_HEAD)


def dpt_of_beit():
    sizes = {**CONFIGS["beit"], "num_hidden_layers": 4, "reshape_hidden_states": False}
    beit = BeitConfig(**sizes, out_features=["stage1", "stage2", "stage3", "stage4"])
    return DPTConfig(backbone_config=beit, hidden_size=WIDTH, is_hybrid=False, **SMALL_DEPTH_HEAD)


SMALL_DEPTH_HEAD = {"neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8, "reassemble_factors": [4, 2, 1, 0.5]}
SMALL_MAE = {"decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 16}
WHOLE_MODELS = {
    "clip": (clip, lambda model: model.vision_model, -2, {"text_model", "text_projection", "visual_projection"}),
    "siglip": (siglip, lambda model: model.vision_model, -2, {"text_model", "logit_scale"}),
    "vit": (lambda: ViTForImageClassification(tiny_config("vit")), lambda model: model.vit, -1, {"classifier"}),
    "mae": (
        lambda: ViTMAEForPreTraining(tiny_config("vit_mae", **SMALL_MAE)),
        lambda model: model.vit,
        -1,
        {"decoder"},
    ),
    "midas": (lambda: DPTForDepthEstimation(dpt()), lambda model: model.dpt, DEPTH, {"neck", "head"}),
    "midas of BEiT": (lambda: DPTForDepthEstimation(dpt_of_beit()), lambda model: model.backbone, 4, {"neck", "head"}),
}


@pytest.mark.parametrize("kind", WHOLE_MODELS)
def test_of_a_whole_model_the_part_that_sees_is_taken_and_the_rest_reported(tmp_path, kind):
    build, part, level, left_out = WHOLE_MODELS[kind]
    torch.manual_seed(0)
    whole = shaken(build())
    encoder, report = load_encoder(describe({"name": f"hf:{save(whole, tmp_path)}", "feature_layer": level}))
    pixels = torch.rand(2, 3, SIDE, SIDE)
    outputs = run_whole(part(whole), pixels)
    expected = outputs.last_hidden_state if level == -1 else outputs.hidden_states[level]
    assert torch.equal(encoder.eval()(pixels), to_tokens(expected, part(whole).config.model_type))
    assert left_out <= {name.split(".")[0] for name in report.left_out}


def test_of_a_segmentation_model_the_image_encoders_blocks_are_taken(tmp_path):
    torch.manual_seed(0)
    vision = {**CONFIGS["sam_vision_model"], "output_channels": 32}
    prompt = {"hidden_size": 32, "image_size": SIDE, "patch_size": PATCH, "mask_input_channels": 4}
    mask = {
        "hidden_size": 32,
        "mlp_dim": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 8,
    }
    whole = shaken(SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=mask)))
    encoder, report = load_encoder(describe({"name": f"hf:{save(whole, tmp_path)}"}))
    pixels = torch.rand(2, 3, SIDE, SIDE)
    blocks = whole.vision_encoder(pixels, output_hidden_states=True).hidden_states[-1]
    assert torch.equal(encoder.eval()(pixels), blocks.flatten(1, 2))
    assert {"mask_decoder", "prompt_encoder"} <= {name.split(".")[0] for name in report.left_out}


def test_a_folder_brings_preparation(tmp_path):
    folder = save(tiny_vision_model("clip_vision_model"), tmp_path)
    card = {
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4, 0.5, 0.6],
        "resample": 2,
        "crop_size": {"height": 14, "width": 14},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(card))
    config = describe({"name": "hf:some/name", "path": folder}).config
    assert (config.mean, config.std, config.interpolation) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear")
    assert config.image_side == SIDE  # the model's own, not what its demonstration crops to
    assert config.name == "some/name"
    assert describe({"name": f"hf:{folder}", "mean": [0, 0, 0]}).config.mean == (0, 0, 0)


def test_a_model_is_assembled_with_the_folders_weights(tmp_path):
    recipe = load_recipe("tiny").model.spec()
    folder = save(tiny_vision_model("siglip_vision_model"), tmp_path / "siglip")
    spec = {"name": f"hf:{folder}", "feature_layer": [-2, -1], "grid_side": 8}
    model, processor = assemble({**recipe, "vision_encoders": [spec]})
    inputs = processor.image_processor(Image.new("RGB", (30, 20), (200, 10, 90)))
    (pixels,) = inputs["pixel_values"]
    assert pixels.shape == (1, 3, SIDE, SIDE)
    expected = load_encoder(describe(spec)).encoder.eval()(pixels)
    assert torch.equal(model.eval().encode_images([pixels])[0], expected)


# Bad input


def refusal(spec):
    with pytest.raises((CheckpointError, ConfigError)) as error:
        load_encoder(describe(spec))
    return str(error.value)


def test_weights_that_are_not_this_encoders_are_refused_by_name(tmp_path):
    folder = save(clip(), tmp_path)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    last = f"vision_model.encoder.layers.{DEPTH - 1}.mlp.fc1.bias"

    def after(changes, **spec):
        save_file({k: v for k, v in {**tensors, **changes}.items() if v is not None}, file, metadata={"format": "pt"})
        return refusal({"name": f"hf:{folder}", **spec})

    assert f"1 missing (encoder.layers.{DEPTH - 1}.mlp.fc1.bias)" in after({last: None})
    assert "1 unexpected" in after({f"vision_model.encoder.layers.{DEPTH}.mlp.fc1.bias": torch.zeros(40)})
    assert "fc1.bias: (41,), expected (40,)" in after({last: torch.zeros(41)})
    assert "missing" in after({**dict.fromkeys(tensors), "x.y": torch.zeros(1)})
    save_file({**tensors, last: torch.zeros(41)}, file, metadata={"format": "pt"})
    load_encoder(
        describe({"name": f"hf:{folder}", "feature_layer": -2})
    )  # the layer is not built, so it may be anything


def test_damaged_disguised_and_pickled_weights_are_refused(tmp_path):
    folder = save(tiny_vision_model("vit"), tmp_path)
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in refusal({"name": f"hf:{folder}"})
    file.write_bytes(b"\x80\x04\x95\x10\x00\x00\x00pickle")
    assert "cannot be read" in refusal({"name": f"hf:{folder}"})
    file.rename(folder / "pytorch_model.bin")
    assert "found pytorch_model.bin, which may be a pickle and is never loaded" in refusal({"name": f"hf:{folder}"})


def test_the_weights_of_another_model_than_described_are_refused(tmp_path):
    folder = save(clip(), tmp_path / "clip")
    assert "its hidden_size is 24, but openai/clip-vit-large-patch14-336 has 1024; this is another model" in refusal(
        {"name": "clip-l-336", "path": folder}
    )
    assert "its model_type is clip_vision_model, but facebook/dinov2-large has dinov2" in refusal(
        {"name": "dinov2-l-518", "path": folder}
    )
    other = save(tiny_vision_model("vit"), tmp_path / "vit")
    source = describe({"name": f"hf:{folder}"})
    with pytest.raises(CheckpointError, match=r"these are not this encoder's weights: .* missing"):
        load_encoder(source._replace(folder=other))


def test_resolutions_that_do_not_fit_say_which_do(tmp_path):
    folder = save(tiny_vision_model("vit"), tmp_path / "vit")
    assert "no multiple of its patches of 7 pixels; take 28 or 35" in refusal(
        {"name": f"hf:{folder}", "image_side": 30}
    )
    sam = save(tiny_vision_model("sam_vision_model"), tmp_path / "sam")
    assert "gives no feature layer -1 of 56 x 56 pixels" in refusal({"name": f"hf:{sam}", "image_side": 56})
    assert "feature_layer names layer 3 twice" in refusal({"name": f"hf:{folder}", "feature_layer": [3, -1]})
    assert "no feature layer 9; it has 0 to 3" in refusal({"name": f"hf:{folder}", "feature_layer": 9})


def test_a_resolution_of_more_pixels_than_whole_patches_is_taken_where_the_model_was_trained_so(tmp_path):
    folder = save(tiny_vision_model("siglip_vision_model", image_size=30), tmp_path)
    assert describe({"name": f"hf:{folder}"}).config.grid_side == 4  # 30 = 4 x 7 + 2, as SigLIP's 384 = 27 x 14 + 6


def test_tokens_on_no_square_grid_are_refused(tmp_path):
    folder = save(tiny_vision_model("swin", image_size=[32, 32]), tmp_path)
    config = describe({"name": f"hf:{folder}"}).config
    strange = replace(config, model_args={**config.model_args, "patch_size": [4, 8]})
    with pytest.raises(ConfigError, match=r"returns \d+ tokens, which form no square grid"):
        describe_again(strange)


def describe_again(config):
    from cambrian_model.vision import feature_shape

    return feature_shape(config)


def test_what_cannot_see_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert '"llama" is no vision model' in refusal({"name": f"hf:{tmp_path}"})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no_such"}))
    assert "cannot be read as a transformers model's configuration" in refusal({"name": f"hf:{tmp_path}"})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "hidden_size": "wide"}))
    assert "cannot be read as a transformers model's configuration" in refusal({"name": f"hf:{tmp_path}"})
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_vit", "pretrained_cfg": {}}))
    assert 'this is a timm model; name it "timm:test_vit"' in refusal({"name": f"hf:{tmp_path}"})
    (tmp_path / "config.json").unlink()
    assert "no config.json; expected a transformers model's folder" in refusal({"name": f"hf:{tmp_path}"})
    assert "no such folder" in refusal({"name": "hf:nowhere"})
    flat = save(tiny_vision_model("vit"), tmp_path / "vit")
    assert 'unknown model_args "num_layers"; did you mean' in refusal(
        {"name": f"hf:{flat}", "model_args": {"num_layers": 1}}
    )
    assert "unknown model_type" in refusal({"name": f"hf:{flat}", "model_args": {"model_type": "no_such"}})


def test_a_model_that_is_not_here_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert "run `hf download facebook/dinov2-small`; or set path" in refusal({"name": "hf:facebook/dinov2-small"})
