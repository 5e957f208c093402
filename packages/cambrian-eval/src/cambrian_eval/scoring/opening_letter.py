"""A letter at the beginning of a text, and whether what follows lets it stand as an answer.

"B", "(B) left" and "B because" do; "A bus" and "(A) is far" do not; "A or B" is a reason to abstain.
"""

from __future__ import annotations

import re
from string import ascii_uppercase
from typing import TYPE_CHECKING

from cambrian_eval.scoring.abstention import AbstainError
from cambrian_eval.scoring.option_text import equal_option, starts_with_option

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
    r"|\s*[是不]",
    re.IGNORECASE,
)
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


def _ends_or_explains(rest: str, letter: str, choices: Sequence[str], *, closed: bool) -> bool:
    """Whether what follows a letter lets it stand as the answer.

    Raises:
        AbstainError: What follows is another option's text.
    """
    following = rest.lstrip(" \t.:,;)-(\"'")
    clause = re.split(r"[,;\n)]|\.(?!\d)|\b(?:because|since|as)\b", following, maxsplit=1)[0]
    own = ascii_uppercase.index(letter)
    if own < len(choices) and starts_with_option(following, choices[own]):
        return True
    spelled = equal_option(clause, choices)
    if spelled is not None:
        if not closed and equal_option(letter + rest.split(clause)[0] + clause, choices) == spelled:
            return False  # "A bus": an article before an option
        raise AbstainError("letter and text disagree")
    if _STOP.match(rest) or _REASON.match(rest) or _CHINESE.match(rest):
        return True
    return closed and not re.match(r"\s+(?:is|are|was|were|has|have|shows|would|could|can|may|might|does|says)\b", rest)
