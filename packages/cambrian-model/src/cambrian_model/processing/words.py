"""Token ids by words: most text is words seen before, and a word behind a space becomes the same tokens anywhere.

That holds for a tokenizer of which four things are known, and every other one encodes its texts whole:
  its added tokens are found in the text as it stands, and swallow nothing before them;
  it changes text before that, if at all, by NFC or by writing "▁" for a space, and NFC combines nothing with a space;
  it then cuts text by an expression in which nothing goes from another character on to a space, or it does not cut;
  where it does not cut, no merge makes a token that holds a space behind another character.
So, between two added tokens, nothing reaches across the place between a visible character and a space.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from string import ascii_letters
from typing import Any, NamedTuple, TypeVar

from tokenizers import Tokenizer

# Of GPT-2, Llama 3 and Qwen 2.
_GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CUTS = {_GPT_2, _LLAMA_3, _LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")}
_SPACE = "▁"
_SPELL_SPACE = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
_NORMALIZERS: tuple[Any, ...] = (
    None,
    {"type": "NFC"},
    {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": _SPACE}, _SPELL_SPACE]},
)
_ACROSS = re.compile(rf"[^{_SPACE}]{_SPACE}")
# A space is a cut where a visible character stands before it; letters of all scripts are, other signs only of ASCII.
_CUT = re.compile(r" (?<=[\w!-~] )")  # with the space first it is looked for faster
_MOST_WORDS = 1 << 18  # some 50 MB
_MOST_RECENT, _MOST_JOINTS = 256, 1 << 14
_SHORT = 16  # characters that are remembered as they are, without a look for words

Found = TypeVar("Found")


class _Joint(NamedTuple):
    """What becomes of the beginning of a piece behind a context.

    Attributes:
        num_before: Tokens of the context, if those of both together begin with them, and otherwise None: then the
            piece is encoded by itself.
        first_known: Place in the piece of its first token that is not the unknown one; None without any.
        is_sure: Whether all of this holds for the whole piece, whatever its rest is.
    """

    num_before: int | None
    first_known: int | None
    is_sure: bool


class WordEncoder:
    """Gives exactly the ids of `tokenizer.encode(text, add_special_tokens=False)`, faster where words come again.

    Args:
        tokenizer: What encodes.
        unknown_id: The id that stands for characters without one, or None.

    Attributes:
        is_by_words: Whether the tokenizer is one of which that is known to be the same.
    """

    def __init__(self, tokenizer: Tokenizer, unknown_id: int | None = None) -> None:
        state = json.loads(tokenizer.to_str())
        self._tokenizer, self._unknown_id = tokenizer, unknown_id
        contents = [token["content"] for token in state["added_tokens"]]
        self._added = re.compile(f"({_any_of(contents)})" if contents else "(?!)")
        self._added_ends = frozenset(content[-1:] for content in contents)
        self._reach_across_spaces = any(map(str.isspace, chain.from_iterable(contents)))
        used = frozenset(chain.from_iterable(contents))
        self._anchor = next((letter for letter in ascii_letters if letter not in used), "")
        self.is_by_words = _keeps_words_apart(state) and bool(self._anchor)
        self._recent = lru_cache(_MOST_RECENT)(self._encode)  # the same prompt stands before many answers
        self._whole = _Remembered(self._encode)
        self._words = _Remembered(self._encode_behind_space)
        self._whole_counts = _Remembered(lambda text: len(self._encode(text)))
        self._word_counts = _Remembered(lambda word: len(self._encode_behind_space(word)))
        self._joint = lru_cache(_MOST_JOINTS)(self._find_joint)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what is remembered; it is found again."""
        return {"tokenizer": self._tokenizer, "unknown_id": self._unknown_id}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text."""
        if not self.is_by_words:
            return list(self._recent(text))
        ids: list[int] = []
        for start, words in self._parts(text):
            ids += self._whole[start]
            ids += chain.from_iterable(map(self._words.__getitem__, words))
        return ids

    def encode_after(self, context: str, piece: str) -> list[int]:
        """Returns the ids of a piece as it reads behind a context, as `TextEncoder.encode_after` says."""
        if not context:
            return self.encode(piece)
        end = self.end_of(context)
        before, both = self.encode(end), self.encode(end + piece)
        return both[len(before) :] if both[: len(before)] == before else self.encode(piece)

    def measure_after(self, end: str, piece: str) -> tuple[int, int | None]:
        """Returns how many ids `encode_after` gives behind a context, and the place of the first one that is known.

        Args:
            end: `end_of` the context.
            piece: The text.
        """
        if not self.is_by_words:
            ids = self.encode_after(end, piece)
            return len(ids), self._first_known(ids)
        joint = self._joint(end, self._head_of(piece))
        if not joint.is_sure:
            joint = self._find_joint(end, piece)
        count = self.count(piece) if joint.num_before is None else self.count(end + piece) - joint.num_before
        return count, joint.first_known

    def count(self, text: str) -> int:
        """Returns how many ids a text has."""
        if not self.is_by_words:
            return len(self.encode(text))
        total, find = 0, self._word_counts.__getitem__
        for start, words in self._parts(text):
            total += self._whole_counts[start] + sum(map(find, words))
        return total

    def _head_of(self, text: str) -> str:
        """Returns a shorter text whose ids are the first ones of `text`: its first word, or all of it."""
        if self._reach_across_spaces:
            return text
        cut = text.find(" ", 1)
        return text[:cut] if cut > 0 and _is_visible(text[cut - 1]) else text

    def end_of(self, context: str) -> str:
        """Returns a shorter text behind which any piece has the ids that it has behind `context`."""
        cut = context.rfind(" ")
        before = context[cut - 1 : cut] if cut > 0 else ""
        # An added token of `context` may end there, and some tokenizers begin afresh behind one.
        if not self.is_by_words or self._reach_across_spaces or before in self._added_ends or not _is_visible(before):
            return context
        return self._anchor + context[cut:]

    def _find_joint(self, end: str, head: str) -> _Joint:
        """Finds how a piece with this beginning joins a context; remembered, as the same first words come again."""
        before, both = self.encode(end) if end else [], self.encode(end + head)
        follows = both[: len(before)] == before
        ids = both[len(before) :] if follows else self.encode(head)
        first_known = self._first_known(ids)
        is_sure = len(both) >= len(before) and first_known is not None
        return _Joint(len(before) if follows else None, first_known, is_sure)

    def _first_known(self, ids: Sequence[int]) -> int | None:
        return next((i for i, token in enumerate(ids) if token != self._unknown_id), None)

    def _parts(self, text: str) -> Iterator[tuple[str, list[str]]]:
        """Yields what is encoded as it stands, and the words behind it, each without the space in front of it.

        A part is an added token and what follows it up to the next one.
        """
        pieces = self._added.split(text)
        for i in range(-1, len(pieces), 2):
            start, part = pieces[i] if i > 0 else "", pieces[i + 1]
            if start and len(part) < _SHORT:
                yield start + part, []
            elif start or part:
                words = _cut(part)
                yield start + words.pop(0), words

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _encode_behind_space(self, word: str) -> tuple[int, ...]:
        return self._encode(f"{self._anchor} {word}")[len(self._whole[self._anchor]) :]


class _Remembered(dict[str, Found]):
    """What is known of texts, found when first asked for; begins afresh when there are too many."""

    def __init__(self, find: Callable[[str], Found]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, text: str) -> Found:
        found = self._find(text)
        if len(self) >= _MOST_WORDS:
            self.clear()
        self[text] = found
        return found


def _cut(text: str) -> list[str]:
    """Returns the start of a text and its further words, each without the space in front of it."""
    # Most text needs no expression: then every space is one behind a visible character.
    is_odd = text[:1] == " " or "  " in text or not text.isascii() or _has_space_behind_break(text)
    return _CUT.split(text) if is_odd else text.split(" ")


def _has_space_behind_break(text: str) -> bool:
    # A single character is looked for much faster than two.
    return (
        ("\n" in text and "\n " in text)
        or ("\t" in text and "\t " in text)
        or ("\r" in text and "\r " in text)
        or ("\v" in text and "\v " in text)
        or ("\f" in text and "\f " in text)
    )


def _is_visible(character: str) -> bool:
    """Whether a space behind this character is a cut, as `_CUT` has it."""
    return character.isalnum() or character == "_" or "!" <= character <= "~"


def _any_of(contents: Sequence[str]) -> str:
    """Returns an expression that finds the leftmost of some texts, and there the longest; grouped, which is faster."""
    by_letter: dict[str, list[str]] = {}
    for content in sorted(contents, key=len, reverse=True):
        by_letter.setdefault(content[:1], []).append(content[1:])
    groups = (f"{re.escape(letter)}(?:{'|'.join(map(re.escape, rest))})" for letter, rest in by_letter.items())
    return "|".join(groups)


def _keeps_words_apart(state: dict[str, Any]) -> bool:
    """Whether nothing reaches across a space, see the top of this file."""
    model, cutter = state["model"], state["pre_tokenizer"]
    if model["type"] != "BPE" or model["dropout"] or state["normalizer"] not in _NORMALIZERS:
        return False
    if not all(map(_is_plain, state["added_tokens"])):
        return False
    if _cuts_before_spaces(cutter):
        return True
    is_uncut = cutter is None and state["normalizer"] == _NORMALIZERS[-1]
    is_spelled = cutter is not None and cutter["type"] == "Metaspace" and cutter["replacement"] == _SPACE
    return (
        (is_uncut or is_spelled)
        and not model["ignore_merges"]
        and not (model["continuing_subword_prefix"] or model["end_of_word_suffix"])
        and _SPACE in model["vocab"]
        and not any(_ACROSS.search("".join(merge)) for merge in model["merges"])
    )


def _is_plain(token: dict[str, Any]) -> bool:
    """Whether an added token is found wherever its letters stand, and takes nothing in front of it."""
    return bool(token["content"]) and not (token["normalized"] or token["single_word"] or token["lstrip"])


def _cuts_before_spaces(cutter: dict[str, Any] | None) -> bool:
    """Whether text is cut by one of the known expressions, and then spelled in bytes."""
    if cutter is None:
        return False
    if cutter["type"] == "ByteLevel":
        return cutter["use_regex"] and not cutter["add_prefix_space"]
    if cutter["type"] != "Sequence" or len(cutter["pretokenizers"]) != 2:
        return False
    split, spelled = cutter["pretokenizers"]
    return (
        split["type"] == "Split"
        and split["pattern"].get("Regex") in _CUTS
        and (split["behavior"], split["invert"]) == ("Isolated", False)
        and spelled["type"] == "ByteLevel"
        and not (spelled["use_regex"] or spelled["add_prefix_space"])
    )
