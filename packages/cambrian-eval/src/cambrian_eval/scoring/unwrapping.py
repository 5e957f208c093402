r"""Takes off what surrounds an answer: thinking, answer tags, `\boxed{}`, markup, special tokens, typography."""

from __future__ import annotations

import re
import unicodedata

from cambrian_eval.scoring.abstention import AbstainError

_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))
_TYPOGRAPHY = {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": " - "}
_PLAIN = _INVISIBLE | str.maketrans(_TYPOGRAPHY)
_SPACES = re.compile(r"[^\S\n]+")
_THOUGHT_END = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_THOUGHT_START = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_ANSWER_TAG = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.IGNORECASE | re.DOTALL)
_ALTERNATIVES = re.compile(r"(?:\}|</answer>)\$?\s*(?:or|and)\s*\$?(?:\\boxed|<answer>)", re.IGNORECASE)
_SPECIAL_TOKEN = re.compile(r"</?s>|<\|[^|<>]{1,40}\|>|<(?:eos|end_of_turn|pad)>", re.IGNORECASE)
_TEX_STYLE = re.compile(r"\\(?:text|textbf|textit|mathbf|mathrm|mathit|bf|rm)\s*\{([^{}]*)\}")
_MARKUP = re.compile(
    r"[*`$]|^[ \t]*(?:#{1,6}|>)[ \t]+|(?<!\w)_{1,2}(?=\w)|(?<=\w)_{1,2}(?!\w)|\\[()\[\]]", re.MULTILINE
)


def unwrap(reply: str) -> str:
    """The part of a reply that can hold its answer, in plain characters.

    Raises:
        AbstainError: Nothing is left, or the reply ended while it was still thinking.
    """
    text = unicodedata.normalize("NFKC", reply).translate(_PLAIN)
    text = _after_thinking(text)
    if _ALTERNATIVES.search(text):
        raise AbstainError("two letters")
    tagged = _ANSWER_TAG.findall(text)
    text = tagged[-1] if tagged else text
    text = _boxed(_SPECIAL_TOKEN.sub(" ", text))
    text = _SPACES.sub(" ", _MARKUP.sub("", _TEX_STYLE.sub(r"\1", text))).strip()
    if not text:
        raise AbstainError("empty reply")
    return text


def _after_thinking(text: str) -> str:
    ends = [match.end() for match in _THOUGHT_END.finditer(text)]
    text = text[ends[-1] :] if ends else text
    if _THOUGHT_START.search(text):
        raise AbstainError("unfinished reasoning")
    return text


def _boxed(text: str) -> str:
    opening = "\\boxed{"
    start = text.rfind(opening)
    if start < 0:
        return text
    depth, begin = 1, start + len(opening)
    for at in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[begin:at]
    return text[begin:]
