"""`cambrian:PATH`: a Cambrian model answers, greedily, the prompts of a batch grouped by length and padded on the left.

The only module of this package that imports cambrian_model and torch, and only when a model is loaded; needs the extra
`cambrian-eval[cambrian]`.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cambrian_eval.errors import ModelError
from cambrian_eval.types import Answer, Failure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cambrian_eval.types import Prompt

CHECKPOINT = "checkpoint"  # the trained model inside a run's folder
MIN_FILL = 0.5  # a prompt shorter than this part of the longest one it would be padded to waits for its own kind

_FINGERPRINTED = frozenset({".jinja", ".json", ".model", ".safetensors", ".txt"})


class _Encoded(NamedTuple):
    """One prompt as the model takes it, its place in the batch, and how many tokens the reply may have."""

    place: int
    inputs: Mapping[str, Any]
    budget: int

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return int(self.inputs["input_ids"].shape[1])


class Cambrian:
    """A model and its processor, loaded from one folder.

    Decoding is greedy, so the same prompts in the same batches give the same replies. A prompt that leaves no room for
    a reply in the language model's context gets a Failure.

    Args:
        model: On its device.
        processor: Goes with it.
        folder: Where they are from; its name names the model, its files are its fingerprint.
        fingerprint: Instead, of a model that is still in training and lies in no folder yet.
    """

    def __init__(self, model: Any, processor: Any, folder: Path, fingerprint: str | None = None) -> None:
        self._given_fingerprint = fingerprint
        self.name = f"cambrian:{_name(folder.resolve())}"
        self._model, self._processor, self._folder = model, processor, folder
        self._stop_ids: list[int] = processor.stop_token_ids
        self._context = getattr(model.config.get_text_config(), "max_position_embeddings", None)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights and of the configuration, processor and tokenizer files; precision and kind of device."""
        if self._given_fingerprint is not None:
            return self._given_fingerprint
        digest = hashlib.sha256()
        for path in sorted(self._folder.iterdir()):
            if path.suffix in _FINGERPRINTED and path.is_file():
                with path.open("rb") as file:
                    digest.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return f"cambrian:{digest.hexdigest()}:{self._model.dtype}:{self._model.device.type}"

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer | Failure]:
        """One reply for each prompt, in order.

        Raises:
            ModelError: The model's chat template refuses a prompt.
            DataError: A picture cannot be decoded.
        """
        answers: dict[int, Answer | Failure] = {}
        encoded = [self._encode(place, prompt) for place, prompt in enumerate(prompts)]
        for bucket in _buckets([one for one in encoded if one.budget > 0]):
            answers.update(zip((one.place for one in bucket), self._generate(bucket), strict=True))
        for one in encoded:
            if one.place not in answers:
                reason = f"the prompt has {one.length} tokens; the language model's context holds {self._context}"
                answers[one.place] = Failure(reason)
        return [answers[place] for place in range(len(prompts))]

    def _encode(self, place: int, prompt: Prompt) -> _Encoded:
        from cambrian_model.errors import CambrianModelError

        try:
            inputs = self._processor.apply_chat_template(
                prompt.messages(), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
        except CambrianModelError as error:
            raise ModelError(f"{self.name}: question {prompt.id}: {error}") from error
        length = inputs["input_ids"].shape[1]
        room = prompt.max_new_tokens if self._context is None else self._context - length
        return _Encoded(place, inputs, min(prompt.max_new_tokens, room))

    def _generate(self, bucket: Sequence[_Encoded]) -> Iterator[Answer]:
        import torch

        batch = _pad_left([one.inputs for one in bucket], self._model.device, self._model.dtype)
        with torch.inference_mode():
            tokens = self._model.generate(
                **batch,
                max_new_tokens=bucket[0].budget,
                do_sample=False,
                num_beams=1,
                eos_token_id=self._stop_ids,
                pad_token_id=self._stop_ids[0],
            )
        for reply in tokens[:, batch["input_ids"].shape[1] :].tolist():
            end = next((place for place, token in enumerate(reply) if token in self._stop_ids), None)
            yield Answer(self._processor.decode(reply[:end], skip_special_tokens=True).strip(), truncated=end is None)


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


def _buckets(encoded: Sequence[_Encoded]) -> Iterator[list[_Encoded]]:
    """Prompts that can be padded together without much waste, longest first; the same prompts give the same buckets."""
    bucket: list[_Encoded] = []
    for one in sorted(encoded, key=lambda one: (-one.budget, -one.length)):
        if bucket and (one.budget != bucket[0].budget or one.length < MIN_FILL * bucket[0].length):
            yield bucket
            bucket = []
        bucket.append(one)
    if bucket:
        yield bucket


def _pad_left(rows: Sequence[Mapping[str, Any]], device: Any, dtype: Any) -> dict[str, Any]:
    """One batch of several prompts: ids and masks filled up on the left, pictures end to end in the model's dtype."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    batch: dict[str, Any] = {
        key: pad_sequence([row[key][0] for row in rows], batch_first=True, padding_side="left").to(device)
        for key in ("input_ids", "attention_mask")
    }
    seen = [row for row in rows if "pixel_values" in row]
    if seen:
        per_encoder = zip(*(row["pixel_values"] for row in seen), strict=True)
        batch["pixel_values"] = [torch.cat(pixels).to(device, dtype) for pixels in per_encoder]
        batch["image_sizes"] = torch.cat([row["image_sizes"] for row in seen]).to(device)
    return batch
