"""A letter at the beginning of a text, and whether what follows lets it stand as an answer.

"B", "(B) left" and "B because" do; "A bus" and "(A) is far" do not; "A or B" is a reason to abstain.
"""

from __future__ import annotations

import re
from string import ascii_uppercase
from typing import TYPE_CHECKING

from cambrian_eval.scoring.abstention import AbstainError
from cambrian_eval.scoring.option_text import after_option, equal_option, takes_article

if TYPE_CHECKING:
    from collections.abc import Sequence

NO_WORD = r"(?![A-Za-z0-9_'])"
_OPENING = re.compile(
    r"[\s:=,\"'(\[{<-]*+"
    r"(?:(?:probably|likely|most\s+likely|definitely|clearly|indeed|actually|simply|therefore|thus)\s+)?"
    r"(?:(?:the\s+)?(?:(?:correct|right|best)\s+)?(?:option|choice|letter|answer)\b)?"
    rf"[\s:\"'(\[{{<]*+((?-i:[A-Za-z])){NO_WORD}",
    re.IGNORECASE,
)
_CLOSING = re.compile(r"\s?[)\]}>\"']+")
_OTHER_LETTER = re.compile(
    r"\s*+(?:[,/&|;、+-]|\b(?:or|and|nor)\b|[或和与]|(?<=\s))"
    r"\s*+(?:(?:also|maybe|perhaps|possibly|either|option|choice)\s+)*"
    rf"[(\[\"']?([A-Z]){NO_WORD}(?!\s+[a-z])"
)
_ALTERNATIVE = re.compile(r"\s*(?:[,/&|;]\s*)?(?:or|and|nor|as\s+well\s+as)\b|\s*[/&|、或和与]", re.IGNORECASE)
_DENIED = re.compile(
    r"\s*+[.:,;-]*+\s*+(?:is\s+|are\s+)?(?:(?:definitely|clearly)\s+)?(?:not|incorrect|wrong|false|isn't)\b"
    r"(?!\s+\(?[A-Z]\b)"
    r"|\s*(?:选项)?[是也都并显然肯定可能好像似乎]{0,6}(?:[不非错吗么]|也许)|\s*是",
    re.IGNORECASE,
)
_BETWEEN = " \t.:,;)-(\"'"
_LONGEST_LABEL = 2_400
_LABEL_MARKS = (".", ")", ":", ").", "):", ".)")
_ARTICLE_SPACE = re.compile(r"[ \t]+\w")
# "B. dog is incorrect", "B: dog (wrong)", "(B) dog - no", "A. cat cannot be seen"; but not "B. dog, not a cat".
_TEXT_DENIED = re.compile(
    r"""
      [\s)]* (?: (?:is|are|was|were|can|could|would|does|do|has|have) \s* (?:(?:definitely|clearly|also|be)\s+)*
          (?: not\b | n't\b | incorrect\b | wrong\b | false\b | ruled\s+out | excluded | eliminated )
        | cannot\b | can't\b )
    | [\s(:,;.\u2013\u2014-]{0,4} (?:(?:it|that|this) (?:'s|\s+is) \s+)?
      (?: not\s+(?:correct|right|true|it|this)\b | incorrect\b | wrong\b | false\b | no\s*(?:[).!]|$) )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_OTHER_TEXT = re.compile(r"[\s,;]*(?:or\b|(?:and|nor)\s+\(?[A-Z]\b(?!'))")
# What lets "A cat" be a label and its option: the text ends, or a reason follows. In "A cat and a dog" it does neither.
_LABEL_END = re.compile(r"\s*(?:[.!]?\s*\Z|[,;]?\s*(?:because|since|as|due\s+to)\b|\n)", re.IGNORECASE)
_REASON = re.compile(
    r"\s+(?:because|since|as|due|given|based|which|where|here|so|for\s+the\s+(?:following\s+)?reasons?)\b",
    re.IGNORECASE,
)
_STOP = re.compile(r"\s*\n|\s*[.,:;!](?=[\s)\]}>\"'.,:;!\u4e00-\u9fff]|$)|\s+-\s|\s*。|\s*$|\s*\(")
# "A:" may be the speaker of a transcript: "A: Sorry, I cannot see it."
_REFUSAL = re.compile(
    r"""
    :\s* (?: sorry | unfortunately | as\s+an\s+ai
        | i(?:'m|\s+am)? \s+
          (?: sorry | cannot | can't | can\s+not | unable | not\s+(?:able|sure) | don't | do\s+not )
        | (?: the\s+(?:image|picture) | it ) \s+
          (?: is\s+not | isn't | cannot | can't | does\s+not | doesn't )
    )\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_CHINESE = re.compile(r"\s*[\u4e00-\u9fff]")


_LABEL = re.compile(r"\W*([A-Z])(?:\)[.:]?|[.:]\)?)\s*(?P<text>\S.*?)\W*", re.DOTALL)


def read_label(text: str, choices: Sequence[str]) -> str | None:
    """The letter of a text that is a label and its own option, all of it: "B. C" where C is the text of option B."""
    match = _LABEL.fullmatch(text) if len(text) <= _LONGEST_LABEL else None
    if match is None or match[1] not in ascii_uppercase[: len(choices)]:
        return None
    behind = after_option(match["text"], choices[ascii_uppercase.index(match[1])])
    return match[1] if behind is not None and not behind.strip() else None


def read_letter(text: str, choices: Sequence[str]) -> str | None:
    """The letter that `text` begins with and means as its answer; None if it begins with something else.

    Raises:
        AbstainError: It is one of several letters, or stands beside another option's text.
    """
    match = _OPENING.match(text)
    if match is None:
        return None
    written = match[1]
    letter, after = written.upper(), text[match.end() :]
    opened = text[: match.start(1)].endswith(("(", "[", "{", "<", '"', "'"))
    closing = _CLOSING.match(after)
    rest = after[closing.end() :] if closing else after
    behind = _behind_own_text(letter, rest, choices, closed=closing is not None)
    if behind is not None:
        article = letter == "A" and not closing and not opened and _ARTICLE_SPACE.match(rest)
        return letter if _keeps(behind, choices, letter, article=bool(article)) else None
    if rest.lstrip().startswith("?") or _DENIED.match(rest) or _REFUSAL.match(rest):
        return None
    other = _OTHER_LETTER.match(rest)
    if other and other[1] != letter:
        raise AbstainError("two letters")
    if _ALTERNATIVE.match(rest) and not other:
        return None
    if not closing and not opened and written.islower() and not _STOP.match(rest):
        return None
    return letter if _ends_or_explains(rest, letter, choices, closed=closing is not None) else None


def _behind_own_text(letter: str, rest: str, choices: Sequence[str], *, closed: bool) -> str | None:
    """What follows the text of the letter's own option, in "B. dog, because ..."; None where that text does not follow.

    A text that is a letter itself is told from a second answer by the mark between them: "B. C", but not "B, C".
    """
    own = ascii_uppercase.index(letter)
    following = rest.lstrip(_BETWEEN)
    if own >= len(choices):
        return None
    behind = after_option(following, choices[own])
    between = rest[: len(rest) - len(following)].strip()
    if behind is not None and len(choices[own].strip()) == 1 and choices[own].strip().isalpha():
        return behind if (closed or between in _LABEL_MARKS) and not behind.strip(" .\n") else None
    return behind


def _keeps(behind: str, choices: Sequence[str], letter: str, *, article: bool) -> bool:
    """Whether a letter with its option's text stands, given what follows: not "B. dog is wrong", nor "A cat and a dog".

    Args:
        behind: What follows the text.
        choices: The option texts.
        letter: The letter.
        article: Whether it is "A" with only a space behind, which may begin a sentence about its option instead.

    Raises:
        AbstainError: Another answer follows: "(A) cat or (B) dog".
    """
    if _OTHER_TEXT.match(behind):
        raise AbstainError("two letters")
    if behind.lstrip(" .)").startswith("?") or _TEXT_DENIED.match(behind):
        return False
    if not article or not takes_article(choices[ascii_uppercase.index(letter)]):
        return True
    return bool(_LABEL_END.match(behind))


def _ends_or_explains(rest: str, letter: str, choices: Sequence[str], *, closed: bool) -> bool:
    """Whether what follows a letter lets it stand as the answer.

    Raises:
        AbstainError: What follows is another option's text.
    """
    following = rest.lstrip(_BETWEEN)
    clause = re.split(r"[,;\n)]|\.(?!\d)|\b(?:because|since|as)\b", following, maxsplit=1)[0]
    spelled = equal_option(clause, choices)
    if spelled is not None:
        if not closed and equal_option(letter + rest.split(clause)[0] + clause, choices) == spelled:
            return False  # "A bus": an article before an option
        raise AbstainError("letter and text disagree")
    if _STOP.match(rest) or _REASON.match(rest) or _CHINESE.match(rest):
        return True
    return closed and not re.match(r"\s+(?:is|are|was|were|has|have|shows|would|could|can|may|might|does|says)\b", rest)
