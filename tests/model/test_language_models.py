"""Any causal language model of transformers: what holds for each, and what is special about some.

Tiny random models of every proven family, with what makes the family special switched on: sliding windows shorter than
a prompt, multipliers, soft caps, tied embeddings, experts. Weights are large enough for every part to matter.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from cambrian_model import CambrianForConditionalGeneration
from cambrian_model.assemble import assemble
from cambrian_model.errors import ConfigError
from cambrian_model.language.aggregation import decoder_layers
from tests.support.tiny_model import (
    IMAGE_TOKEN_ID,
    VOCABULARY,
    pack,
    pad_left,
    tiny_config,
    tiny_model,
    tiny_sample,
)
from tests.support.tokenizers import tiny_bytes

COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 4,  # the last has no block: what one adds there reaches no word
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SLIDING = {"sliding_window": 16}
MIXED = {**SLIDING, "layer_types": ["sliding_attention", "full_attention"] * 2}
# type in transformers: what is set beside the common sizes
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "phi3": {},
    "mistral": SLIDING,
    "gemma": {},
    "gemma2": {**MIXED, "query_pre_attn_scalar": 12, "final_logit_softcapping": 5.0},
    "gemma3_text": {**MIXED, "query_pre_attn_scalar": 12},
    "qwen2": {},
    "qwen3": {},
    "cohere": {"logit_scale": 0.25},
    "cohere2": MIXED,
    "olmo": {},
    "olmo2": {},
    "olmo3": MIXED,
    "granite": {
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.3,
        "logits_scaling": 2.0,
    },
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
}
EXPERTS = ["mixtral", "qwen3_moe"]
WIDE, TALL, SQUARE = (20, 50), (70, 20), (33, 33)


def text_config(family: str, **changes: Any) -> PreTrainedConfig:
    return CONFIG_MAPPING[family](**{**COMMON, **FAMILIES[family], **changes})


def new_model(family: str, **changes: Any) -> CambrianForConditionalGeneration:
    model = tiny_model(text_config=text_config(family, **changes))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.language_model.named_parameters():
        if parameter.ndim > 1 and ".sva." not in name:
            nn.init.normal_(parameter, std=0.3, generator=generator)
    return model


@lru_cache
def family_model(family: str) -> CambrianForConditionalGeneration:
    """For tests that change nothing of it."""
    return new_model(family)


def samples() -> list[dict[str, Any]]:
    return [tiny_sample(1, [WIDE], 5), tiny_sample(2, [], 7), tiny_sample(3, [TALL, SQUARE], 3)]


def words(model: nn.Module) -> Tensor:
    """The table of word embeddings."""
    return cast(nn.Embedding, cast(Any, model).get_input_embeddings()).weight


every_family = pytest.mark.parametrize("family", FAMILIES)


def untouched(model: CambrianForConditionalGeneration) -> Any:
    """The language model as transformers has it, with the same weights and nothing else."""
    bare = AutoModelForCausalLM.from_config(model.config.get_text_config())
    own = {name: tensor for name, tensor in model.language_model.state_dict().items() if ".sva." not in name}
    bare.load_state_dict(own, strict=True)
    return bare.eval()


def logits_with_hooks(model: CambrianForConditionalGeneration, sample: dict[str, Any]) -> Tensor:
    """What the model should say, computed another way: the untouched language model, words embedded one by one.

    Blocks run in hooks on its layers and find the picture's tokens with a mask.
    """
    bare = untouched(model)
    images = model.get_image_features(sample["pixel_values"], sample["image_sizes"])
    assert images.context is not None
    is_cell = torch.zeros(len(images.tokens), dtype=torch.bool)
    is_cell[images.token_slots] = True
    tokens, embeds, asks = iter(zip(images.tokens, is_cell, strict=True)), [], []
    for token in sample["input_ids"][0]:
        if token == IMAGE_TOKEN_ID:
            embed, ask = next(tokens)
        else:
            embed, ask = bare.get_input_embeddings()(token[None])[0], torch.tensor(False)
        embeds.append(embed)
        asks.append(ask)
    mask = torch.stack(asks)

    for layer, swapped in zip(decoder_layers(bare), decoder_layers(model.language_model), strict=True):
        if swapped.sva is not None:

            def add_block(_: nn.Module, __: Any, hidden: Tensor, block: Any = swapped.sva) -> Tensor:
                hidden = hidden.clone()
                hidden[0, mask] = block(hidden[0, mask], images.context)
                return hidden

            layer.register_forward_hook(add_block)
    return bare(inputs_embeds=torch.stack(embeds)[None], use_cache=False).logits[0]


@every_family
@torch.no_grad()
def test_blocks_act_as_hooks_on_the_untouched_language_model_would(family):
    model = family_model(family)
    for sample in (samples()[0], samples()[2]):
        # 1e-5 of logits up to 30: the same operations, some sums in another order
        torch.testing.assert_close(
            model(**sample, use_cache=False).logits[0], logits_with_hooks(model, sample), atol=1e-5, rtol=1e-5
        )


@every_family
@torch.no_grad()
def test_text_is_answered_as_by_the_untouched_language_model(family):
    model, ids = family_model(family), samples()[1]["input_ids"]
    logits = model(input_ids=ids).logits
    assert torch.equal(logits, untouched(model)(ids).logits)
    assert logits.shape[-1] == VOCABULARY <= IMAGE_TOKEN_ID


@every_family
@torch.no_grad()
def test_another_picture_changes_what_follows_it_and_nothing_before(family):
    model, sample = family_model(family), samples()[0]
    other = {**sample, "pixel_values": [1 - x for x in sample["pixel_values"]]}
    change = (model(**sample).logits - model(**other).logits)[0].abs().amax(-1)
    assert change[:5].max() < 1e-5  # experts sum over other tokens' places
    assert (change[5:] > 1e-3).all()


@every_family
@torch.no_grad()
def test_packed_logits_equal_separate_logits(family):
    model = family_model(family)
    batch = pack(samples())
    packed = model(**batch, use_cache=False).logits[0]
    separate = torch.cat([model(**sample, use_cache=False).logits[0] for sample in samples()])
    leaking = model(**batch, attention_mask=torch.ones_like(batch["input_ids"]), use_cache=False).logits[0]
    # 1e-4 of logits up to 60: sums in another order
    torch.testing.assert_close(packed, separate, atol=1e-4, rtol=0)
    assert (leaking - separate).abs().max() > 1e-1


def greedy(model: CambrianForConditionalGeneration, inputs: dict[str, Any], **options: Any) -> list[list[int]]:
    ids = model.generate(**inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False, **options)
    return ids[:, inputs["input_ids"].shape[1] :].tolist()


@every_family
@torch.no_grad()
def test_generation_with_a_cache_in_a_padded_batch_equals_one_by_one_without(family):
    model = family_model(family)
    one_by_one = [greedy(model, sample, use_cache=False)[0] for sample in samples()]
    assert len({tuple(ids) for ids in one_by_one}) == 3
    assert greedy(model, pad_left(samples())) == one_by_one
    assert greedy(model, pad_left(samples()), cache_implementation="static") == one_by_one


def gradients(family: str, checkpointing: bool) -> dict[str, Tensor]:
    model = new_model(family).train()
    if checkpointing:
        model.activation_checkpointing_enable()
    batch = pack(samples())
    features = [x.requires_grad_() for x in model.encode_images(batch.pop("pixel_values"))]
    for x in features:
        x.retain_grad()
    labels = batch["input_ids"].masked_fill(batch["input_ids"] == IMAGE_TOKEN_ID, -100)
    model(**batch, vision_features=features, labels=labels, use_cache=False).loss.backward()
    found = {name: p.grad for name, p in model.named_parameters()} | {
        f"features.{i}": x.grad for i, x in enumerate(features)
    }
    return {name: grad for name, grad in found.items() if grad is not None}


@every_family
def test_gradients_reach_everything_and_are_the_same_with_checkpointing(family):
    plain, checkpointed = gradients(family, False), gradients(family, True)
    reached = {name for name, grad in plain.items() if grad.any()}
    assert {name for name, _ in family_model(family).named_parameters()} - reached == set()
    assert {"features.0", "features.1"} <= reached
    assert plain.keys() == checkpointed.keys()
    for name in plain:
        assert torch.equal(plain[name], checkpointed[name]), name


@every_family
@torch.no_grad()
def test_save_and_load_give_identical_logits(family, tmp_path):
    model, sample = family_model(family), samples()[2]
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    tied = model.config.get_text_config().tie_word_embeddings
    assert tied == (family in ("gemma", "gemma2", "gemma3_text", "cohere", "cohere2"))
    assert tied != ("language_model.lm_head.weight" in saved)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert (loaded.get_output_embeddings().weight is words(loaded)) == tied
    assert torch.equal(loaded(**sample).logits, model(**sample).logits)


# --- what is special


@torch.no_grad()
@pytest.mark.parametrize("image_token_id", [-200, 50, VOCABULARY, 100_000])
def test_the_id_of_image_tokens_may_lie_anywhere(image_token_id):
    sample = samples()[0]
    sample["input_ids"][sample["input_ids"] == 50] = 51
    expected = tiny_model()(**sample).logits
    model = tiny_model(image_token_id=image_token_id)
    ids = sample["input_ids"].masked_fill(sample["input_ids"] == IMAGE_TOKEN_ID, image_token_id)
    assert torch.equal(model(**{**sample, "input_ids": ids}).logits, expected)
    assert len(words(model)) == VOCABULARY


@torch.no_grad()
def test_gemma_scales_words_and_not_image_tokens():
    model, sample = family_model("gemma3_text"), samples()[0]
    tokens = model.get_image_features(sample["pixel_values"], sample["image_sizes"]).tokens
    hidden = model(**sample, output_hidden_states=True).hidden_states[0][0]
    embedded = words(model)[sample["input_ids"][0, :5]]
    torch.testing.assert_close(hidden[:5], embedded * 48**0.5)
    assert torch.equal(hidden[5 : 5 + len(tokens)], tokens)


@torch.no_grad()
def test_granite_multiplies_words_and_image_tokens_alike():
    model, sample = family_model("granite"), samples()[0]
    tokens = model.get_image_features(sample["pixel_values"], sample["image_sizes"]).tokens
    hidden = model(**sample, output_hidden_states=True).hidden_states[0][0]
    embedded = words(model)[sample["input_ids"][0, :5]]
    torch.testing.assert_close(hidden[: 5 + len(tokens)], 3.0 * torch.cat([embedded, tokens]))


def assembled(language_model: dict[str, Any], tokenizer: Path) -> tuple[CambrianForConditionalGeneration, Any]:
    connector = {"width": 32, "num_heads": 4, "query_grid_sides": [4], "in_llm": {"start": 0, "stride": 2, "count": 2}}
    return assemble(
        {
            "language_model": language_model,
            "tokenizer": str(tokenizer),
            "vision_encoders": [{"name": "timm:test_vit", "image_side": 64, "model_args": {"img_size": 64}}],
            "connector": connector,
            "grid_side": 4,
        }
    )


@pytest.mark.parametrize(("family", "factor"), [("llama", 1.0), ("gemma", 48**0.5), ("granite", 1.0)])
def test_a_fresh_connector_makes_image_tokens_as_large_as_words_are_where_they_meet(tmp_path, family, factor):
    tiny_bytes().save_pretrained(tmp_path)
    sizes = {key: value for key, value in COMMON.items() if key != "head_dim"}  # granite has none
    model, _ = assembled({"config": {**sizes, "model_type": family, "vocab_size": 320}}, tmp_path)
    size = words(model).square().mean().sqrt() * factor
    torch.testing.assert_close(model.connector.newline.square().mean().sqrt(), size)


@pytest.mark.parametrize("family", EXPERTS)
def test_the_loss_balances_experts_where_the_configuration_asks(family):
    ids = samples()[1]["input_ids"]
    plain, balanced = (new_model(family, output_router_logits=asked) for asked in (False, True))
    loss = balanced(input_ids=ids, labels=ids).loss
    torch.testing.assert_close(loss, untouched(balanced)(input_ids=ids, labels=ids).loss)
    assert loss > plain(input_ids=ids, labels=ids).loss
    assert balanced(input_ids=ids).loss is None


def test_gemma_2_runs_without_sdpa_which_cannot_cap_its_scores(tmp_path):
    family_model("gemma2").save_pretrained(tmp_path)
    attention = {
        family: family_model(family).language_model.config._attn_implementation for family in ("gemma2", "llama")
    }
    assert attention == {"gemma2": "eager", "llama": "sdpa"}
    with pytest.raises(ValueError, match=r"does not support .*scaled_dot_product_attention"):
        CambrianForConditionalGeneration.from_pretrained(tmp_path, attn_implementation={"text_config": "sdpa"})


OTHER_NAMES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 48, "n_layer": 4, "n_head": 4, "n_positions": 256},
    "opt": {**COMMON, "ffn_dim": 56, "word_embed_proj_dim": 48, "do_layer_norm_before": True},
    "gpt_neox": COMMON,
}


@pytest.mark.parametrize("family", OTHER_NAMES)
@torch.no_grad()
def test_layers_of_other_names_receive_blocks(family):
    values = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model = tiny_model(text_config=CONFIG_MAPPING[family](**{**OTHER_NAMES[family], **values}))
    blocks = [layer.sva is not None for layer in decoder_layers(model.language_model)]
    assert blocks == [True, False, True, False]
    sample = samples()[2]
    # 1e-5: as above
    torch.testing.assert_close(model(**sample).logits[0], logits_with_hooks(model, sample), atol=1e-5, rtol=1e-5)


def bloom_config() -> PreTrainedConfig:
    return CONFIG_MAPPING["bloom"](vocab_size=VOCABULARY, hidden_size=48, n_layer=4, n_head=4, pad_token_id=0)


@torch.no_grad()
def test_a_language_model_that_keeps_the_context_from_its_layers_is_refused_and_works_without_blocks():
    with pytest.raises(ConfigError, match=r"no vision_context reached SVABloomBlock.*set connector.in_llm to null"):
        tiny_model(text_config=bloom_config())(**samples()[0])
    connector = {"width": 32, "depth": 2, "num_heads": 4, "query_grid_sides": [4]}
    model = tiny_model(text_config=bloom_config(), connector=connector)
    sample = samples()[0]
    other = {**sample, "pixel_values": [1 - x for x in sample["pixel_values"]]}
    assert (model(**sample).logits - model(**other).logits)[0, 5:].abs().amax(-1).gt(0).all()
    assert greedy(model, pad_left(samples())) == [greedy(model, sample)[0] for sample in samples()]


def test_a_model_without_decoder_layers_is_refused():
    text = CONFIG_MAPPING["modernbert-decoder"](**COMMON)
    assert tiny_config(text_config=text).in_llm_layers
    with pytest.raises(ConfigError, match=r"ModernBertDecoder.* has no list of 4 decoder layers"):
        tiny_model(text_config=text)


# --- real weights


@pytest.mark.parametrize("name", ["stories260k", "babyllama105"])
@torch.no_grad()
def test_real_language_models_tell_the_same_stories_inside_the_assembled_model(assets, name):
    folder = assets / "lm" / name
    model, processor = assembled({"path": str(folder)}, folder)
    alone, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert len(words(model)) == alone.config.vocab_size <= processor.image_token_id
    for text in ("Once upon a time", "Lily and Tom went to the park. They saw"):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        assert torch.equal(model(ids).logits, alone(ids).logits)
        told = model.generate(ids, max_new_tokens=40, do_sample=False)
        assert torch.equal(told, alone.generate(ids, max_new_tokens=40, do_sample=False))
        assert len(set(told[0].tolist())) > 10
