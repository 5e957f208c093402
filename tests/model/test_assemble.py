"""A model put together from parts: weights arrive, ids agree, mistakes are named."""

import json
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from cambrian_model import CambrianForConditionalGeneration, CambrianProcessor
from cambrian_model.assemble import assemble
from cambrian_model.errors import CheckpointError, ConfigError

CONNECTOR = {"width": 32, "num_heads": 4, "query_grid_sides": [4], "in_llm": {"start": 0, "stride": 2, "count": 2}}


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language_model")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=48,
        intermediate_size=56,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(1)
    save_file(timm.create_model("test_convnext").state_dict(), folder / "model.safetensors")
    card = {"architecture": "test_convnext", "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}
    (folder / "config.json").write_text(json.dumps(card))
    return folder


def spec(language_model, encoder):
    return {
        "language_model": {"path": str(language_model)},
        "vision_encoders": [
            {"name": "timm:test_vit", "image_side": 64, "model_args": {"img_size": 64}},
            {"name": "timm:test_convnext", "path": str(encoder), "image_side": 64, "feature_layer": 1},
        ],
        "connector": CONNECTOR,
        "grid_side": 4,
    }


def test_parts_arrive_and_text_is_answered_as_by_the_language_model_alone(language_model, encoder):
    model, processor = assemble(spec(language_model, encoder))
    ids = torch.randint(3, 200, (1, 9))
    alone = LlamaForCausalLM.from_pretrained(language_model)
    assert torch.equal(model(ids).logits, alone(ids).logits)
    assert model(ids).logits.shape[-1] == alone.config.vocab_size <= processor.image_token_id
    assert model.config.image_token_id == processor.image_token_id
    assert processor.tokenizer.eos_token_id in model.generation_config.eos_token_id
    assert model.config.encoders[1].mean == (0.1, 0.2, 0.3)
    published = load_file(encoder / "model.safetensors")
    loaded = model.encoders[1].state_dict()
    assert set(loaded) < {f"body.{name}" for name in published}
    assert all(torch.equal(tensor, published[name.removeprefix("body.")]) for name, tensor in loaded.items())


def test_the_public_snippet_works_from_a_saved_folder(language_model, encoder, tmp_path):
    model, processor = assemble(spec(language_model, encoder))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    picture = torch.randint(0, 255, (3, 30, 50), dtype=torch.uint8)
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "What is it?"}]
    replies = []
    for load_model, load_processor in (
        (CambrianForConditionalGeneration, CambrianProcessor),
        (AutoModelForImageTextToText, AutoProcessor),
    ):
        loaded, reader = load_model.from_pretrained(tmp_path, dtype="auto"), load_processor.from_pretrained(tmp_path)
        inputs = reader.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        ids = loaded.generate(**inputs, max_new_tokens=8, do_sample=False)
        replies.append(reader.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
        assert torch.equal(loaded(**inputs).logits, model.eval()(**inputs).logits)
    assert replies[0] == replies[1]


def test_bad_parts_are_named(language_model, encoder, tmp_path):
    good = spec(language_model, encoder)
    with pytest.raises(ConfigError, match='unknown language model type "lama"; did you mean "'):
        assemble({**good, "language_model": {"config": {"model_type": "lama"}}, "tokenizer": str(language_model)})
    with pytest.raises(CheckpointError, match="no such folder"):
        assemble({**good, "language_model": {"path": str(tmp_path / "nothing")}})
    with pytest.raises(ConfigError, match="no tokenizer"):
        assemble({**good, "language_model": {"config": {"model_type": "llama"}}})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hiden_size": 4}, 'unknown key "hiden_size"; did you mean "hidden_size"'),
        ({"hidden_size": -4}, "hidden_size is -4; expected a whole number above 0"),
        ({"num_attention_heads": 5, "hidden_size": 48}, "language model config"),
        ({"vocab_size": 10}, r"token ids up to 258, but the language model's vocab_size is 10"),
    ],
)
def test_a_language_model_that_cannot_be_built_is_named(language_model, encoder, config, message):
    small = {"model_type": "llama", "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, **config}
    bad = {**spec(language_model, encoder), "language_model": {"config": small}, "tokenizer": str(language_model)}
    with pytest.raises(ConfigError, match=message):
        assemble(bad)


@pytest.mark.parametrize("key", ["language_model", "tokenizer"])
@pytest.mark.parametrize("kind", ["other folder", "not there", "not on the hub"])
def test_a_part_that_is_something_else_is_named(language_model, encoder, tmp_path, monkeypatch, key, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    source = {"other folder": str(tmp_path), "not there": "runs/typo", "not on the hub": "nobody/nothing"}[kind]
    bad = {**spec(language_model, encoder), key: {"path": source} if key == "language_model" else source}
    with pytest.raises(CheckpointError, match="no such folder" if kind == "not there" else "cannot be read as a"):
        assemble(bad)


@pytest.mark.parametrize(
    "damage", ["model.safetensors", "tokenizer.json", "processor_config.json", "truncated", "shape"]
)
def test_a_damaged_checkpoint_is_named(language_model, encoder, tmp_path, damage):
    model, processor = assemble(spec(language_model, encoder))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "shape":
        config = json.loads((tmp_path / "config.json").read_text())
        config["connector"]["width"] = 64
        (tmp_path / "config.json").write_text(json.dumps(config))
    else:
        (tmp_path / damage).unlink()
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        (CambrianForConditionalGeneration.from_pretrained(tmp_path), CambrianProcessor.from_pretrained(tmp_path))


def test_pretrained_weights_that_cannot_be_fetched_are_named(language_model, encoder, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    bad = spec(language_model, encoder)
    bad["vision_encoders"] = [{"name": "timm:test_vit.r160_in1k", "pretrained": True, "image_side": 160}]
    with pytest.raises(CheckpointError, match=r"timm/test_vit.r160_in1k: not in the hub's cache"):
        assemble({**bad, "connector": {**CONNECTOR, "query_grid_sides": [5]}, "grid_side": 5})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_answers(language_model, encoder, tmp_path, dtype):
    model, processor = assemble(spec(language_model, encoder))
    model.to(dtype).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = CambrianForConditionalGeneration.from_pretrained(tmp_path, dtype="auto")
    assert loaded.dtype == dtype
    content = [{"type": "image", "image": torch.zeros(3, 30, 50, dtype=torch.uint8)}, {"type": "text", "text": "?"}]
    options: dict[str, Any] = {
        "add_generation_prompt": True,
        "tokenize": True,
        "return_dict": True,
        "return_tensors": "pt",
    }
    inputs = processor.apply_chat_template([{"role": "user", "content": content}], **options)
    assert loaded.generate(**inputs, max_new_tokens=3).shape[1] > inputs["input_ids"].shape[1]


@torch.no_grad()
def test_image_tokens_of_a_fresh_model_differ_from_each_other_as_much_as_words_do(language_model, encoder):
    torch.manual_seed(3)
    model, _ = assemble(spec(language_model, encoder))
    words = model.language_model.get_input_embeddings().weight.square().mean().sqrt()
    images = model.get_image_features([torch.randn(9, 3, 64, 64), torch.randn(9, 3, 64, 64)], torch.full((9, 2), 64))
    cells = images.tokens[images.token_slots]
    # within a factor of two: it is scaled on random features, and these come from the encoders
    assert 0.5 < cells.std(dim=0).square().mean().sqrt() / words < 2
    newlines = torch.ones(len(images.tokens), dtype=torch.bool).index_fill(0, images.token_slots, False)
    torch.testing.assert_close(images.tokens[newlines].square().mean().sqrt(), words)


def test_a_checkpoint_that_is_not_what_the_recipe_says_is_refused(tmp_path):
    config = CONFIG_MAPPING["llama"](hidden_size=16, num_attention_heads=2, num_hidden_layers=1)
    config.save_pretrained(tmp_path)
    language = {"path": str(tmp_path), "config": {"model_type": "llama", "hidden_size": 4096}}

    with pytest.raises(ConfigError, match=r"has hidden_size 16, but the recipe's .* says 4096; .*config=null"):
        assemble({"language_model": language, "vision_encoders": [], "connector": {}, "grid_side": 2})
