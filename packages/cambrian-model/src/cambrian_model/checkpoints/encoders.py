"""The vision encoders of a released checkpoint, which holds none: from the registry, from folders, or precomputed."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from cambrian_model.checkpoints.released import TOWERS, encoder_grid_sides, encoder_specs
from cambrian_model.config import CambrianConfig, VisionEncoderConfig
from cambrian_model.errors import CheckpointError, did_you_mean
from cambrian_model.vision.base import VisionEncoder
from cambrian_model.vision.source import FILES, PRECOMPUTED, EncoderSource, describe, load_encoder
from cambrian_model.vision.weights import fetch

_IDENTITY = ("library", "name", "image_side", "feature_layer")  # what tells one encoder from another


class EncoderPart(NamedTuple):
    """One encoder of the model to be.

    Attributes:
        config: Its configuration.
        load: Loads it with its weights; None where it has none.
    """

    config: VisionEncoderConfig
    load: Callable[[], VisionEncoder] | None = None


def precomputed_encoders(
    source: Path, released: Mapping[str, Any], widths: Sequence[int | None], given: Sequence[int]
) -> list[EncoderPart]:
    """Returns encoders whose features are passed at run time.

    Args:
        source: What errors call the checkpoint.
        released: The released configuration.
        widths: Channels that the weights expect of each encoder; None where they do not say.
        given: Channels of each encoder, as the user says.

    Raises:
        CheckpointError: Number or widths differ from those of the checkpoint.
    """
    names, sides = released["mm_vision_tower_aux_list"], encoder_grid_sides(released)
    if len(given) != len(names):
        raise CheckpointError(
            f"{source}: {len(given)} widths of precomputed encoders ({', '.join(map(str, given)) or 'none'}) for "
            f"{len(names)} encoders ({', '.join(names)}); give one each, with --precomputed-encoders"
        )
    check_widths(source, names, widths, given)
    # Their pixels serve nobody; the processor still prepares some, as few as can be.
    return [
        EncoderPart(VisionEncoderConfig(PRECOMPUTED, name, image_side=side, width=width, grid_side=side))
        for name, width, side in zip(names, given, sides, strict=True)
    ]


def check_widths(source: Path, names: Sequence[str], expected: Sequence[int | None], found: Sequence[int]) -> None:
    """Checks the channels of encoders against the projections of their features.

    Raises:
        CheckpointError: Names the encoder and both numbers.
    """
    for name, wanted, width in zip(names, expected, found, strict=True):
        if wanted is not None and wanted != width:
            raise CheckpointError(
                f"{source}: the encoder {name} gives {width} channels, but the weights expect {wanted} of it"
            )


def registry_encoders(
    source: Path, released: Mapping[str, Any], widths: Sequence[int | None], folders: Mapping[str, Path]
) -> list[EncoderPart]:
    """Returns the encoders that the checkpoint names, their weights found: in a folder, the hub's cache, or the hub.

    Args:
        source: What errors call the checkpoint.
        released: The released configuration.
        widths: Channels that the weights expect of each encoder; None where they do not say.
        folders: Folders of weights, by the original's name of an encoder or by ours.

    Raises:
        CheckpointError: An encoder is not known here, gives other channels than the weights expect, or its weights
            cannot be had; says what else can be done.
    """
    towers, specs = released["mm_vision_tower_aux_list"], encoder_specs(released)
    names = {*towers, *(spec["name"] for spec in specs)}
    if unknown := [name for name in folders if name not in names]:
        raise CheckpointError(
            f'--encoder names "{unknown[0]}", but {source} has {", ".join(towers)}{did_you_mean(unknown[0], names)}'
        )
    given = [folders.get(tower, folders.get(spec["name"])) for tower, spec in zip(towers, specs, strict=True)]
    found = [describe({**spec, "path": folder}) for spec, folder in zip(specs, given, strict=True)]
    check_widths(source, towers, widths, [encoder.config.width for encoder in found])
    located = [_located(tower, encoder) for tower, encoder in zip(towers, found, strict=True)]
    return [EncoderPart(encoder.config, partial(_load, encoder)) for encoder in located]


def _located(tower: str, encoder: EncoderSource) -> EncoderSource:
    if encoder.folder is not None:
        return encoder
    try:
        if encoder.published.hub_id is None:
            raise CheckpointError(encoder.published.elsewhere or "nobody publishes them")
        return encoder._replace(folder=fetch(encoder.published.hub_id, FILES[encoder.config.library]))
    except CheckpointError as error:
        raise CheckpointError(
            f"a released checkpoint holds no vision encoders, and the weights of {tower} cannot be had ({error}). Name "
            f"a folder that holds them with --encoder {tower}=FOLDER, or leave the encoders out with "
            "--precomputed-encoders W1,W2,..., their widths"
        ) from error


def _load(encoder: EncoderSource) -> VisionEncoder:
    return load_encoder(encoder).encoder


def released_towers(config: CambrianConfig) -> list[str]:
    """Returns the original's names of a model's encoders.

    Raises:
        CheckpointError: The original has no such encoder.
    """
    return [_released_tower(encoder) for encoder in config.encoders]


def _released_tower(encoder: VisionEncoderConfig) -> str:
    if encoder.library == PRECOMPUTED:
        return encoder.name
    for tower, spec in TOWERS.items():
        known = describe(spec).config
        if all(getattr(known, key) == getattr(encoder, key) for key in _IDENTITY):
            return tower
    raise CheckpointError(
        f"the original has no vision encoder {encoder.library}:{encoder.name} of {encoder.image_side} pixels and "
        f"feature layer {encoder.feature_layer}, so it could not run this model"
    )
