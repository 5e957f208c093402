"""The whole model gives the original's logits and greedy ids, SVA blocks inside the language model included.

The encoders are precomputed features, as in the recorded runs. Tolerances came with the recorded numbers.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig

from cambrian_model import CambrianConfig
from cambrian_model.checkpoints.released import KeyNames, config_from_released, translate_state_dict
from cambrian_model.image_tokens import num_image_tokens
from cambrian_model.model import CambrianForConditionalGeneration
from tests.support.reference import Fixture, load_fixture

FIXTURES = ["inf_in_llm", "inf_in_llm_dense", "inf_connector_only", "inf_two_query_groups", "inf_two_query_groups_down"]
NOT_SUPERVISED = -100


def build_model(fixture: Fixture) -> CambrianForConditionalGeneration:
    released = fixture.meta["config"]
    text_config = AutoConfig.for_model("llama", **{k: released[k] for k in TEXT_KEYS})
    config = config_from_released(released, text_config.to_dict(), fixture.meta["tower_hidden_sizes"])
    config.image_token_id = fixture.meta["image_token_index"]
    model = CambrianForConditionalGeneration(config)
    model.load_state_dict(translate_state_dict(fixture.params, KeyNames.of(config)), strict=True)
    return model.eval()


TEXT_KEYS = [
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "rms_norm_eps", "rope_theta", "bos_token_id", "pad_token_id", "eos_token_id",
    "max_position_embeddings", "tie_word_embeddings",
]  # fmt: skip


def sample(fixture: Fixture, config: CambrianConfig, row: int) -> dict[str, Any]:
    """One recorded sample with its image placeholder expanded, as our processor would."""
    sizes = fixture.inputs["image_sizes"].flip(-1)  # recorded as (width, height)
    ids: list[int] = []
    for token in fixture.meta["samples_without_padding"][row]:
        repeat = num_image_tokens(sizes[row].tolist(), config.grid_side) if token == config.image_token_id else 1
        ids += [token] * repeat
    features = [fixture.inputs[f"tower_features.{i}"][row : row + 1] for i in range(len(config.encoders))]
    return {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
        "image_sizes": sizes[row : row + 1],
        "vision_features": features,
    }


@pytest.mark.parametrize("name", FIXTURES)
@torch.no_grad()
def test_logits_equal_the_original(name):
    fixture = load_fixture(f"full_model/{name}")
    model = build_model(fixture)
    for row in range(len(fixture.inputs["input_ids"])):
        logits = model(**sample(fixture, model.config, row)).logits[0]
        expected = visible_rows(fixture, row)
        torch.testing.assert_close(logits, expected, **fixture.meta["tolerances"]["logits"])


def visible_rows(fixture: Fixture, row: int) -> Tensor:
    return fixture.outputs["logits"][row][fixture.outputs["inter.new_attention_mask"][row].bool()]


@pytest.mark.parametrize("name", FIXTURES)
@torch.no_grad()
def test_greedy_ids_equal_the_original(name):
    fixture = load_fixture(f"full_model/{name}")
    model = build_model(fixture)
    for row in range(len(fixture.inputs["input_ids"])):
        key = f"generate.{row}.ids"
        if key not in fixture.outputs:
            continue
        inputs = sample(fixture, model.config, row)
        ids = model.generate(**inputs, max_new_tokens=10, do_sample=False)
        new = ids[0, inputs["input_ids"].shape[1] :]
        assert new.tolist() == recorded_ids(fixture, key)[: len(new)]
        assert len(new) >= len(recorded_ids(fixture, key))


def recorded_ids(fixture: Fixture, key: str) -> list[int]:
    ids = fixture.outputs[key][0].tolist()
    return ids[1:] if ids and ids[0] == fixture.meta["config"]["bos_token_id"] else ids
