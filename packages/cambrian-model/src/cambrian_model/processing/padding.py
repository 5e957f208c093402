"""Rows of token ids as one batch: filled up on the left, never cut.

Cutting a row would cut a picture or a question, so a row that is too long is an error; what to do with it is decided
where the data is known.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.processing_utils import ImagesKwargs, TextKwargs

from cambrian_model.errors import PromptError

_PADDINGS = (True, False, "longest", "max_length")
# Values of the library's options that ask for what is done here anyway.
_HARMLESS = {"truncation": False, "padding_side": "left", "add_special_tokens": True, "return_attention_mask": True}
# What the library's own processors take beside a template's variables.
LIBRARY_OPTIONS = {*TextKwargs.__annotations__, *ImagesKwargs.__annotations__, "return_assistant_tokens_mask"}


@dataclass(frozen=True)
class Padding:
    """How rows of unequal length become one batch.

    Attributes:
        padding: True or "longest" fills up to the longest row, "max_length" to `max_length`, False does not.
        max_length: Tokens that no row may exceed; None for any number.
        return_tensors: "pt" for tensors, None for lists.
    """

    padding: bool | str = True
    max_length: int | None = None
    return_tensors: str | None = None

    def __post_init__(self) -> None:
        if self.padding not in _PADDINGS:
            raise PromptError(f'padding is "{self.padding}"; known: True, False, "longest", "max_length"')
        if self.padding == "max_length" and self.max_length is None:
            raise PromptError('padding is "max_length" but max_length is missing; give the number of tokens')
        if self.return_tensors not in (None, "pt"):
            raise PromptError(f'return_tensors is "{self.return_tensors}"; known: "pt", None')

    def changed(self, options: Mapping[str, Any]) -> "Padding":
        """Returns these settings with others in their place, given by name as the library's `processor_kwargs` are.

        Raises:
            PromptError: An option is not supported.
        """
        names = [field.name for field in dataclasses.fields(self)]
        refuse_options({name: value for name, value in options.items() if name not in names})
        return dataclasses.replace(self, **{name: options[name] for name in names if name in options})

    def batch(self, rows: Sequence[Sequence[int]], pad_id: int) -> dict[str, Any]:
        """Returns `input_ids` and `attention_mask`.

        Raises:
            PromptError: A row is too long, or rows of unequal length are to be one tensor without padding.
        """
        lengths = [len(row) for row in rows]
        longest = max(lengths, default=0)
        if self.max_length is not None and longest > self.max_length:
            raise PromptError(
                f"prompt {lengths.index(longest)} has {longest} tokens, but max_length is {self.max_length}; nothing "
                "is cut here: raise max_length, or give less text or fewer pictures"
            )
        if not self.padding and self.return_tensors and min(lengths, default=0) != longest:
            raise PromptError(f"prompts of {min(lengths)} to {longest} tokens do not fit one tensor; set padding=True")
        width = self.max_length if self.padding == "max_length" and self.max_length is not None else longest
        gaps = [width - length if self.padding else 0 for length in lengths]
        batch = {
            "input_ids": [[pad_id] * gap + list(row) for gap, row in zip(gaps, rows, strict=True)],
            "attention_mask": [[0] * gap + [1] * length for gap, length in zip(gaps, lengths, strict=True)],
        }
        return {key: _tensor(values) for key, values in batch.items()} if self.return_tensors else batch


def refuse_options(options: Mapping[str, Any]) -> None:
    """Refuses options of the library that would change ids or pixels: none is passed over in silence.

    Raises:
        PromptError: An option is neither None nor what is done here anyway.
    """
    for name, value in options.items():
        if value is not None and not (name in _HARMLESS and value == _HARMLESS[name]):
            raise PromptError(f"{name}={value!r:.40} is not supported; known: padding, max_length, return_tensors")


def _tensor(rows: list[list[int]]) -> Int[Tensor, "batch tokens"]:
    return torch.tensor(rows, dtype=torch.long)
