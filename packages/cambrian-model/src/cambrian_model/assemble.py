"""A new model from its parts: a language model, a tokenizer, vision encoders, a connector."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from cambrian_model.checkpoints.connector import load_connector
from cambrian_model.checkpoints.foreign import reading
from cambrian_model.checkpoints.native import locate
from cambrian_model.config import IMAGE_TOKEN, CambrianConfig
from cambrian_model.errors import CheckpointError, ConfigError, did_you_mean
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.processing.processor import CambrianProcessor
from cambrian_model.vision.source import describe, load_encoder

SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim")


def assemble(spec: Mapping[str, Any]) -> tuple[CambrianForConditionalGeneration, CambrianProcessor]:
    """Builds model and processor from the `model` section of a recipe.

    Args:
        spec: `language_model` ({path: folder or hub id} or {config: {model_type, ...}}), `tokenizer` (folder or hub id;
            default: the language model's), `chat_template` (a name, or null for the tokenizer's own),
            `vision_encoders` (see `vision.source.describe`), `connector` (see `cambrian_model.config`),
            `connector_weights` (a folder with a trained connector; default: fresh ones), `grid_side`.

    Raises:
        ConfigError: The parts do not fit together.
        CheckpointError: A part's folder does not hold what was expected.
    """
    language = spec["language_model"]
    text_config = _text_config(language)
    sources = [describe(encoder) for encoder in spec["vision_encoders"]]
    config = CambrianConfig(
        text_config=text_config,
        vision_encoders=[source.config for source in sources],
        connector=spec["connector"],
        grid_side=spec["grid_side"],
        tie_word_embeddings=text_config.tie_word_embeddings,
    )
    tokenizer = _tokenizer(spec.get("tokenizer") or language.get("path"))
    _check_vocabulary(tokenizer, text_config)
    processor = CambrianProcessor.from_config(config, tokenizer, spec.get("chat_template"))
    config.image_token_id = processor.image_token_id
    model = CambrianForConditionalGeneration(config)
    model.generation_config.eos_token_id = processor.stop_token_ids
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    _load_language_model(model, language)
    for encoder, source in zip(model.vision_encoders, sources, strict=True):
        encoder.load_state_dict(load_encoder(source).encoder.state_dict())
    if spec.get("connector_weights"):
        load_connector(model, Path(spec["connector_weights"]))
    else:
        table = cast(nn.Embedding, model.get_input_embeddings())
        words = table(torch.arange(table.num_embeddings)).detach().float()  # scaled, where the language model does so
        model.connector.match_size(words.square().mean().sqrt().item())  # differs from the reference: PyTorch's own
    return model, processor


def _text_config(language: Mapping[str, Any]) -> PreTrainedConfig:
    if language.get("path"):
        source = locate(language["path"])
        with reading(source, "a language model"):
            return AutoConfig.from_pretrained(source)
    values = dict(language["config"])
    model_type = values.pop("model_type", None)
    if model_type not in CONFIG_MAPPING:
        raise ConfigError(f'unknown language model type "{model_type}"{did_you_mean(str(model_type), CONFIG_MAPPING)}')
    config_class = CONFIG_MAPPING[model_type]
    known = {field.name for field in dataclasses.fields(config_class)} | set(config_class.attribute_map)
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f'language model config: unknown key "{key}"{did_you_mean(key, known)}')
        if key in SIZES and not (isinstance(value, int) and value > 0):
            raise ConfigError(f"language model config: {key} is {value!r}; expected a whole number above 0")
    try:
        return config_class(**values)
    except StrictDataclassError as error:
        raise ConfigError(f"language model config ({model_type}): {' '.join(str(error).split())}") from error


def _tokenizer(path: str | None) -> Any:
    if path is None:
        raise ConfigError(
            "no tokenizer: set model.tokenizer, or give model.language_model.path a folder that holds one"
        )
    source = locate(path)
    with reading(source, "a tokenizer"):
        return AutoTokenizer.from_pretrained(source)


def _check_vocabulary(tokenizer: Any, text_config: PreTrainedConfig) -> None:
    largest = max(token_id for token, token_id in tokenizer.get_vocab().items() if token != IMAGE_TOKEN)
    if largest >= text_config.vocab_size:
        raise ConfigError(
            f"the tokenizer knows token ids up to {largest}, but the language model's vocab_size is "
            f"{text_config.vocab_size}; they do not belong together"
        )


def _load_language_model(model: CambrianForConditionalGeneration, language: Mapping[str, Any]) -> None:
    if not language.get("path"):
        return
    with reading(language["path"], "a language model"):
        pretrained = AutoModelForCausalLM.from_pretrained(language["path"], dtype=model.dtype)
    missing, unexpected = model.language_model.load_state_dict(pretrained.state_dict(), strict=False)
    missing = [name for name in missing if ".sva." not in name]
    if missing or unexpected:
        raise CheckpointError(f"{language['path']}: missing {missing[:3]}, unexpected {unexpected[:3]} weights")
