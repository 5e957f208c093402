"""What our form of a released checkpoint, or of a stage-1 projector, will hold.

Whatever the released folder holds beside weights is kept under `released/`, to the letter, for the way back.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cambrian_model.checkpoints.completeness import Shapes, check_complete, expected_tensors, optional_names
from cambrian_model.checkpoints.encoders import EncoderPart, precomputed_encoders, registry_encoders
from cambrian_model.checkpoints.foreign import reading
from cambrian_model.checkpoints.native import CONNECTOR_FILE
from cambrian_model.checkpoints.plan import Options, Plan, as_json, model_files, renamed
from cambrian_model.checkpoints.released import (
    KeyNames,
    chat_template,
    check_counts,
    config_with_encoders,
    encoder_widths,
    is_connector,
    stage_1_name,
    text_config_from_released,
    tower_tensor,
)
from cambrian_model.checkpoints.shards import read_weights
from cambrian_model.checkpoints.tensor_file import DTYPES, StoredTensor, read_tensor_file
from cambrian_model.checkpoints.transfer import Shard
from cambrian_model.config import CambrianConfig
from cambrian_model.errors import CheckpointError
from cambrian_model.processing.processor import CambrianProcessor

KEPT = "released"  # folder of what a released checkpoint holds beside weights
ENCODERS = "vision_encoders."
ARCHITECTURE = "CambrianForConditionalGeneration"
_KEPT_SUFFIXES = (".json", ".model", ".txt", ".md", ".jinja")
_KEPT_NAMES = ("LICENSE", "NOTICE")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def plan_native(folder: Path, released: Mapping[str, Any], options: Options) -> Plan:
    """Plans our form of a released checkpoint.

    Raises:
        CheckpointError: Its weights are not those of its configuration, or an encoder's weights cannot be had.
        ConfigError: Its configuration contradicts itself.
        PromptError: The chat template does not fit the tokenizer.
    """
    weights = read_weights(folder)
    _refuse_trained_towers(folder, weights.shapes)
    check_counts(released, len(weights.shapes), folder / "config.json")
    encoders = _encoders(folder, released, weights.shapes, options)
    config = _config(released, encoders)
    names = KeyNames.of(config)
    expected = expected_tensors(config)
    model = {names.to_released(n): tuple(x.shape) for n, x in expected.items() if not n.startswith(ENCODERS)}
    check_complete(folder, weights.shapes, model, [names.to_released(name) for name in optional_names(config)])
    # The encoders first: whether their weights are the right ones shows only when they are loaded.
    shards = [_encoder_shard(i, encoder, expected) for i, encoder in enumerate(encoders) if encoder.load is not None]
    shards += [renamed(file, names.to_ours) for file in weights.files]
    notes: list[str] = []
    processor = _processor(folder, released, config, options, notes)
    if released.get("unfreeze_mm_vision_tower"):
        notes.append("its configuration says that the vision encoders were trained, but it does not hold them")
    if options.precomputed_encoders is not None:
        notes.append("its vision encoders are precomputed: pass vision_features instead of pixel_values")
    named, index = model_files(shards)
    return Plan("native checkpoint", named, {**_files(folder, config, processor), **index}, processor, notes)


def plan_connector(file: Path, released: Mapping[str, Any], options: Options) -> Plan:
    """Plans our form of a stage-1 projector: its connector, with the blocks inside the language model.

    Raises:
        CheckpointError: It is no such file, or its tensors are not those of the configuration beside it.
        ConfigError: The configuration contradicts itself.
    """
    source = read_tensor_file(file)
    if odd := [tensor.name for tensor in source.tensors if stage_1_name(tensor.name) is None]:
        raise CheckpointError(
            f'{file}: holds {len(odd)} tensors that no connector has, such as "{odd[0]}"; expected a stage-1 projector'
        )
    shapes = {str(stage_1_name(tensor.name)): tensor.shape for tensor in source.tensors}
    connector_fields = {key: value for key, value in released.items() if key != "num_hidden_layers"}
    check_counts(connector_fields, len(shapes), file.parent / "config.json")
    widths = encoder_widths(shapes, len(released["mm_vision_tower_aux_list"]))
    given = options.precomputed_encoders or [width for width in widths if width is not None]
    config = _config(released, precomputed_encoders(file, released, widths, given))
    names = KeyNames.of(config)
    model = {names.to_released(name): tuple(x.shape) for name, x in expected_tensors(config).items()}
    check_complete(file, shapes, {name: shape for name, shape in model.items() if is_connector(name)})
    shard = renamed(source, lambda name: names.to_ours(str(stage_1_name(name))))
    notes = ["a connector alone; name this folder as model.connector_weights in a recipe"]
    return Plan("connector", {CONNECTOR_FILE: shard}, _files(file.parent, config, None), notes=notes)


def _refuse_trained_towers(folder: Path, shapes: Shapes) -> None:
    if trained := [name for name in shapes if tower_tensor(name)]:
        raise CheckpointError(
            f"{folder}: holds {len(trained)} weights of vision encoders that were trained along, such as {trained[0]}; "
            "only checkpoints whose encoders stayed frozen can be converted"
        )


def _encoders(folder: Path, released: Mapping[str, Any], shapes: Shapes, options: Options) -> list[EncoderPart]:
    widths = encoder_widths(shapes, len(released["mm_vision_tower_aux_list"]))
    if options.precomputed_encoders is not None:
        return precomputed_encoders(folder, released, widths, options.precomputed_encoders)
    return registry_encoders(folder, released, widths, options.encoder_folders)


def _config(released: Mapping[str, Any], encoders: Sequence[EncoderPart]) -> CambrianConfig:
    text_config = text_config_from_released(released).to_dict()
    config = config_with_encoders(released, text_config, [encoder.config for encoder in encoders])
    config.architectures = [ARCHITECTURE]
    return config


def _encoder_shard(index: int, encoder: EncoderPart, expected: Mapping[str, Tensor]) -> Shard:
    prefix = f"{ENCODERS}{index}."
    tensors = {
        name: StoredTensor(name, DTYPES[x.dtype], tuple(x.shape), x.nbytes)
        for name, x in expected.items()
        if name.startswith(prefix)
    }

    def load() -> dict[str, Tensor]:
        assert encoder.load is not None
        return {prefix + name: x for name, x in encoder.load().state_dict().items()}

    return Shard(Path(encoder.config.name), tensors, {"format": "pt"}, load)


def _processor(
    folder: Path, released: Mapping[str, Any], config: CambrianConfig, options: Options, notes: list[str]
) -> CambrianProcessor | None:
    """Makes the processor, if there is a tokenizer, and tells the configuration the id of its image token."""
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        notes.append(f"{folder} holds no tokenizer: the model was converted alone, without a processor")
        return None
    tokenizer = _tokenizer(folder, config)
    template = options.chat_template or chat_template(released, tokenizer.get_vocab())
    notes.append(f"chat template: {template}; another one is chosen with --chat-template")
    processor = CambrianProcessor.from_config(config, tokenizer, template)
    config.image_token_id = processor.image_token_id
    return processor


def _tokenizer(folder: Path, config: CambrianConfig) -> PreTrainedTokenizerBase:
    with reading(folder, "a tokenizer"):
        try:
            return AutoTokenizer.from_pretrained(folder, config=config.get_text_config())
        except (ImportError, ValueError) as error:
            if (folder / "tokenizer.json").is_file():
                raise
            raise CheckpointError(
                f"{folder}: tokenizer.model alone cannot be read here; save it once as tokenizer.json, in an "
                "environment with sentencepiece: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
            ) from error


def _files(folder: Path, config: CambrianConfig, processor: CambrianProcessor | None) -> dict[str, bytes]:
    text = config.get_text_config()
    generation = {
        "bos_token_id": text.bos_token_id,
        "eos_token_id": processor.stop_token_ids if processor else text.eos_token_id,
        "pad_token_id": processor.tokenizer.pad_token_id if processor else text.pad_token_id,
    }
    kept = {f"{KEPT}/{path.name}": path.read_bytes() for path in sorted(folder.iterdir()) if is_kept(path)}
    return {
        "config.json": config.to_json_string().encode(),
        "generation_config.json": as_json(generation),
        **kept,
    }


def is_kept(path: Path) -> bool:
    """Tells whether a file beside weights is carried along: texts and settings, no weights and no code."""
    is_text = path.suffix in _KEPT_SUFFIXES or path.name in _KEPT_NAMES
    return path.is_file() and is_text and not path.name.endswith(".index.json")
