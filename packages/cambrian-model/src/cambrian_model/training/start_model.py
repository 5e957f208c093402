"""The model that a stage starts from: built from the recipe, or read from a folder that must be what it says."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig

from cambrian_model.assemble import assemble
from cambrian_model.config import CambrianConfig
from cambrian_model.errors import TrainingError
from cambrian_model.language.document_attention import BY_DOCUMENT
from cambrian_model.language.loss import LossOptions
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.processing.processor import CambrianProcessor
from cambrian_model.training.adapters import add_adapters, quantize_language_model
from cambrian_model.training.compute import checkpoint_activations, compile_layers
from cambrian_model.training.distributed import DTYPES
from cambrian_model.training.export import no_progress_bars
from cambrian_model.training.manifest import Reference, check_manifest, hash_weights
from cambrian_model.training.recipe import Recipe
from cambrian_model.training.recipe.model import ModelSection
from cambrian_model.training.run_folder import RunFolder
from cambrian_model.training.trainable import Trainable, select_trainable
from cambrian_model.vision.source import identify


class StageModel(NamedTuple):
    """The model of a stage, ready to be spread over devices.

    Attributes:
        model: With its adapters, and what is trained decided.
        processor: Goes with it.
        trainable: What is trained.
        source: The model folder that it is from; None: built from the recipe.
    """

    model: CambrianForConditionalGeneration
    processor: CambrianProcessor
    trainable: Trainable
    source: Reference | None


def check_input(run: RunFolder, name: str) -> Reference | None:
    """Looks at the model folder that a stage starts from; None where the model is built from the recipe.

    Raises:
        TrainingError: It is not what the stage before exported, has been changed since, or is another model than the
            recipe's.
    """
    folder = run.source(name)
    if folder is None:
        return None
    if folder == run.start_from:
        _check_same_model(run.recipe.model, folder)
    manifest = check_manifest(folder)
    expected = run.recipe.predecessor(name)
    if manifest is None:
        return Reference(str(folder.resolve()), hash_weights(folder))
    if expected is not None and manifest.stage != expected:
        raise TrainingError(
            f'stage "{name}" starts from the model of stage "{expected}", but {folder} is that of stage '
            f'"{manifest.stage}" (recipe "{manifest.recipe}"); give another folder, or set stages.{name}.follows=any'
        )
    return Reference(str(folder.resolve()), manifest.hash)


def name_source(source: Reference | None) -> str:
    """Returns where a stage's model comes from, for a reader."""
    return source.path if source is not None else "the recipe's model section"


def load_model(recipe: Recipe, source: Path | None) -> tuple[CambrianForConditionalGeneration, CambrianProcessor]:
    """Reads a model folder, or builds the model from the recipe; weights in float32."""
    if source is None:
        return assemble(recipe.model.spec())
    with no_progress_bars():
        model = CambrianForConditionalGeneration.from_pretrained(source, dtype=torch.float32)
    return model, CambrianProcessor.from_pretrained(source)


def prepare_model(
    recipe: Recipe,
    name: str,
    model: CambrianForConditionalGeneration,
    processor: CambrianProcessor,
    source: Reference | None,
    device: torch.device,
) -> StageModel:
    """Makes a loaded model what a stage trains: adapters, what is trained, how it computes.

    Raises:
        RecipeError: A pattern of the stage matches nothing, or a parameter twice.
        ConfigError: The model cannot compute as the recipe asks.
    """
    stage = recipe.stages[name]
    if stage.adapters is not None:
        if stage.adapters.quantize is not None:
            quantize_language_model(model, stage.adapters.quantize, DTYPES[recipe.precision], device)
        add_adapters(model, stage.adapters)
    trainable = select_trainable(model, stage)
    if recipe.attention is not None:
        model.language_model.set_attn_implementation(recipe.attention)
    elif device.type == "cpu" and model.language_model.config.get_text_config()._attn_implementation == "sdpa":
        model.language_model.set_attn_implementation(BY_DOCUMENT)
    checkpoint_activations(model, recipe.activation_checkpointing)
    model.loss_options = LossOptions(recipe.loss.implementation, recipe.loss.chunk_tokens)
    if recipe.compile:
        compile_layers(model)
    return StageModel(model, processor, trainable, source)


def _check_same_model(section: ModelSection, source: Path) -> None:
    """Refuses to start from a model that is not the recipe's, for its `model` section would go unheeded.

    Raises:
        TrainingError: Names the key and both values.
    """
    found = CambrianConfig.from_pretrained(source)
    wanted_parts, found_parts = _wanted_parts(section), _found_parts(found)
    for key, wanted in wanted_parts.items():
        if wanted != found_parts.get(key):
            raise TrainingError(
                f"model.{key} is {wanted} in the recipe, but {found_parts.get(key)} in the checkpoint {source}; "
                "change this key, take the checkpoint's own recipe, or start from another checkpoint"
            )


TEXT_KEYS = ("model_type", "hidden_size", "num_hidden_layers")
ENCODER_KEYS = ("image_side", "feature_layer", "grid_side")


def _wanted_parts(section: ModelSection) -> dict[str, Any]:
    """Returns what a recipe says of its model, by dotted key; what it leaves open is left out."""
    parts: dict[str, Any] = {"grid_side": section.grid_side, "vision_encoders": len(section.vision_encoders)}
    for i, encoder in enumerate(section.vision_encoders):
        parts[f"vision_encoders.{i}.name"] = identify(encoder.name)
        given = {key: getattr(encoder, key) for key in ENCODER_KEYS}
        parts |= {f"vision_encoders.{i}.{key}": value for key, value in given.items() if value is not None}
    parts |= {f"connector.{key}": value for key, value in section.connector.model_dump(mode="json").items()}
    language = section.language_model
    text = language.config or {}
    if language.path and Path(language.path).is_dir():
        text = AutoConfig.from_pretrained(language.path).to_dict()
    return parts | {f"language_model.config.{key}": text[key] for key in TEXT_KEYS if key in text}


def _found_parts(config: CambrianConfig) -> dict[str, Any]:
    """Returns the same of a checkpoint."""
    parts: dict[str, Any] = {"grid_side": config.grid_side, "vision_encoders": len(config.encoders)}
    for i, encoder in enumerate(config.encoders):
        parts[f"vision_encoders.{i}.name"] = f"{encoder.library}:{encoder.name}"
        parts |= {f"vision_encoders.{i}.{key}": getattr(encoder, key) for key in ENCODER_KEYS}
    connector = asdict(config.connector_config)
    parts |= {f"connector.{k}": list(v) if isinstance(v, tuple) else v for k, v in connector.items()}
    text = config.get_text_config()
    return parts | {f"language_model.config.{key}": getattr(text, key, None) for key in TEXT_KEYS}
