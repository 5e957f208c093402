"""`cambrian:PATH`: a Cambrian model. Every picture of a batch is prepared and encoded once, however many ask about it.

One of the few modules of this package that import cambrian_model and torch, and only when a model is loaded; needs the
extra `cambrian-eval[cambrian]`.
"""

from __future__ import annotations

import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cambrian_eval.errors import ModelError
from cambrian_eval.models.base import Length
from cambrian_eval.models.fingerprints import hash_folder
from cambrian_eval.models.local import LocalModel, end_ids, num_image_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian_eval.types import Prompt

CHECKPOINT = "checkpoint"  # the trained model inside a run's folder

_PICTURE_OF_IMAGE = "picture_of_image"  # which of the distinct pictures each place in the prompts shows


class Cambrian(LocalModel):
    """A model and its processor, loaded from one folder.

    Args:
        model: On its device.
        processor: Goes with it.
        folder: Where they are from; its name names the model, its files are its fingerprint.
        fingerprint: Instead, of a model that is still in training and lies in no folder yet.
    """

    def __init__(self, model: Any, processor: Any, folder: Path, fingerprint: str | None = None) -> None:
        from cambrian_model.errors import CambrianModelError

        processor = copy.copy(processor)
        processor.image_processor = _Distinct(processor.image_processor)
        super().__init__(
            f"cambrian:{_name(folder.resolve())}",
            model,
            processor,
            stop_ids=[*processor.stop_token_ids, *end_ids(model)],
            image_token_id=model.config.image_token_id,
            refusals=(CambrianModelError,),
        )
        self._given_fingerprint, self._folder = fingerprint, folder

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights and of the configuration, processor and tokenizer files; precision and kind of device."""
        if self._given_fingerprint is not None:
            return self._given_fingerprint
        return f"cambrian:{hash_folder(self._folder)}:{self._model.dtype}:{self._model.device.type}"

    def _encode(self, messages: Sequence[Any]) -> dict[str, Any]:
        return dict(
            self._processor.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
        )

    def _measure(self, prompt: Prompt, sizes: Sequence[tuple[int, int]]) -> Length:
        content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in prompt.content]
        turns = [{"role": "user", "content": content}, {"role": "assistant", "content": "A"}]
        tokens = self._processor.measure(turns, sizes).first_supervised
        image_tokens = num_image_tokens(self._processor, sizes)
        return Length(image_tokens, tokens - image_tokens)

    def _on_model(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Features of the distinct pictures, one copy for each place that shows one, instead of pixels."""
        inputs = super()._on_model(inputs)
        if "pixel_values" not in inputs:
            return inputs
        places = inputs.pop(_PICTURE_OF_IMAGE)
        features = self._model.encode_images(inputs.pop("pixel_values"))
        repeated = len(places) > len(features[0])
        return {**inputs, "vision_features": [x[places] for x in features] if repeated else features}


class _Distinct:
    """Prepares the pixels of every picture once, and tells which picture each place shows.

    It stands in a processor for its image processor.
    """

    def __init__(self, image_processor: Any) -> None:
        self._image_processor = image_processor

    def __call__(self, images: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
        import torch

        first: dict[int, int] = {}  # of each distinct picture, the place that shows it first
        for place, image in enumerate(images):
            first.setdefault(id(image), place)
        order = {key: number for number, key in enumerate(first)}
        places = torch.tensor([order[id(image)] for image in images], dtype=torch.long)
        prepared = self._image_processor([images[i] for i in first.values()], names=[names[i] for i in first.values()])
        return {
            "pixel_values": prepared["pixel_values"],
            "image_sizes": prepared["image_sizes"][places],
            _PICTURE_OF_IMAGE: places,
        }


def load(argument: str) -> Cambrian:
    """Loads the checkpoint of a run's folder, or a checkpoint folder, onto the accelerator if there is one.

    Raises:
        ModelError: cambrian-model is not installed, or the folder holds something else than a Cambrian checkpoint.
    """
    folder = _checkpoint(argument)
    try:
        import torch

        from cambrian_model import CambrianForConditionalGeneration, CambrianProcessor
    except ImportError as error:
        raise ModelError(
            f"cambrian: {error}; this model needs cambrian-model: pip install 'cambrian-eval[cambrian]'."
        ) from error
    from safetensors import SafetensorError

    try:
        model = CambrianForConditionalGeneration.from_pretrained(folder, dtype="auto").eval()
        processor = CambrianProcessor.from_pretrained(folder)
    except (ValueError, OSError, SafetensorError) as error:  # ValueError: our own errors too
        raise ModelError(f"cambrian: {folder} cannot be loaded: {error}") from error
    return Cambrian(
        model.to(torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")),
        processor,
        folder,
    )


def _checkpoint(argument: str) -> Path:
    """The checkpoint's folder: the one named, or the one in the run that is named."""
    folder = Path(argument)
    if not argument or not folder.is_dir():
        raise ModelError(
            f'cambrian: found no folder "{argument}"; write cambrian:PATH, the folder of a run or of a checkpoint.'
        )
    inside = folder / CHECKPOINT
    if inside.is_dir() and not (folder / "config.json").exists():
        return inside
    if (folder / "recipe.yaml").exists() and not (folder / "config.json").exists():
        raise ModelError(f"cambrian: {folder} is a run without a checkpoint; finish its training first.")
    return folder


def _name(checkpoint: Path) -> str:
    """The run's name if the checkpoint is a run's, however it was named, else the folder's."""
    return checkpoint.parent.name if checkpoint.name == CHECKPOINT else checkpoint.name
