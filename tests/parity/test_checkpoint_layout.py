"""Our models have exactly the tensors of the four released checkpoints, in number, name and shape.

Built on the meta device from the released configurations: nothing of 34 billion parameters is computed or stored.
"""

import math
import re
from typing import Any

import pytest

from cambrian_model.checkpoints.completeness import expected_shapes
from cambrian_model.checkpoints.encoders import released_towers
from cambrian_model.checkpoints.released import (
    KeyNames,
    check_released_config,
    config_from_released,
    config_with_encoders,
    encoder_specs,
    encoder_widths,
    text_config_from_released,
)
from cambrian_model.vision.source import describe
from tests.support.golden import golden_json

LAYOUT = golden_json("checkpoint_layout/layout")
NUM_KEYS = {"cambrian-8b": 776, "cambrian-13b": 848, "cambrian-34b": 993, "cambrian-phi3-3b": 680}
NUMBER = re.compile(r"\{[LSDT]\}")
CLIP_MEAN = (122, 116, 104)


def released_config(name: str) -> dict[str, Any]:
    model = LAYOUT[name]
    return {"model_type": model["model_type"], **model["llm"], **model["connector"]}


def released_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of our model, by its released name."""
    released = released_config(name)
    text_config = text_config_from_released(released).to_dict()
    config = config_from_released(released, text_config, released["stub_tower_hidden_sizes"])
    names = KeyNames.of(config)
    return {names.to_released(ours): shape for ours, shape in expected_shapes(config).items()}


def test_every_released_model_is_compared():
    assert {name for name in LAYOUT if not name.startswith("_")} == set(NUM_KEYS)


@pytest.mark.parametrize("name", NUM_KEYS)
def test_names_and_shapes_are_those_of_the_released_checkpoint(name):
    shapes = released_shapes(name)
    assert len(shapes) == LAYOUT[name]["n_state_dict_keys"] == NUM_KEYS[name]
    assert sum(map(math.prod, shapes.values())) == LAYOUT[name]["n_parameters"]
    unmatched = dict(shapes)
    for pattern, recorded in LAYOUT[name]["key_patterns"].items():
        expression = re.compile(NUMBER.sub(r"\\d+", re.escape(pattern).replace(r"\{", "{").replace(r"\}", "}")))
        found = {key: shape for key, shape in unmatched.items() if expression.fullmatch(key)}
        assert len(found) == recorded["count"], pattern
        assert set(found.values()) == {tuple(recorded["shape"])}, pattern
        for key in found:
            del unmatched[key]
    assert not unmatched


@pytest.mark.parametrize("name", NUM_KEYS)
def test_every_name_translates_there_and_back(name):
    released = released_config(name)
    names = KeyNames.of(config_from_released(released, text_config_from_released(released).to_dict(), [8] * 4))
    assert all(names.to_released(names.to_ours(key)) == key for key in released_shapes(name))


@pytest.mark.parametrize("name", NUM_KEYS)
def test_blocks_follow_the_recorded_decoder_layers(name):
    released = released_config(name)
    config = config_from_released(released, text_config_from_released(released).to_dict(), [8] * 4)
    assert config.in_llm_layers == LAYOUT[name]["in_llm_after_layers"]


def test_the_language_model_of_phi3_keeps_its_fused_projections():
    shapes = released_shapes("cambrian-phi3-3b")
    assert shapes["model.layers.0.self_attn.qkv_proj.weight"] == (3 * 3072, 3072)
    assert shapes["model.layers.0.mlp.gate_up_proj.weight"] == (2 * 8192, 3072)
    assert not any("q_proj.weight" in name and ".self_attn." in name for name in shapes)


@pytest.mark.parametrize("name", NUM_KEYS)
def test_the_encoders_that_a_released_model_names_give_the_widths_that_its_weights_expect(name):
    released = released_config(name)
    check_released_config(released, name)
    configs = [describe(spec).config for spec in encoder_specs(released)]
    assert [config.width for config in configs] == released["stub_tower_hidden_sizes"]
    assert encoder_widths(released_shapes(name), 4) == released["stub_tower_hidden_sizes"]
    assert [config.num_tokens for config in configs] == released["mm_vision_tower_aux_token_len_list"]
    config = config_with_encoders(released, text_config_from_released(released).to_dict(), configs)
    assert released_towers(config) == released["mm_vision_tower_aux_list"]


def test_a_whole_model_with_its_four_encoders_has_the_same_tensors_beside_theirs():
    released = released_config("cambrian-8b")
    configs = [describe(spec).config for spec in encoder_specs(released)]
    config = config_with_encoders(released, text_config_from_released(released).to_dict(), configs)
    names, shapes = KeyNames.of(config), expected_shapes(config)
    others = {n: shape for n, shape in shapes.items() if not n.startswith("vision_encoders.")}
    assert {names.to_released(name): shape for name, shape in others.items()} == released_shapes("cambrian-8b")
    assert len(shapes) - len(others) > 1000


def test_wrapped_encoders_pad_with_the_mean_colour_of_clip_as_the_released_models_were_trained():
    siglip, clip, dinov2, convnext = (describe(s).config for s in encoder_specs(released_config("cambrian-8b")))
    assert siglip.mean == (0.5, 0.5, 0.5)
    assert siglip.pad_color == convnext.pad_color == CLIP_MEAN
    assert clip.pad_color is dinov2.pad_color is None  # their own means, which for CLIP is the same colour
    assert tuple(int(value * 255) for value in clip.mean) == CLIP_MEAN
    assert clip.feature_layer == -2
