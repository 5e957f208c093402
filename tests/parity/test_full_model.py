"""The whole model gives the original's numbers: logits, losses, hidden states, generated ids and gradients.

All 19 recorded models, their encoders precomputed features. Tolerances came with the recorded numbers: 5e-5 for logits
and hidden states, 1e-5 and one thousandth for gradients; ids are exact. The original's padding of pictures, masked in
training and removed in inference, is never there in ours; visible positions are compared.

What the original does wrong is a closed list, each with our right behaviour and, where it can be done with ours, the
wrong one too, so that nothing else can hide behind it:

- inf_image_position_mismatch: the original's blocks inside the language model treat fixed positions as the picture's.
- inf_text_only_in_batch_in_llm, row 1: they treat a text's states at these positions so, too.
- inf_truncation: sequences over the longest length are cut anywhere, inside a picture too; ours are not cut.

In training the original scrambles the masks of a query group whose grid is not the final one. No window of a recorded
picture is masked in part, so train_two_query_groups shows nothing of it and is equal like the others.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from cambrian_model.checkpoints.released import (
    KeyNames,
    config_from_released,
    text_config_from_released,
    translate_state_dict,
)
from cambrian_model.image_tokens import num_image_tokens
from cambrian_model.language.aggregation import TokenContext, decoder_layers
from cambrian_model.model import CambrianForConditionalGeneration, token_loss
from tests.support.reference import Fixture, load_fixture

INFERENCE = [
    "inf_connector_only",
    "inf_in_llm",
    "inf_in_llm_dense",
    "inf_mlp2x_one_tower",
    "inf_mlp2x_two_towers",
    "inf_multi_image_connector_only",
    "inf_phi3_in_llm",
    "inf_text_only_in_batch_connector_only",
    "inf_two_query_groups",
    "inf_two_query_groups_down",
]
WITHOUT_BLOCKS = ["inf_in_llm", "inf_in_llm_dense", "inf_two_query_groups"]
IN_PART = ["inf_image_position_mismatch", "inf_text_only_in_batch_in_llm", "inf_truncation"]
TRAINING = [
    "train_connector_only",
    "train_in_llm",
    "train_in_llm_text_only",
    "train_mlp2x_two_towers",
    "train_truncated",
    "train_two_query_groups",
]


class Recorded(NamedTuple):
    """One recorded model, and ours with its parameters."""

    fixture: Fixture
    model: CambrianForConditionalGeneration
    names: KeyNames

    def tolerance(self, kind: str) -> dict[str, Any]:
        return self.fixture.meta["tolerances"][kind]

    def output(self, name: str) -> Tensor:
        if name not in self.fixture.outputs:
            pytest.skip(f"{name} is left out of the copy in tests/golden")
        return self.fixture.outputs[name]


def load(name: str) -> Recorded:
    fixture = load_fixture(f"full_model/{name}")
    released = fixture.meta["config"]
    text_config = text_config_from_released(released).to_dict()
    config = config_from_released(released, text_config, fixture.meta["tower_hidden_sizes"])
    config.image_token_id = fixture.meta.get("image_token_index", -200)
    model = CambrianForConditionalGeneration(config)
    names = KeyNames.of(config)
    model.load_state_dict(translate_state_dict(fixture.params, names), strict=True)
    return Recorded(fixture, model.eval(), names)


@lru_cache
def load_once(name: str) -> Recorded:
    """For tests that change nothing of the model."""
    return load(name)


def test_every_recorded_model_is_compared(shared):
    folders = {folder.name for folder in (shared / "reference" / "full_model").iterdir()}
    assert folders == {*INFERENCE, *IN_PART, *TRAINING}


# --- inference


def samples(recorded: Recorded) -> list[dict[str, Any]]:
    """The recorded samples with their image placeholders expanded, as our processor would.

    A text without a picture takes a picture all the same in the original; ours is given none.
    """
    fixture, image_id = recorded.fixture, recorded.model.config.image_token_id
    sizes, first, result = recorded_sizes(fixture), 0, []
    for tokens in fixture.meta["samples_without_padding"]:
        count = tokens.count(image_id)
        pictures = range(first, first + count)
        result.append(one_sample(recorded, expand(tokens, sizes[first : first + count], recorded), pictures))
        first += max(count, 1)
    return result


def recorded_sizes(fixture: Fixture) -> Tensor:
    return fixture.inputs["image_sizes"].flip(-1)  # recorded as (width, height)


def expand(tokens: list[int], sizes: Tensor, recorded: Recorded) -> list[int]:
    config = recorded.model.config
    lengths = iter(num_image_tokens(size, config.grid_side) for size in sizes.tolist())
    return [t for token in tokens for t in [token] * (next(lengths) if token == config.image_token_id else 1)]


def one_sample(recorded: Recorded, ids: list[int], pictures: range) -> dict[str, Any]:
    inputs = recorded.fixture.inputs
    num_encoders = len(recorded.model.vision_encoders)
    return {
        "input_ids": torch.tensor([ids]),
        "image_sizes": recorded_sizes(recorded.fixture)[list(pictures)],
        "vision_features": [inputs[f"tower_features.{i}"][list(pictures)] for i in range(num_encoders)],
    }


def visible(recorded: Recorded, name: str, row: int) -> Tensor:
    """One row of a recorded output, its padding left out."""
    return recorded.output(name)[row][recorded.output("inter.new_attention_mask")[row].bool()]


@pytest.mark.parametrize("name", INFERENCE)
@torch.no_grad()
def test_logits_equal_the_original(name):
    recorded = load_once(name)
    for row, sample in enumerate(samples(recorded)):
        logits = recorded.model(**sample).logits[0]
        torch.testing.assert_close(logits, visible(recorded, "logits", row), **recorded.tolerance("logits"))


@pytest.mark.parametrize("name", INFERENCE)
@torch.no_grad()
def test_the_loss_equals_the_original(name):
    recorded = load_once(name)
    check_loss(recorded, [recorded.model(**sample).logits[0] for sample in samples(recorded)])


def check_loss(recorded: Recorded, rows: list[Tensor]) -> None:
    logits = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    loss = token_loss(logits, recorded.output("inter.new_labels"))
    torch.testing.assert_close(loss, recorded.output("loss").squeeze(), **recorded.tolerance("loss"))


@pytest.mark.parametrize("name", ["inf_in_llm", "inf_in_llm_dense", "inf_phi3_in_llm"])
@torch.no_grad()
def test_hidden_states_of_every_layer_equal_the_original(name):
    recorded = load_once(name)
    for row, sample in enumerate(samples(recorded)):
        ours = recorded.model(**sample, output_hidden_states=True).hidden_states
        assert f"hidden_states.{len(ours)}" not in recorded.fixture.outputs
        for layer, states in enumerate(ours):
            theirs = visible(recorded, f"hidden_states.{layer}", row)
            torch.testing.assert_close(states[0], theirs, **recorded.tolerance("hidden_states"))


@pytest.mark.parametrize("name", [*WITHOUT_BLOCKS, *IN_PART[:2]])
@torch.no_grad()
def test_a_forward_before_any_generate_of_the_original_is_ours_without_the_blocks(name):
    recorded = load(name)
    for layer in decoder_layers(recorded.model.language_model):
        layer.register_module("sva", None)
    for row, sample in enumerate(samples(recorded)):
        theirs = visible(recorded, "plain_forward.logits", row)
        torch.testing.assert_close(recorded.model(**sample).logits[0], theirs, **recorded.tolerance("logits"))


def generate(recorded: Recorded, inputs: dict[str, Any], num_tokens: int = 10, eos: int = 2) -> tuple[Tensor, Tensor]:
    """Returns the new ids of every row, and the logits that chose them, step by step."""
    result = recorded.model.generate(
        **inputs,
        max_new_tokens=num_tokens,
        do_sample=False,
        eos_token_id=eos,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return result.sequences[:, inputs["input_ids"].shape[1] :], torch.stack(result.logits, dim=1)


def with_mask(sample: dict[str, Any]) -> dict[str, Any]:
    return {**sample, "attention_mask": torch.ones_like(sample["input_ids"])}


@pytest.mark.parametrize("name", INFERENCE)
@torch.no_grad()
def test_greedy_ids_equal_the_original(name):
    recorded = load_once(name)
    stops = {"generate": 2, "generate_eos": recorded.fixture.meta["generate_eos"]["eos_token_id"]}
    compared = 0
    for row, sample in enumerate(samples(recorded)):
        for kind, eos in stops.items():
            if f"{kind}.{row}.ids" in recorded.fixture.outputs:
                ids, _ = generate(recorded, with_mask(sample), eos=eos)
                assert ids.tolist() == new_ids(recorded, f"{kind}.{row}.ids")
                compared += 1
    assert compared >= 3


@pytest.mark.parametrize("name", INFERENCE)
@torch.no_grad()
def test_the_logits_of_every_step_equal_the_original(name):
    recorded = load_once(name)
    sample = with_mask(samples(recorded)[0])
    theirs = recorded.output("generate.0.scores")
    torch.testing.assert_close(generate(recorded, sample)[1], theirs, **recorded.tolerance("logits"))


def new_ids(recorded: Recorded, key: str) -> list[list[int]]:
    # The original's transformers puts a begin token in front of what follows embeddings.
    rows = recorded.output(key).tolist()
    assert all(row[0] == recorded.fixture.meta["config"]["bos_token_id"] for row in rows)
    return [row[1:] for row in rows]


@pytest.mark.parametrize("name", ["inf_connector_only", "inf_mlp2x_one_tower"])
@torch.no_grad()
def test_a_left_padded_batch_equals_the_original(name):
    recorded = load_once(name)
    rows = samples(recorded)
    batch = right_padded([sample["input_ids"][0].flip(0) for sample in rows])
    batch = {key: tensor.flip(1) for key, tensor in batch.items()} | pictures_of(rows)
    ids, logits = generate(recorded, batch, num_tokens=8)
    assert ids.tolist() == new_ids(recorded, "generate_batch_left.ids")
    theirs = recorded.output("generate_batch_left.scores")
    torch.testing.assert_close(logits, theirs, **recorded.tolerance("logits"))


def right_padded(rows: list[Tensor]) -> dict[str, Tensor]:
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return {"input_ids": ids, "attention_mask": mask}


def pictures_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    encoders = zip(*(row["vision_features"] for row in rows), strict=True)
    return {
        "image_sizes": torch.cat([row["image_sizes"] for row in rows]),
        "vision_features": [torch.cat(features) for features in encoders],
    }


@torch.no_grad()
def test_text_alone_is_answered_as_by_an_original_that_saw_no_picture_before():
    recorded = load_once("inf_in_llm")
    demo = recorded.fixture.meta["stale_state_demo"]
    ids, _ = generate(recorded, {"input_ids": torch.tensor(demo["text_only_ids"])}, num_tokens=6)
    assert [[1, *row] for row in ids.tolist()] == demo["text_only_generate_fresh_module"]


# --- what the original does wrong


def logits_with_blocks_at(recorded: Recorded, row: int, sample: dict[str, Any], image_position: int) -> Tensor:
    """Logits of a recorded row, its blocks inside the language model treating other tokens than the picture's."""
    model = recorded.model
    images = model.get_image_features(vision_features=sample["vision_features"], image_sizes=sample["image_sizes"])
    assert images.context is not None
    context = TokenContext(images.context, images.token_slots + image_position)
    embeds = visible(recorded, "inter.inputs_embeds", row)[None]
    return model.language_model(inputs_embeds=embeds, vision_context=context).logits[0]


