"""Text to token ids, so that training and inference always agree.

Text is cut at every picture and wherever the assistant begins or ends to write, and no token crosses a cut. A
conversation up to an answer is cut at the same places as the whole one, so its tokens are an exact prefix of the
whole one's: by construction, for every tokenizer and template.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from cambrian_model.config import IMAGE_TOKEN
from cambrian_model.errors import PromptError
from cambrian_model.processing.messages import ESCAPE, restore
from cambrian_model.processing.outline import Piece
from cambrian_model.processing.words import WordEncoder

_MARK = re.compile(re.escape(IMAGE_TOKEN))
_MARKS = re.compile(f"({_MARK.pattern})")
_MOST_PROMPTS = 1024

Stretch = tuple[int, int | None, bool]
"""A segment in numbers: its tokens, the place of the first one that is trained on, and whether it is a picture's."""


class Segment(NamedTuple):
    """A stretch of tokens between two cuts; a picture's has no ids yet, as their number depends on its size."""

    ids: list[int]
    supervised: bool = False
    is_image: bool = False


class TextEncoder:
    """Encodes text with a private copy of a tokenizer in which `<image>` is ordinary text.

    So the letters "<image>" in a message never become an image token. Copies of an encoder share it: it never changes.

    Attributes:
        joint: What goes between a picture and its text: a line break, or a space if the tokenizer cannot spell that.

    Raises:
        PromptError: The tokenizer does not come from the `tokenizers` library.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise PromptError(f"{type(tokenizer).__name__} is a slow tokenizer; load its fast version (tokenizer.json)")
        self._backend = _without_image_token(backend)
        self._bos_token = tokenizer.bos_token
        # An unknown token that is also the end of a sequence (GPT-2, CLIP) says nothing about spelling.
        self._unknown_id = None if tokenizer.unk_token == tokenizer.eos_token else tokenizer.unk_token_id
        self._words = WordEncoder(self._backend, self._unknown_id)
        self._prompt = lru_cache(_MOST_PROMPTS)(self._measure_prompt)  # one prompt stands before many answers
        self._opening_ids = self._find_opening_ids()
        self.joint = " " if self.unspellable("\n") else "\n"

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what is remembered; it is found again."""
        return {name: value for name, value in self.__dict__.items() if name != "_prompt"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prompt = lru_cache(_MOST_PROMPTS)(self._measure_prompt)

    def __deepcopy__(self, memo: dict[int, Any]) -> "TextEncoder":
        return self

    def encode(self, text: str, supervised: Sequence[tuple[int, int]] = ()) -> list[Segment]:
        """Encodes text in which every `<image>` stands for a picture, cut at those and at the `supervised` spans.

        The tokens that the tokenizer puts in front of any text (usually one) come first, unless the text already
        begins with its begin-of-sequence token.
        """
        has_bos = self._bos_token is not None and text.startswith(self._bos_token)
        segments = [Segment(self._opening_ids)] if self._opening_ids and not has_bos else []
        context = ""
        for piece, is_supervised in _cut(text, supervised):
            if piece == IMAGE_TOKEN:
                segments.append(Segment([], is_image=True))
                context = ""
            else:
                piece = restore(piece)
                segments.append(Segment(self.encode_after(context, piece), is_supervised))
                context = piece
        return segments

    def measure(self, pieces: Iterable[Piece]) -> list[Stretch]:
        """Returns in numbers what `encode` makes of text that is already cut where the assistant begins and ends."""
        stretches: list[Stretch] = []
        end, is_start = "", True
        for text, is_supervised in pieces:
            if is_start and not (self._bos_token is not None and text.startswith(self._bos_token)):
                stretches.append((len(self._opening_ids), None, False))
            is_start = False
            found, end = self._measure(end, text) if is_supervised else self._prompt(end, text)
            stretches += found
        return stretches

    def encode_after(self, context: str, piece: str) -> list[int]:
        """Encodes `piece` as it reads after `context`: by itself it may get a space in front (SentencePiece)."""
        return self._words.encode_after(context, piece)

    def is_unknown(self, token_id: int) -> bool:
        """Whether this id stands for characters that the tokenizer cannot spell."""
        return token_id == self._unknown_id

    def unspellable(self, text: str) -> str:
        """Returns the characters of `text` that the tokenizer does not know."""
        return "".join(char for char in dict.fromkeys(text) if self._unknown_id in self._ids(char))

    def _measure(self, end: str, text: str) -> tuple[list[Stretch], str]:
        """Measures a text behind a context of this end; returns the end of both, too."""
        stretches: list[Stretch] = []
        for piece in _MARKS.split(text) if IMAGE_TOKEN in text else [text]:
            if piece == IMAGE_TOKEN:
                stretches.append((0, None, True))
                end = ""
            elif piece:
                piece = restore(piece)
                num_tokens, first_known = self._words.measure_after(end, piece)
                stretches.append((num_tokens, first_known, False))
                end = self._words.end_of(piece)
        return stretches, end

    def _measure_prompt(self, end: str, text: str) -> tuple[list[Stretch], str]:
        stretches, end = self._measure(end, text)
        return [(num_tokens, None, is_image) for num_tokens, _, is_image in stretches], end

    def _ids(self, text: str) -> list[int]:
        return self._words.encode(text)

    def _find_opening_ids(self) -> list[int]:
        bare, full = self._ids("a"), self._backend.encode("a", add_special_tokens=True).ids
        starts = (i for i in range(len(full) - len(bare) + 1) if full[i : i + len(bare)] == bare)
        return full[: next(starts, 0)]


def _cut(text: str, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[str, bool]]:
    edges = {0, len(text), *(edge for span in spans for edge in span)}
    edges.update(edge for mark in _MARK.finditer(text) for edge in mark.span())
    for start, end in pairwise(sorted(edges)):
        yield text[start:end], any(first <= start and end <= last for first, last in spans)


def _without_image_token(backend: Tokenizer) -> Tokenizer:
    """Copies a tokenizer; `<image>` is renamed and not removed there, so that no other token changes its id."""
    state = json.loads(backend.to_str())
    for token in state["added_tokens"]:
        if token["content"] == IMAGE_TOKEN:
            token["content"] = ESCAPE
    copy = Tokenizer.from_str(json.dumps(state))
    copy.no_truncation()
    copy.no_padding()
    return copy
