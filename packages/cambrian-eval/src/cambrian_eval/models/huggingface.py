"""`huggingface:PATH_OR_ID`: any model that transformers has as `AutoModelForImageTextToText`, and its processor.

Weights come from safetensors, and no code is taken from the hub. `ID@REVISION` pins a commit, tag or branch; with
`HF_HUB_OFFLINE=1` only what is in the cache is looked at. Torch is imported when a model is loaded; needs the extra
`cambrian-eval[transformers]`.
"""

from __future__ import annotations

import inspect
import json
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cambrian_eval.errors import ModelError
from cambrian_eval.models.base import Length
from cambrian_eval.models.fingerprints import hash_folder
from cambrian_eval.models.local import LocalModel, end_ids, num_image_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cambrian_eval.types import Prompt

# Everything a checkpoint needs, and neither pickles nor code.
FILES = ["*.json", "*.jinja", "*.model", "*.safetensors", "*.tiktoken", "*.txt"]

# By which processors refuse a prompt: a picture too long and thin, a prompt without pictures, a template that insists.
_REFUSALS = (ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError)


class HuggingFace(LocalModel):
    """A model and its processor from one folder.

    Args:
        name: What reports call it.
        model: On its device.
        processor: Goes with it.
        folder: Where they are from; its files are the fingerprint.
    """

    def __init__(self, name: str, model: Any, processor: Any, folder: Path) -> None:
        from jinja2 import TemplateError

        tokenizer = processor.tokenizer
        tokenizer.padding_side = "left"  # replies begin where the prompts end
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        super().__init__(
            name,
            model,
            processor,
            stop_ids=end_ids(model) or ([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]),
            image_token_id=_image_token_id(model.config, processor),
            refusals=(*_REFUSALS, TemplateError),
        )
        self._folder = folder
        self._tells_lengths = _tells_lengths(processor)
        self._control_tokens = _any_of(tokenizer.added_tokens_encoder) if _can_mark(processor) else None
        self._takes = frozenset(inspect.signature(model.forward).parameters)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights and of the configuration, processor and tokenizer files; precision and kind of device."""
        return f"huggingface:{hash_folder(self._folder)}:{self._model.dtype}:{self._model.device.type}"

    def _groups(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        # Many processors take pictures for all prompts of a batch or for none; marked texts are encoded another way.
        groups: dict[tuple[bool, bool], list[int]] = {}
        for row, prompt in enumerate(prompts):
            groups.setdefault((bool(prompt.pictures), self._holds_control_tokens(prompt)), []).append(row)
        return list(groups.values())

    def _holds_control_tokens(self, prompt: Prompt) -> bool:
        return self._control_tokens is not None and self._control_tokens.search(prompt.text) is not None

    def _encode(self, messages: Sequence[Any]) -> dict[str, Any]:
        inputs = self._encode_base(messages) if self._processor.chat_template is None else self._encode_chats(messages)
        # Generic tokenizers make token types that their language model has no use for, and PaliGemma's makes labels.
        unused = {"labels"} | {"token_type_ids"} - self._takes
        return {key: value for key, value in inputs.items() if key not in unused}

    def _encode_chats(self, messages: Sequence[Any]) -> Mapping[str, Any]:
        texts = (part["text"] for turns in messages for part in turns[0]["content"] if part["type"] == "text")
        marked = self._control_tokens is not None and any(map(self._control_tokens.search, texts))
        return self._processor.apply_chat_template(
            list(messages),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
            # What a question writes is text, even if it looks like a token of the template's. Asked for only where it
            # does, for not every tokenizer can do it, and those that cannot refuse the prompt.
            **({"sanitize_control_tokens": True} if marked else {}),
        )

    def _encode_base(self, messages: Sequence[Any]) -> Mapping[str, Any]:
        images = [_images(turns) for turns in messages]
        return self._processor(
            text=[self._render(turns) for turns in messages],
            images=images if any(images) else None,
            padding=True,
            return_tensors="pt",
        )

    def _render(self, turns: Sequence[Any]) -> str:
        if self._processor.chat_template is not None:
            return self._processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        # A model without a template, such as one that was not tuned: its pictures and texts as they come.
        mark = self._processor.image_token
        return "".join(part["text"] if part["type"] == "text" else mark for part in turns[0]["content"])

    def _measure(self, prompt: Prompt, sizes: Sequence[tuple[int, int]]) -> Length:
        if not self._tells_lengths:
            return self._measure_whole(prompt)
        content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in prompt.content]
        text = self._render([{"role": "user", "content": content}])
        marks = len(sizes)  # a token each, which those of the picture take the place of
        tokens = len(self._reader(text, add_special_tokens=False).input_ids) - marks
        return Length(num_image_tokens(self._processor, sizes), tokens)

    def _count_image_tokens(self, messages: Sequence[Any], inputs: dict[str, Any]) -> Sequence[int | None]:
        if not self._tells_lengths:
            return super()._count_image_tokens(messages, inputs)
        # With the markers between tiles and rows, which only the processor knows.
        sizes = [[(image.height, image.width) for image in _images(turns)] for turns in messages]
        return [num_image_tokens(self._processor, of_row) for of_row in sizes]

    def _measure_whole(self, prompt: Prompt) -> Length:
        """What the prompt costs by preparing it, where the processor does not tell it from sizes."""
        prepared = self.prepare([prompt])
        if prepared.failures:
            raise ValueError(prepared.failures[0].reason)
        (batch,) = prepared.batches
        image_tokens = batch.image_tokens[0] or 0
        return Length(image_tokens, int(batch.inputs["attention_mask"].sum()) - image_tokens)


def load(argument: str) -> HuggingFace:
    """Loads a checkpoint's folder, or a model of the hub, onto the accelerator if there is one.

    Raises:
        ModelError: Torch or transformers is not installed, there is no such model, or it is not one that turns images
            and texts into text.
    """
    try:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor
    except ImportError as error:
        raise ModelError(
            f"huggingface: {error}; this model needs transformers: pip install 'cambrian-eval[transformers]'."
        ) from error
    from safetensors import SafetensorError

    folder, name = _locate(argument)
    _check_configuration(folder, name)
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            folder, dtype="auto", use_safetensors=True, trust_remote_code=False
        ).eval()
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError, KeyError, ImportError, SafetensorError) as error:
        raise ModelError(f"huggingface: {name} cannot be loaded: {' '.join(str(error).split())}") from error
    if getattr(processor, "tokenizer", None) is None:
        raise ModelError(
            f"huggingface: {name} has a {type(processor).__name__}, expected a processor for pictures and texts; "
            "its preprocessor_config.json is missing, or it is no model for pictures."
        )
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    return HuggingFace(f"huggingface:{name}", model.to(device), processor, folder)


def _locate(argument: str) -> tuple[Path, str]:
    """Folder and name of a model: a folder as it is, or a snapshot of the hub."""
    if not argument:
        raise ModelError("huggingface: found no model; write huggingface:PATH or huggingface:ORGANISATION/NAME.")
    if Path(argument).is_dir():
        return Path(argument), Path(argument).resolve().name
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    hub_id, _, revision = argument.partition("@")
    try:
        folder = snapshot_download(hub_id, revision=revision or None, allow_patterns=FILES)
    except HFValidationError as error:
        raise ModelError(
            f'huggingface: found no folder "{argument}", and it is no name of the hub; write ORGANISATION/NAME.'
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f'huggingface: found no folder "{argument}", and the hub does not give it: {" ".join(str(error).split())}'
        ) from error
    return Path(folder), argument


def _check_configuration(folder: Path, name: str) -> None:
    """Refuses, in a word, what could only be loaded by other means."""
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"huggingface: {folder} has no config.json; give the folder of a checkpoint.")
    configuration = json.loads(path.read_text(encoding="utf-8"))
    from transformers import CONFIG_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    kind = configuration.get("model_type")
    if kind in CONFIG_MAPPING:
        if CONFIG_MAPPING[kind] in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            return
        raise ModelError(
            f'huggingface: {name} is of type "{kind}", which takes no pictures and texts together; expected a model '
            "that transformers loads as AutoModelForImageTextToText."
        )
    if kind == "cambrian":
        raise ModelError(f"huggingface: {name} is a Cambrian checkpoint; write cambrian:PATH.")
    if "auto_map" in configuration:
        raise ModelError(
            f'huggingface: {name} is of type "{kind}", which transformers knows only through code from the hub; such '
            "code is not run. Serve the model yourself and write openai:URL#MODEL."
        )


def _can_mark(processor: Any) -> bool:
    """Whether the processor can be asked to take control tokens in a question as text; ours does so by itself."""
    return "sanitize_control_tokens" in inspect.signature(processor.apply_chat_template).parameters


def _any_of(tokens: Iterable[str]) -> re.Pattern[str] | None:
    """A pattern that finds any of the tokens; white space is ordinary text."""
    shown = [re.escape(token) for token in tokens if not token.isspace()]
    return re.compile("|".join(shown)) if shown else None


def _images(turns: Sequence[Any]) -> list[Any]:
    return [part["image"] for part in turns[0]["content"] if part["type"] == "image"]


def _tells_lengths(processor: Any) -> bool:
    """Whether the processor knows what a picture costs from its size."""
    try:
        return num_image_tokens(processor, [(48, 64)]) > 0
    except _REFUSALS:
        return False


def _image_token_id(config: Any, processor: Any) -> int | None:
    places = ((config, "image_token_id"), (config, "image_token_index"), (processor, "image_token_id"))
    return next((found for place, key in places if (found := getattr(place, key, None)) is not None), None)
