"""How the whole model behaves: packing, batches, text without pictures, generation, gradients, save and load."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from cambrian_model import CambrianForConditionalGeneration
from cambrian_model.errors import CheckpointError, ConfigError, PromptError
from tests.support.tiny_model import (
    IMAGE_TOKEN_ID,
    VOCABULARY,
    join,
    pack,
    pad_left,
    tiny_config,
    tiny_model,
    tiny_sample,
)

WIDE, TALL, SQUARE = (20, 50), (70, 20), (33, 33)


def samples() -> list[dict]:
    return [
        tiny_sample(1, [WIDE], 5),
        tiny_sample(2, [], 7),
        tiny_sample(3, [TALL, SQUARE], 3),
        tiny_sample(4, [SQUARE], 2),
    ]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_packed_logits_equal_separate_logits(attention):
    model = tiny_model()
    model.set_attn_implementation(attention)
    packed = model(**pack(samples()), use_cache=False).logits[0]
    separate = torch.cat([model(**sample, use_cache=False).logits[0] for sample in samples()])
    # 1e-5: the same sums in another order; a leak between samples would show at 1e-1
    torch.testing.assert_close(packed, separate, atol=1e-5, rtol=0)


@torch.no_grad()
def test_packed_samples_stay_apart_for_trainers_that_say_nothing_of_a_cache():
    model = tiny_model()
    batch = pack(samples())
    batch["labels"] = batch["input_ids"].clone().clamp(0, VOCABULARY - 1)
    assert model.config.get_text_config().use_cache
    assert model(**batch).loss == model(**batch, use_cache=False).loss != model(**batch, use_cache=True).loss
    batch.pop("labels")
    model.train()
    assert model(**batch).past_key_values is None


@torch.no_grad()
def test_cached_generation_equals_recomputing_everything():
    model, sample = tiny_model(), tiny_sample(5, [WIDE, TALL])
    with_cache = model.generate(**sample, max_new_tokens=6, do_sample=False, use_cache=True)
    assert torch.equal(
        with_cache, model.generate(**sample, max_new_tokens=6, do_sample=False, cache_implementation="static")
    )
    ids = sample["input_ids"]
    for _ in range(6):
        ids = torch.cat([ids, model(**{**sample, "input_ids": ids}).logits[:, -1:].argmax(-1)], dim=1)
    assert with_cache.tolist() == ids.tolist()


@torch.no_grad()
def test_the_picture_matters_and_the_order_of_pictures_too():
    model, sample = tiny_model(), tiny_sample(7, [SQUARE, SQUARE])
    swapped = {**sample, "pixel_values": [x.flip(0) for x in sample["pixel_values"]]}
    assert (model(**sample).logits - model(**swapped).logits).abs().max() > 1e-2


@torch.no_grad()
def test_saved_features_replace_the_encoders_exactly():
    model, sample = tiny_model(), tiny_sample(8, [WIDE, TALL])
    features = model.encode_images(sample["pixel_values"])
    saved = {"input_ids": sample["input_ids"], "image_sizes": sample["image_sizes"], "vision_features": features}
    assert torch.equal(model(**sample).logits, model(**saved).logits)
    assert torch.equal(
        model.generate(**sample, max_new_tokens=3, do_sample=False),
        model.generate(**saved, max_new_tokens=3, do_sample=False),
    )


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_batch_without_pictures_still_reaches_every_trainable_parameter(checkpointing):
    model = tiny_model().train()
    if checkpointing:
        model.activation_checkpointing_enable()
    sample = {"input_ids": torch.randint(3, VOCABULARY, (2, 9))}
    model(**sample, labels=sample["input_ids"], use_cache=False).loss.backward()
    untouched = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert untouched == []
    assert not any(p.grad.any() for n, p in model.named_parameters() if "connector" in n or ".sva." in n)


def test_checkpointed_gradients_equal_plain_ones():
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model().train()
        if checkpointing:
            model.activation_checkpointing_enable()
        batch = pack(samples())
        labels = batch["input_ids"].masked_fill(batch["input_ids"] == IMAGE_TOKEN_ID, -100)
        model(**batch, labels=labels, use_cache=False).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name in gradients[0]:
        assert torch.equal(gradients[0][name], gradients[1][name]), name


def test_frozen_encoders_stay_in_evaluation_mode():
    model = tiny_model()
    model.vision_encoders[0].requires_grad_(False)
    model.train()
    frozen, trained = model.encoders
    assert not any(module.training for module in frozen.modules())
    assert all(module.training for module in trained.modules())
    assert model.language_model.training


def test_loss_is_the_mean_over_supervised_tokens_or_the_sum_over_the_given_number():
    model, sample = tiny_model(), tiny_sample(9, [WIDE])
    labels = sample["input_ids"].masked_fill(sample["input_ids"] == IMAGE_TOKEN_ID, -100)
    supervised = int((labels[:, 1:] != -100).sum())
    mean, total = (model(**sample, labels=labels, num_items_in_batch=n).loss for n in (None, 1))
    torch.testing.assert_close(mean * supervised, total)


def test_blocks_inside_the_language_model_start_by_adding_nothing():
    torch.manual_seed(0)
    fresh = CambrianForConditionalGeneration(tiny_config())
    sample, ids = tiny_sample(10, [WIDE]), torch.randint(3, VOCABULARY, (1, 6))
    images = fresh.get_image_features(sample["pixel_values"], sample["image_sizes"])
    assert fresh.language_model.model.layers[0].sva is not None
    before = fresh(**sample).logits
    for layer in fresh.language_model.model.layers:
        layer.sva = None
    assert torch.equal(before, fresh(input_ids=sample["input_ids"], mm_encoder_outputs={"image": images}).logits)
    assert torch.equal(fresh(input_ids=ids).logits, fresh.language_model(ids).logits)


def test_save_and_load_give_identical_logits_also_in_shards(tmp_path):
    model, sample = tiny_model(), tiny_sample(11, [WIDE, TALL])
    model.save_pretrained(tmp_path, max_shard_size="300kB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    for load in (CambrianForConditionalGeneration, AutoModelForImageTextToText):
        loaded = load.from_pretrained(tmp_path)
        assert torch.equal(loaded(**sample).logits, model(**sample).logits)


@pytest.mark.parametrize("name", ["test_vit", "swin_tiny_patch4_window7_224", "eva02_tiny_patch14_224"])
def test_buffers_that_timm_does_not_save_survive_a_reload(tmp_path, name):
    encoders = [{"library": "timm", "name": name, "image_side": 224, "width": 0, "grid_side": 4, "feature_layer": 0}]
    if name == "swin_tiny_patch4_window7_224":
        encoders[0]["model_args"] = {"embed_dim": 24, "depths": [1, 1, 1, 1]}
    if name == "eva02_tiny_patch14_224":
        encoders[0]["model_args"] = {"depth": 1}
    if name == "test_vit":
        encoders[0]["image_side"] = 160
    encoders[0]["width"] = {"test_vit": 64, "swin_tiny_patch4_window7_224": 24, "eva02_tiny_patch14_224": 192}[name]
    model = CambrianForConditionalGeneration(tiny_config(vision_encoders=encoders)).eval()
    model.save_pretrained(tmp_path)
    loaded = CambrianForConditionalGeneration.from_pretrained(tmp_path).eval()
    pixels = [torch.rand(1, 3, encoders[0]["image_side"], encoders[0]["image_side"])]
    assert torch.equal(model.encode_images(pixels)[0], loaded.encode_images(pixels)[0])


def test_a_deep_copy_is_independent():
    model, sample = tiny_model(), tiny_sample(12, [WIDE])
    before = model(**sample).logits
    twin = copy.deepcopy(model)
    torch.nn.init.zeros_(model.language_model.model.layers[0].sva.proj_out[2].weight)
    assert torch.equal(twin(**sample).logits, before)
    assert not torch.equal(model(**sample).logits, before)


def with_image_tokens(sample: dict, count: int) -> dict:
    words = [i for i in sample["input_ids"][0].tolist() if i != IMAGE_TOKEN_ID]
    return {**sample, "input_ids": torch.tensor([words + [IMAGE_TOKEN_ID] * count])}


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([19, 20], "row 0 has 19 image tokens, but its picture, 0 of 2, fills 20"),
        ([21, 20], "row 0 has 21 image tokens, but its pictures, 0 to 1 of 2, fill 40"),
        ([20, 19], "row 1 has 19 image tokens, but its picture, 1 of 2, fills 20"),
        ([20, 21], "row 1 has 21 image tokens, but its picture, 1 of 2, fills 20"),
        ([40, 20], "row 1 has 20 image tokens, but none of the 2 pictures is left for it, which makes 0"),
        ([19, 21], "row 0 has 19 image tokens, but its picture, 0 of 2, fills 20"),  # as many as pictures in all
        (
            [20, 0],
            r"2 pictures fill 40 tokens, but the rows have \[20, 0\] image tokens, which the first 1 pictures fill",
        ),
    ],
)
@pytest.mark.parametrize("num_beams", [1, 2])
def test_more_or_fewer_image_tokens_than_pictures_is_an_error_with_the_row_and_both_numbers(counts, message, num_beams):
    one, two = (with_image_tokens(tiny_sample(13 + i, [SQUARE], 4), count) for i, count in enumerate(counts))
    model, batch = tiny_model(), pad_left([one, two])
    with pytest.raises(PromptError, match=message):
        model(**batch)
    with pytest.raises(PromptError, match=message):
        model.generate(**batch, max_new_tokens=1, num_beams=num_beams, do_sample=False)


def test_a_picture_that_text_interrupts_is_an_error():
    ids = tiny_sample(13, [SQUARE], 4)["input_ids"]
    ids = torch.cat([ids[:, :7], ids[:, -1:], ids[:, 7:]], dim=1)
    with pytest.raises(PromptError, match=r"row 0: picture 0 fills 20 image tokens in one run, but .* position 4 on"):
        tiny_model()(**{**tiny_sample(13, [SQUARE], 4), "input_ids": ids})


def test_image_tokens_without_pictures_are_an_error():
    message = "row 0 has 20 image tokens, but none of the 0 pictures is left"
    with pytest.raises(PromptError, match=message):
        tiny_model()(input_ids=tiny_sample(14, [SQUARE])["input_ids"])
    with pytest.raises(PromptError, match=message):
        tiny_model().generate(tiny_sample(14, [SQUARE])["input_ids"], max_new_tokens=1, cache_implementation="static")
    with pytest.raises(PromptError, match="row 0 has 1 image tokens"):
        tiny_model().generate(torch.tensor([[IMAGE_TOKEN_ID]]), max_new_tokens=1)


def test_pictures_without_image_tokens_are_an_error_also_with_a_prompt_of_one_token():
    model, sample = tiny_model(), {**tiny_sample(14, [SQUARE]), "input_ids": torch.tensor([[5]])}
    message = r"1 pictures fill 20 tokens, but the rows have \[0\] image tokens"
    with pytest.raises(PromptError, match=message):
        model(**sample)
    with pytest.raises(PromptError, match=message):
        model.generate(**sample, max_new_tokens=1)


def test_embeddings_come_alone():
    model, sample = tiny_model(), tiny_sample(14, [SQUARE])
    embeds = torch.zeros(1, 3, 48)
    for others in (sample, {k: v for k, v in sample.items() if k != "input_ids"}, {"input_ids": sample["input_ids"]}):
        with pytest.raises(PromptError, match="inputs_embeds come with input_ids or pictures"):
            model(inputs_embeds=embeds, **others)
    with pytest.raises(PromptError, match="neither input_ids nor inputs_embeds"):
        model()


def test_tensors_that_disagree_on_the_number_of_pictures_are_an_error():
    sample = tiny_sample(15, [SQUARE, WIDE])
    sample["pixel_values"][1] = sample["pixel_values"][1][:1]
    with pytest.raises(PromptError, match=r"\[2, 1\] per encoder, 2 in image_sizes"):
        tiny_model()(**sample)
    with pytest.raises(PromptError, match="1 image tensors for 2 vision encoders"):
        tiny_model()(**{**sample, "pixel_values": sample["pixel_values"][:1]})


def test_a_checkpoint_that_lacks_or_adds_weights_is_refused(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    save_file(
        {k: v for k, v in tensors.items() if k != "connector.newline"} | {"stray": torch.ones(1)},
        file,
        {"format": "pt"},
    )
    with pytest.raises(CheckpointError, match=r"1 missing \(connector.newline\); 1 unexpected \(stray\)"):
        CambrianForConditionalGeneration.from_pretrained(tmp_path)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match='model_type is "bert", expected "cambrian"'):
        CambrianForConditionalGeneration.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        CambrianForConditionalGeneration.from_pretrained(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid_side": 3}, r"grid side 4 is not a multiple of the query grid side 3"),
        ({"connector": {"width": 30, "num_heads": 4}}, "width 30 is not a multiple of connector.num_heads 4"),
        ({"connector": {"widht": 30}}, 'unknown key "widht"; did you mean "width"'),
        ({"connector": {"type": "svs"}}, 'connector.type is "svs"; did you mean "sva"'),
        ({"connector": {"type": "sva", "attention": "jont"}}, 'attention is "jont"; did you mean "joint"'),
        ({"connector": {"type": "mlp2x_gelu"}}, r"test_convnext\): its grid side is 8, .* image tokens, 4"),
        (
            {
                "connector": {
                    "width": 32,
                    "num_heads": 4,
                    "query_grid_sides": [4],
                    "in_llm": {"start": 1, "stride": 2, "count": 2},
                }
            },
            r"chooses decoder layers \[3\], but the language model has 3",
        ),
        ({"grid_side": 0}, "grid_side is 0; expected a whole number above 0"),
        ({"connector": "sva"}, "'sva' describes no encoder and no connector"),
        ({"connector": {"query_grid_sides": 4}}, "query_grid_sides is 4; expected a list of whole numbers"),
        ({"connector": {"depth": True}}, "connector.depth is True; expected a whole number"),
        ({"connector": {"in_llm": {"start": -1, "stride": 1, "count": 1}}}, "in_llm.start is -1; .* at least 0"),
        ({"connector": {"in_llm": {"start": 0, "stride": 0, "count": 2}}}, "in_llm.stride is 0; .* at least 1"),
        ({"connector": {"in_llm": {"start": 0, "stride": 1, "count": 0.5}}}, "in_llm.count is 0.5; .* at least 1"),
        ({"vision_encoders": [{"library": "timm", "name": "test_vit"}]}, "missing grid_side, image_side, width"),
    ],
)
def test_parts_that_do_not_fit_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny_config(**changes)


def test_pixels_and_features_of_another_shape_are_an_error():
    sample, model = tiny_sample(16, [SQUARE, WIDE]), tiny_model()
    pixels = [sample["pixel_values"][0][..., :32], sample["pixel_values"][1]]
    with pytest.raises(PromptError, match=r"pixel_values of test_vit are \[2, 3, 64, 32\]; .* 3, 64, 64\)"):
        model(**{**sample, "pixel_values": pixels})
    features = model.encode_images(sample["pixel_values"])
    given = {"input_ids": sample["input_ids"], "image_sizes": sample["image_sizes"]}
    with pytest.raises(PromptError, match=r"vision_features of test_vit are \[2, 64, 64\]; .* 16, 64\)"):
        model(**given, vision_features=[features[0].repeat(1, 4, 1), features[1]])
    # A processor brings pixels along; saved features go before them.
    black = [torch.zeros_like(pixels) for pixels in sample["pixel_values"]]
    seen = model(**{**sample, "pixel_values": black}, vision_features=features).logits
    assert torch.equal(seen, model(**given, vision_features=features).logits)


def test_labels_may_be_the_ids_themselves():
    sample, model = tiny_sample(17, [WIDE]), tiny_model()
    ids = sample["input_ids"]
    loss = model(**sample, labels=ids).loss
    assert torch.equal(loss, model(**sample, labels=ids.masked_fill(ids == IMAGE_TOKEN_ID, -100)).loss)


@torch.no_grad()
def test_permuting_pictures_permutes_their_tokens():
    model = tiny_model()
    sample = join(samples())
    order = torch.tensor([2, 0, 3, 1])
    tokens = model.get_image_features(**sample).pooler_output
    permuted = model.get_image_features(
        [x[order] for x in sample["pixel_values"]], sample["image_sizes"][order]
    ).pooler_output
    for new, old in enumerate(order.tolist()):
        torch.testing.assert_close(permuted[new], tokens[old], atol=1e-6, rtol=0)  # batched sums, other order


def test_a_model_without_encoders_is_refused():
    with pytest.raises(ConfigError, match="names no vision encoder"):
        CambrianForConditionalGeneration(tiny_config(vision_encoders=[]))