@torch.no_grad()
def test_blocks_treat_the_tokens_of_the_picture_wherever_it_stands():
    recorded = load_once("inf_image_position_mismatch")
    image_position = recorded.fixture.meta["config"]["image_position"]
    for row, sample in enumerate(samples(recorded)):
        ours, theirs = recorded.model(**sample).logits[0], visible(recorded, "logits", row)
        at_fixed_position = logits_with_blocks_at(recorded, row, sample, image_position)
        torch.testing.assert_close(at_fixed_position, theirs, **recorded.tolerance("logits"))
        at_the_picture = logits_with_blocks_at(recorded, row, sample, image_position + 2)
        torch.testing.assert_close(at_the_picture, ours, **recorded.tolerance("logits"))
        # What stands before is causal and sees no picture; all behind it differs, far above rounding.
        torch.testing.assert_close(ours[:image_position], theirs[:image_position], **recorded.tolerance("logits"))
        assert ((ours - theirs).abs().amax(-1)[image_position:] > 1e-2).all()


@torch.no_grad()
def test_blocks_leave_text_alone():
    recorded = load_once("inf_text_only_in_batch_in_llm")
    rows = samples(recorded)
    logits = [recorded.model(**sample).logits[0] for sample in rows]
    for row in (0, 2):
        torch.testing.assert_close(logits[row], visible(recorded, "logits", row), **recorded.tolerance("logits"))
    untreated = visible(recorded, "plain_forward.logits", 1)
    torch.testing.assert_close(logits[1], untreated, **recorded.tolerance("logits"))
    dummy = one_sample(recorded, [], range(1, 2))
    treated = logits_with_blocks_at(recorded, 1, dummy, recorded.fixture.meta["config"]["image_position"])
    torch.testing.assert_close(treated, visible(recorded, "logits", 1), **recorded.tolerance("logits"))
    for row in (0, 2):
        ids, _ = generate(recorded, rows[row])
        assert ids.tolist() == new_ids(recorded, f"generate.{row}.ids")


