"""A new model from its parts: a language model, a tokenizer, vision encoders, a connector."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from cambrian_model.config import CambrianConfig
from cambrian_model.errors import CheckpointError, ConfigError, did_you_mean
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.processing.processor import CambrianProcessor
from cambrian_model.vision.timm_encoder import describe, load_timm_encoder


def assemble(spec: Mapping[str, Any]) -> tuple[CambrianForConditionalGeneration, CambrianProcessor]:
    """Builds model and processor from the `model` section of a recipe.

    Args:
        spec: `language_model` ({path: folder or hub id} or {config: {model_type, ...}}), `tokenizer` (folder or hub id;
            default: the language model's), `chat_template` (a name, or null for the tokenizer's own),
            `vision_encoders` (see `timm_encoder.describe`), `connector` (see `SVAConfig`), `grid_side`.

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
    processor = CambrianProcessor.from_config(
        config, _tokenizer(spec.get("tokenizer") or language.get("path")), spec.get("chat_template")
    )
    config.image_token_id = processor.image_token_id
    model = CambrianForConditionalGeneration(config)
    model.generation_config.eos_token_id = processor.stop_token_ids
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    _load_language_model(model, language)
    for encoder, source in zip(model.vision_encoders, sources, strict=True):
        encoder.load_state_dict(load_timm_encoder(source).state_dict())
    return model, processor


def _text_config(language: Mapping[str, Any]) -> PreTrainedConfig:
    if language.get("path"):
        return AutoConfig.from_pretrained(_existing(language["path"]))
    values = dict(language["config"])
    model_type = values.pop("model_type")
    if model_type not in CONFIG_MAPPING:
        raise ConfigError(f'unknown language model type "{model_type}"{did_you_mean(model_type, CONFIG_MAPPING)}')
    return CONFIG_MAPPING[model_type](**values)


def _tokenizer(path: str | None) -> Any:
    if path is None:
        raise ConfigError(
            "no tokenizer: set model.tokenizer, or give model.language_model.path a folder that holds one"
        )
    return AutoTokenizer.from_pretrained(_existing(path))


def _existing(path: str) -> str:
    """Refuses what looks like a folder and is none, before a hub client reports it as a bad repository name."""
    if not Path(path).exists() and (path.startswith((".", "/", "~")) or path.count("/") != 1):
        raise CheckpointError(f"{path}: no such folder; expected a local folder or a hub id like owner/name")
    return path


def _load_language_model(model: CambrianForConditionalGeneration, language: Mapping[str, Any]) -> None:
    if not language.get("path"):
        return
    pretrained = AutoModelForCausalLM.from_pretrained(language["path"], dtype=model.dtype)
    missing, unexpected = model.language_model.load_state_dict(pretrained.state_dict(), strict=False)
    missing = [name for name in missing if ".sva." not in name]
    if missing or unexpected:
        raise CheckpointError(f"{language['path']}: missing {missing[:3]}, unexpected {unexpected[:3]} weights")
