"""The paper's backbones: what their entries say, against the models that they name; and how recipes name encoders."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from cambrian_model.errors import CheckpointError, ConfigError
from cambrian_model.training.recipe import load_recipe
from cambrian_model.training.start_model import _found_parts, _wanted_parts
from cambrian_model.vision import build_vision_encoder, describe, load_encoder, registry
from cambrian_model.vision.backbones import BACKBONES
from tests.support import tiny_model
from tests.support.tiny_transformers import save, tiny_vision_model

STUDY = [
    *("clip-l-336", "dfn-clip-l-224", "dfn-clip-h-378", "eva02-clip-l-336", "siglip-l-384", "siglip-so400m-384"),
    *("clip-convnext-l-512", "clip-convnext-l-1024", "clip-convnext-xxl-1024", "dinov2-l-336", "dinov2-l-518"),
    *("mocov3-b-224", "mocov3-l-224", "mae-l-224", "mae-h-224", "ijepa-h-224", "sam-l-1024", "sam-h-1024"),
    *("midas3-l-384", "midas31-beit-l-512", "sd21-512", "supvit-l-224", "supvit-h-224"),
]
RELEASED_ONLY = ["clip-convnext-xxl-1024-multistage", "dinov2-g-378"]
TIMM = [backbone for backbone in BACKBONES if backbone.library == "timm" and backbone.hub_id]


def on_meta(name):
    with torch.device("meta"):
        return build_vision_encoder(describe({"name": name}).config).eval()


def test_the_paper_has_23_backbones_and_the_released_models_two_more():
    assert [backbone.name for backbone in BACKBONES if backbone.study] == STUDY
    assert [backbone.name for backbone in BACKBONES if not backbone.study] == RELEASED_ONLY


def test_the_guides_table_says_what_the_entries_say():
    guide = (Path(__file__).parents[2] / "docs" / "vision-encoders.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in guide.splitlines() if line.startswith("| `")]
    table = {cells[0].strip("`"): cells[1:] for cells in rows if len(cells) == 10}
    assert table == {
        backbone.name: [
            backbone.group,
            str(backbone.image_side),
            str(backbone.patch),
            str(backbone.native_grid_side**2),
            str(backbone.grid_side**2),
            str(backbone.width),
            f"{backbone.parameters / 1e6:.0f} M",
            backbone.licence,
            f"`{backbone.library}` `{backbone.model}`",
        ]
        for backbone in BACKBONES
    }


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda backbone: backbone.name)
def test_width_grid_and_parameters_are_those_of_the_model(backbone):
    encoder = on_meta(backbone.name)
    side = backbone.image_side
    with torch.no_grad():
        levels = encoder.encode(torch.zeros(1, 3, side, side, device="meta"))
    assert sum(level.shape[2] for level in levels) == backbone.width
    assert levels[-1].shape[1] == backbone.native_grid_side**2
    assert sum(parameter.numel() for parameter in encoder.parameters()) == backbone.parameters
    is_unet = backbone.library == "diffusers"  # its finest block is four times finer than the paper's patches
    assert side // backbone.patch == (backbone.grid_side if is_unet else backbone.native_grid_side)
    config = describe({"name": backbone.name}).config
    assert (config.width, config.grid_side) == (backbone.width, backbone.grid_side)


@pytest.mark.parametrize("backbone", TIMM, ids=lambda backbone: backbone.name)
def test_preparation_licence_and_checkpoint_are_those_that_timm_knows(backbone):
    known = timm.get_pretrained_cfg(backbone.model)
    assert (known.mean, known.std) == backbone.normalisation
    assert known.interpolation == backbone.interpolation
    assert known.license == backbone.licence
    assert known.hf_hub_id == backbone.hub_id


def test_patches_of_14_give_these_grids():
    names = ["siglip-so400m-384", "dfn-clip-h-378", "dinov2-g-378", "dinov2-l-336", "dinov2-l-518"]
    assert [registry.entry(name).native_grid_side for name in names] == [27, 27, 27, 24, 37]


def test_clips_of_openai_and_dfn_have_openais_gelu():
    assert type(on_meta("dfn-clip-l-224").body.blocks[0].mlp.act).__name__ == "QuickGELU"
    assert type(on_meta("dfn-clip-h-378").body.blocks[0].mlp.act).__name__ == "QuickGELU"
    assert type(on_meta("clip-l-336").body.encoder.layers[0].mlp.activation_fn).__name__ == "QuickGELUActivation"


def test_the_encoders_of_the_released_8b_can_be_named():
    names = ["siglip-so400m-384", "clip-l-336", "dinov2-g-378", "clip-convnext-xxl-1024-multistage"]
    configs = [
        describe({"name": name, "grid_side": side}).config for name, side in zip(names, (24, 24, 24, 96), strict=True)
    ]
    assert [config.width for config in configs] == [1152, 1024, 1536, 5760]
    assert [config.num_tokens for config in configs] == [576, 576, 576, 9216]
    assert [config.image_side for config in configs] == [384, 336, 378, 1024]
    assert [config.feature_layer for config in configs] == [-1, -2, -1, (0, 1, 2, 3)]


def test_what_a_recipe_says_goes_over_the_entry():
    config = describe(
        {"name": "dinov2-l-336", "image_side": 224, "pad_color": [1, 2, 3], "interpolation": "bilinear"}
    ).config
    assert (config.image_side, config.grid_side, config.width) == (224, 16, 1024)
    assert (config.pad_color, config.interpolation) == ((1, 2, 3), "bilinear")
    config = describe({"name": "clip-convnext-l-512", "feature_layer": [2, 3], "grid_side": 32}).config
    assert (config.width, config.grid_side) == (768 + 1536, 32)
    assert describe({"name": "clip-convnext-l-512", "mean": [0, 0, 0]}).config.grid_side == 24
    assert describe({"name": "clip-convnext-l-512", "model_args": {"drop_path_rate": 0.1}}).config.grid_side == 24
    config = describe({"name": "dinov2-l-518", "model_args": {"drop_path_rate": 0.1}}).config
    assert (config.model_args["drop_path_rate"], config.model_args["hidden_size"], config.grid_side) == (0.1, 1024, 24)


def test_names_that_are_not_known_are_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r'unknown vision encoder "siglip-so400"; did you mean "siglip-so400m-384"\?'):
        describe({"name": "siglip-so400"})
    with pytest.raises(ConfigError, match=r'did you mean "timm:test_vit"?'):
        describe({"name": "test_vit"})
    with pytest.raises(ConfigError, match=r'unknown kind of vision encoder "tim:test_vit"; did you mean "timm"?'):
        describe({"name": "tim:test_vit"})
    with pytest.raises(ConfigError, match=r'unknown key "image_sise"; did you mean "image_side"?'):
        describe({"name": "clip-l-336", "image_sise": 224})
    with pytest.raises(ConfigError, match=r'unknown model_args "drop_path"; did you mean "drop_path_rate"'):
        describe({"name": "dinov2-l-518", "model_args": {"drop_path": 0.1}})
    with pytest.raises(ConfigError, match=r'unknown model_args "sead"; did you mean "seed"'):
        describe({"name": "sd21-512", "model_args": {"sead": 1}})
    with pytest.raises(ConfigError, match="image_side 225 is no multiple of its patches of 14 pixels"):
        describe({"name": "clip-l-336", "image_side": 225})


def test_a_folder_of_another_architecture_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_vit"}))
    with pytest.raises(
        CheckpointError, match=r'holds timm model "test_vit", but the recipe names "vit_large_patch16_224.mae"'
    ):
        describe({"name": "mae-l-224", "path": tmp_path})


def test_published_weights_that_are_not_here_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="run `hf download facebook/dinov2-large`; or set path"):
        load_encoder(describe({"name": "dinov2-l-518", "pretrained": True}))


def test_saved_features_are_named_like_the_encoder_that_they_come_from():
    config = describe({"name": "precomputed:siglip-so400m-384", "grid_side": 24}).config
    assert (config.library, config.name, config.width, config.grid_side) == (
        "precomputed",
        "siglip-so400m-384",
        1152,
        24,
    )
    config = describe({"name": "precomputed:timm:test_convnext", "image_side": 64, "feature_layer": 1}).config
    assert (config.name, config.width, config.grid_side) == ("timm:test_convnext", 32, 8)
    config = describe({"name": "precomputed:mine", "width": 7, "grid_side": 3}).config
    assert (config.name, config.width, config.num_tokens) == ("mine", 7, 9)
    with pytest.raises(ConfigError, match='"mine" is not known here, so give width and grid_side'):
        describe({"name": "precomputed:mine"})
    with pytest.raises(ConfigError, match="saved features have no weights; leave path and pretrained away"):
        describe({"name": "precomputed:siglip-so400m-384", "pretrained": True})
    assert load_encoder(describe({"name": "precomputed:mine", "width": 7, "grid_side": 3})).report.loaded == 0


# Recipes


def encoder_section(**values):
    overrides = [f"model.vision_encoders.0.{key}={json.dumps(value)}" for key, value in values.items()]
    return load_recipe("tiny", ["model.vision_encoders.0.path=null", *overrides]).model


def test_a_recipe_takes_names_several_levels_and_widths():
    section = encoder_section(name="clip-convnext-l-512", feature_layer=[2, 3])
    assert section.vision_encoders[0].feature_layer == (2, 3)
    assert section.spec()["vision_encoders"][0]["feature_layer"] == [2, 3]
    section = encoder_section(name="precomputed:mine", width=7, grid_side=3, feature_layer=None)
    assert describe(section.spec()["vision_encoders"][0]).config.width == 7


@pytest.mark.parametrize("name", ["dinov2-l-336", "timm:test_vit", "precomputed:siglip-so400m-384", "hf:{folder}"])
def test_a_checkpoint_is_recognised_as_that_of_its_recipe(tmp_path, name):
    name = name.format(folder=save(tiny_vision_model("vit"), tmp_path / "vit"))
    section = encoder_section(name=name, feature_layer=-1, grid_side=8)
    config = replace(describe(section.spec()["vision_encoders"][0]).config, grid_side=8)
    connector = {"type": "sva", "width": 32, "depth": 1, "num_heads": 4, "query_grid_sides": [8]}
    model = tiny_model.tiny_config(vision_encoders=[config], connector=connector, grid_side=8)
    wanted = {key: value for key, value in _wanted_parts(section).items() if key.startswith("vision_encoders.0")}
    assert wanted.items() <= _found_parts(model).items()


# The original's towers