@torch.no_grad()
def test_a_sequence_that_the_original_cuts_begins_like_ours():
    recorded = load_once("inf_truncation")
    longest = recorded.fixture.meta["config"]["tokenizer_model_max_length"]
    rows = [recorded.model(**sample).logits[0] for sample in samples(recorded)]
    assert all(len(row) > longest for row in rows[::2])
    for row, logits in enumerate(rows):
        torch.testing.assert_close(logits[:longest], visible(recorded, "logits", row), **recorded.tolerance("logits"))
    check_loss(recorded, [row[:longest] for row in rows])


# --- training


def training_rows(recorded: Recorded) -> list[dict[str, Any]]:
    """The recorded batch, its rows without padding: neither of the sequence, nor of pictures."""
    inputs, collator = recorded.fixture.inputs, recorded.fixture.meta["collator"]
    side = recorded.model.config.grid_side
    first, count = collator["image_position"], side * (side + 1)
    ids = inputs["batch.input_ids"].clone()
    ids[:, first : first + count] = recorded.model.config.image_token_id
    rows = []
    for row, mask in enumerate(inputs["batch.attention_mask"].bool()):
        has_picture = bool(mask[first : first + count].any())
        sample = one_sample(recorded, ids[row][mask].tolist(), range(row, row + has_picture))
        rows.append({**sample, "labels": inputs["batch.labels"][row][mask][None]})
    return rows


