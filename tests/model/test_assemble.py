"""A model put together from parts: weights arrive, ids agree, mistakes are named."""

import json

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
