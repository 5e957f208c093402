r"""Takes off what surrounds an answer: thinking, answer tags, `\boxed{}`, markup, special tokens, typography.

`unwrap` is for answers that are letters, words or numbers, `unwrap_text` for those whose every character counts, and
`unwrap_transcript` for copied pages, in which a box or bold letters belong to the page.
"""

from __future__ import annotations

import re
import unicodedata

from cambrian_eval.scoring.abstention import AbstainError

_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))
_TYPOGRAPHY = {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": " - "}
_PLAIN = _INVISIBLE | str.maketrans(_TYPOGRAPHY)
_SPACES = re.compile(r"[^\S\n]+")
# Thinking as DeepSeek and Qwen, Kimi, Magistral, and LLaVA-o1 mark it; boxes as GLM marks them.
_THOUGHT_END = re.compile(
    r"</think(?:ing)?>|\u25c1/think\u25b7|\[/THINK\]|<\|end_of_thought\|>|</reasoning>", re.IGNORECASE
)
_THOUGHT_START = re.compile(
    r"<think(?:ing)?>|\u25c1think\u25b7|\[THINK\]|<\|begin_of_thought\|>|<reasoning>", re.IGNORECASE
)
_ANSWER_TAG = re.compile(
    r"(?:<answer>|<conclusion>|<\|begin_of_box\|>)(.*?)(?:</answer>|</conclusion>|<\|end_of_box\|>|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_ALTERNATIVES = re.compile(
    r"(?:\}|</answer>)\$?[^\n\\{}<]{0,40}?\b(?:or|and)\b[^\n\\{}<]{0,40}?(?:\\boxed|<answer>)", re.IGNORECASE
)
_SPECIAL_TOKEN = re.compile(r"</?s>|<\|[^|<>]{1,40}\|>|<(?:eos|end_of_turn|pad)>", re.IGNORECASE)
_TEX_STYLE = re.compile(r"\\(?:text|textbf|textit|mathbf|mathrm|mathit|bf|rm)\s*\{([^{}]*)\}")
_MARKUP = re.compile(
    r"[*`$]|^[ \t]*(?:#{1,6}|>)[ \t]+|(?<!\w)_{1,2}(?=\w)|(?<=\w)_{1,2}(?!\w)|\\[()\[\]]", re.MULTILINE
)


_EXPONENT = re.compile(r"(?<=\d)([\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+)")
_FRACTION_SIGN = re.compile(r"(?<=\d)(?=[\u00bc-\u00be\u2150-\u215e])")
_TEX_ESCAPE = re.compile(r"\\([$%&#_])")
_EMPHASIS = re.compile(
    r"\*\*([^*\n]{1,400})\*\*|(?<!\w)__([^_\n]{1,400})__(?!\w)|`([^`\n]{1,400})`"
    r"|(?<![\w*])\*([^*\s][^*\n]{0,400})\*(?![\w*])"
)
_FENCE = re.compile(r"^[ \t]*```[\w-]*[ \t]*$\n?", re.MULTILINE)
_HEADING = re.compile(r"^[ \t]*#{1,6}[ \t]+(?=[^\W\d_])", re.MULTILINE)
_FORMULA_MARKS = re.compile(r"(?<!\\)\\[()\[\]]")
_FORMULA = re.compile(r"\s*\$\$?([^$]+)\$\$?\s*\.?\s*")


def unwrap(reply: str) -> str:
    """The part of a reply that can hold its answer, in plain characters.

    Raises:
        AbstainError: Nothing is left, or the reply ended while it was still thinking.
    """
    text = _boxed(_answer_part(reply, several="two letters"))
    return _not_empty(_SPACES.sub(" ", _MARKUP.sub("", _TEX_STYLE.sub(r"\1", text))))


def unwrap_text(reply: str) -> str:
    """The part of a reply that can hold its answer, with its punctuation and currency signs.

    Raises:
        AbstainError: Nothing is left, the reply ended while it was still thinking or in the middle of a box, or it
            boxes two answers.
    """
    text = _answer_part(reply, several="two answers")
    start = text.rfind(_BOX)
    if start >= 0 and _box_end(text, start) is None:
        raise AbstainError("cut off")
    if start >= 0:
        text = _TEX_ESCAPE.sub(r"\1", _boxed(text))
    text = _TEX_STYLE.sub(r"\1", text)
    text = _HEADING.sub("", _EMPHASIS.sub(lambda match: match[match.lastindex or 0], _FENCE.sub("", text)))
    text = _FORMULA_MARKS.sub("", text)
    formula = _FORMULA.fullmatch(text)
    text = formula[1] if formula else text
    return _not_empty(_SPACES.sub(" ", text))


def unwrap_transcript(reply: str) -> str:
    """A reply without thinking, answer tags, special tokens and the fence around a block of code.

    Raises:
        AbstainError: Nothing is left, or the reply ended while it was still thinking.
    """
    return _not_empty(_FENCE.sub("", _answer_part(reply, several="two answers")))


def without_blank_lines(text: str) -> str:
    """Text without empty lines and without spaces around lines.

    After `unwrap` or `unwrap_text` no two white characters stand in a row in it, and a pattern with "any white space"
    cannot lose its time in a long gap.
    """
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def plain_characters(text: str) -> str:
    """Text in composed, half-width characters, straight quotes and visible characters only."""
    apart = _FRACTION_SIGN.sub(" ", _EXPONENT.sub(r"^\1", text))  # "12²" is not 122, nor "1½" 11/2
    return unicodedata.normalize("NFKC", apart).translate(_PLAIN)


def _answer_part(reply: str, *, several: str) -> str:
    text = _after_thinking(plain_characters(reply))
    if _ALTERNATIVES.search(text):
        raise AbstainError(several)
    tagged = _ANSWER_TAG.findall(text)
    return _SPECIAL_TOKEN.sub(" ", tagged[-1] if tagged else text)


def _not_empty(text: str) -> str:
    if not text.strip():
        raise AbstainError("empty reply")
    return text.strip()


def _after_thinking(text: str) -> str:
    ends = [match.end() for match in _THOUGHT_END.finditer(text)]
    text = text[ends[-1] :] if ends else text
    if _THOUGHT_START.search(text):
        raise AbstainError("unfinished reasoning")
    return text


_BOX = "\\boxed{"


def _boxed(text: str) -> str:
    start = text.rfind(_BOX)
    return text if start < 0 else text[start + len(_BOX) : _box_end(text, start)]


def _box_end(text: str, start: int) -> int | None:
    """Where the box that opens at `start` is closed; None if it never is."""
    depth = 1
    for at in range(start + len(_BOX), len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return at
    return None
