"""A new model from its parts: a language model, a tokenizer, vision encoders, a connector."""

import dataclasses
from collections.abc import Mapping, Sequence
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
from cambrian_model.vision.source import EncoderSource, describe, load_encoder

SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim")


def assemble(spec: Mapping[str, Any]) -> tuple[CambrianForConditionalGeneration, CambrianProcessor]:
    """Builds model and processor from the `model` section of a recipe.

    Args:
        spec: `language_model` (path: folder or hub id; config: {model_type, ...}, alone for fresh weights),
            `tokenizer` (folder or hub id; default: the language model's), `chat_template` (a name, or null for the
            tokenizer's own), `vision_encoders` (see `vision.source.describe`), `connector` (see
            `cambrian_model.config`), `connector_weights` (a folder with a trained connector; default: fresh ones),
            `grid_side`.

    Raises:
        ConfigError: The parts do not fit together.
        CheckpointError: A part's folder does not hold what was expected.
    """
    language = spec["language_model"]
    sources = [describe(encoder) for encoder in spec["vision_encoders"]]
    config = _config(spec, _text_config(language), sources)
    processor = _processor(spec, config)
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


def assemble_empty(spec: Mapping[str, Any]) -> CambrianForConditionalGeneration:
    """Builds the model of a recipe's `model` section on the meta device: shapes without numbers.

    No weight is read, and the hub is not asked for the language model: its configuration is that of a local folder, or
    else the section's own `config`, or else in the hub's cache.

    Raises:
        ConfigError: The parts do not fit together, or there is no configuration of the language model.
        CheckpointError: A part's folder does not hold what was expected.
    """
    sources = [describe(encoder) for encoder in spec["vision_encoders"]]
    config = _config(spec, _text_config_at_hand(spec["language_model"]), sources)
    with torch.device("meta"):
        return CambrianForConditionalGeneration(config)


def processor_at_hand(spec: Mapping[str, Any], config: CambrianConfig) -> CambrianProcessor:
    """Returns the processor of a recipe's `model` section from files that are here; the hub is not asked.

    Raises:
        ConfigError: No tokenizer is named, or it does not fit the language model.
        CheckpointError: It is not here, or damaged.
    """
    return _processor(spec, config, local_files_only=True)


def _config(spec: Mapping[str, Any], text_config: PreTrainedConfig, sources: Sequence[EncoderSource]) -> CambrianConfig:
    return CambrianConfig(
        text_config=text_config,
        vision_encoders=[source.config for source in sources],
        connector=spec["connector"],
        grid_side=spec["grid_side"],
        tie_word_embeddings=text_config.tie_word_embeddings,
    )


def _processor(spec: Mapping[str, Any], config: CambrianConfig, local_files_only: bool = False) -> CambrianProcessor:
    tokenizer = _tokenizer(spec.get("tokenizer") or spec["language_model"].get("path"), local_files_only)
    _check_vocabulary(tokenizer, config.get_text_config())
    return CambrianProcessor.from_config(config, tokenizer, spec.get("chat_template"))


def _text_config(language: Mapping[str, Any]) -> PreTrainedConfig:
    if language.get("path"):
        source = locate(language["path"])
        with reading(source, "a language model"):
            found = AutoConfig.from_pretrained(source)
        _check_agreement(found, language.get("config") or {}, source)
        return found
    return _parse_text_config(language["config"])


def _check_agreement(found: PreTrainedConfig, expected: Mapping[str, Any], source: str) -> None:
    for key in ("model_type", *SIZES):
        if key in expected and getattr(found, key, None) != expected[key]:
            raise ConfigError(
                f"language model {source} has {key} {getattr(found, key, None)}, but the recipe's "
                f"model.language_model.config says {expected[key]}; give the checkpoint that the recipe is for, or set "
                "model.language_model.config=null to take this one as it is"
            )


def _text_config_at_hand(language: Mapping[str, Any]) -> PreTrainedConfig:
    path, values = str(language.get("path") or ""), language.get("config")
    if path and Path(path).is_dir():
        return _text_config({"path": path})
    if values:
        return _parse_text_config(values)
    if not path:
        raise ConfigError(
            "no language model: set model.language_model.path to a folder or model of the hub, or "
            "model.language_model.config to its configuration"
        )
    try:
        return AutoConfig.from_pretrained(locate(path), local_files_only=True)
    except OSError as error:
        raise CheckpointError(
            f"{path}: its configuration is not at hand; set model.language_model.path to a local folder, or "
            "model.language_model.config to its configuration, or fetch its config.json into the hub's cache"
        ) from error


def _parse_text_config(language: Mapping[str, Any]) -> PreTrainedConfig:
    values = dict(language)
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


def _tokenizer(path: str | None, local_files_only: bool) -> Any:
    if path is None:
        raise ConfigError(
            "no tokenizer: set model.tokenizer, or give model.language_model.path a folder that holds one"
        )
    source = locate(path)
    if local_files_only and not Path(source).is_dir():
        return _cached_tokenizer(source)
    with reading(source, "a tokenizer"):
        return AutoTokenizer.from_pretrained(source)


def _cached_tokenizer(source: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{source}: its tokenizer is not at hand; set model.tokenizer to a folder that holds it"
        ) from error


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