def packed(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """All rows in one, as our training has them."""
    positions = [torch.arange(row["input_ids"].shape[1]) for row in rows]
    # The first token of a row is predicted from nothing, and the original supervises it in none.
    assert all(row["labels"][0, 0] == -100 for row in rows)
    return {
        "input_ids": torch.cat([row["input_ids"] for row in rows], dim=1),
        "labels": torch.cat([row["labels"] for row in rows], dim=1),
        "position_ids": torch.cat(positions)[None],
        **pictures_of(rows),
    }


def padded(rows: list[dict[str, Any]]) -> dict[str, Any]:
    labels = [row["labels"][0] for row in rows]
    return {
        **right_padded([row["input_ids"][0] for row in rows]),
        "labels": torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100),
        **pictures_of(rows),
    }


def check_gradients(recorded: Recorded) -> None:
    ours = {recorded.names.to_released(name): p.grad for name, p in recorded.model.named_parameters()}
    assert recorded.fixture.meta["params_without_gradient"] == []
    norms = recorded.fixture.meta["grad_norms_all_params"]
    assert set(ours) == set(norms) >= set(recorded.fixture.grads)
    for name, expected in recorded.fixture.grads.items():
        torch.testing.assert_close(ours[name], expected, **recorded.tolerance("grads"))
    for name, expected in norms.items():
        assert ours[name].norm().item() == pytest.approx(expected, rel=1e-3, abs=1e-5), name  # as of the gradients


@pytest.mark.parametrize("batch", [packed, padded])
@pytest.mark.parametrize("name", TRAINING)
def test_training_equals_the_original(name, batch):
    recorded = load(name)
    rows = training_rows(recorded)
    output = recorded.model.train()(**batch(rows))
    check_training_logits(recorded, output.logits, rows)
    torch.testing.assert_close(output.loss, recorded.output("loss").squeeze(), **recorded.tolerance("loss"))
    output.loss.backward()
    check_gradients(recorded)


def check_training_logits(recorded: Recorded, logits: Tensor, rows: list[dict[str, Any]]) -> None:
    lengths = [row["input_ids"].shape[1] for row in rows]
    ours = logits[0].split(lengths) if len(logits) == 1 else [x[:n] for x, n in zip(logits, lengths, strict=True)]
    for row, mask in enumerate(recorded.fixture.inputs["batch.attention_mask"].bool()):
        theirs = recorded.output("logits")[row][mask]
        torch.testing.assert_close(ours[row], theirs, **recorded.tolerance("logits"))


@pytest.mark.parametrize("name", TRAINING)
def test_no_recorded_picture_could_show_the_scrambled_masks(name):
    masks = {key: mask for key, mask in load_once(name).fixture.inputs.items() if "image_aux_attention_mask" in key}
    assert len(masks) == len(load_once(name).model.vision_encoders)
    assert all(mask.all() for mask in masks.values())
