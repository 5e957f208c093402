"""The short answer in a reply to an open question: the one it declares, or the whole of a reply that is short.

Nothing is picked out of running text: "The picture shows a red car and ..." is no answer of one word, and a rule that
took a word from it would invent one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cambrian_eval.scoring.abstention import AbstainError
from cambrian_eval.scoring.declarations import ANNOUNCEMENT, FAR, REACH, is_rejected
from cambrian_eval.scoring.letters import MOST_REPEATS
from cambrian_eval.scoring.reading import Reading
from cambrian_eval.scoring.refusals import is_refusal
from cambrian_eval.scoring.unwrapping import unwrap_text

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_WORDS = 30
"""A reply of more words that declares nothing is running text."""

MOST_CHARACTERS = 400
"""Likewise in characters, for languages that put no spaces between words."""

# A heading with nothing else on its line: "### Final Answer".
_HEADING = re.compile(r"^[ \t]*(?:final[ \t]+|my[ \t]+)?answer[ \t]*$", re.IGNORECASE | re.MULTILINE)
_HEDGE = re.compile(
    r"(?:(?:most\s+likely|probably|likely|clearly|simply|therefore|thus|approximately)\s+)", re.IGNORECASE
)
_REASON = re.compile(
    r"\s*[,;(]?\s*\b(?:because|since|which|given\s+that|based\s+on|as\s+(?:it|the|there|this|we|i|shown|seen|indicated"
    r"|can\s+be\s+seen|stated|written|depicted|they)|according\s+to)\b.*"
    r"|\s*[,;]\s*(?:(?:and\s+)?not|but)\b.*",
    re.IGNORECASE | re.DOTALL,
)
_DENIED = re.compile(
    r"not\b(?!\s+(?:applicable|available))|n't\b|unclear\b|impossible\b|cannot\b|can't\b|one\s+of\b|either\b"
    r"|neither\b|(?:hard|difficult)\s+to\b|(?:dependent|depends)\b",
    re.IGNORECASE,
)
_ABBREVIATIONS = (
    *(
        "St",
        "Dr",
        "Mr",
        "Mrs",
        "Ms",
        "Jr",
        "Sr",
        "Prof",
        "Gen",
        "Sen",
        "Rep",
        "Inc",
        "Ltd",
        "Co",
        "Corp",
        "Bros",
        "Dept",
    ),
    *("No", "Nr", "Vol", "Fig", "pp", "p", "ed", "Mt", "Ft", "Ave", "Rd", "Blvd", "vs", "approx", "etc"),
)
# "The answer is Nokia? No."; an answer may itself end in a question mark.
_ASKED_AND_DENIED = re.compile(r"\?\s+(?:no|not|wrong|hmm+|maybe|perhaps|but)\b", re.IGNORECASE)
# "The answer is clearly visible in the image" announces none.
_NO_ANSWER = re.compile(
    r"(?:in|on|from|within)\s+(?:the|this|your)\s+(?:image|picture|photo|question|text|chart|document|table|figure)\b"
    r"|(?:visible|shown|displayed|provided|given|written|found|located|stated)\b|as\s+follows\b|based\s+on\b",
    re.IGNORECASE,
)
# After "Dr.", "J." or "U.S." a sentence goes on, unless its next word is one that sentences begin with.
SENTENCE_END = re.compile(
    r"(?<!\b[A-Z])" + "".join(rf"(?<!\b{word})" for word in _ABBREVIATIONS) + r"""[.!?](?=["')\]]?\s)"""
    r"""|[.!?](?=["')\]]?\s+(?:The|This|That|It|In|So|I|You|There|They|He|She|However|Therefore|Note|As|If|We|Its)\b)"""
    r"|。|\n"
)
_EXPLANATION = re.compile(r"(?:explanation|reason(?:ing)?|rationale|because|note|解释|说明|理由)\b", re.IGNORECASE)
_NO_OPENING = re.compile(
    r"(?:sure|certainly|of\s+course|ok(?:ay)?|analysis|step|let|to\b|looking|based|first|solution|answer|question|here"
    r"|got\s+it|great|explanation|description|overview|summary|image|hmm|well|first)",
    re.IGNORECASE,
)
_FORMULA = re.compile(r"\$([^$]+)\$")
_LOOP = 10
_FRESH = 5


def read_short_answer(reply: str) -> Reading:
    """Read a short answer.

    Args:
        reply: What the model said.

    Returns:
        The answer as written, and its place: `declared answer`, `leading answer` or `whole reply`.

    Raises:
        AbstainError: The reply is empty, refuses, repeats itself, was cut off while thinking or declaring, declares
            nothing that can be read, or is running text without a declaration.
    """
    text = unwrap_text(reply)
    declared = last_declared(text)
    if declared is not None:
        return Reading(declared, "declared answer")
    leading = _leading(text)
    if leading is not None:
        return Reading(leading, "leading answer")
    if is_refusal(text):
        raise AbstainError("refusal")
    lines = {line.strip() for line in text.splitlines() if line.strip()}
    if len(lines) == 1 and text.count("\n") < MOST_REPEATS:
        text = lines.pop()
    _check_no_loop(text)
    if len(text) > MOST_CHARACTERS or len(text.split()) > MOST_WORDS:
        raise AbstainError("no short answer")
    return Reading(" ".join(text.split()), "whole reply")


def last_declared(text: str) -> str | None:
    """The last answer that a text declares ("The answer is ..."); None if it declares none.

    Raises:
        AbstainError: What it declares last cannot be read, is denied, or was cut off.
    """
    announced = unfinished = False
    found: list[str] = []
    for declared in _declared_from_the_end(text[-FAR:]):
        announced = True
        unfinished = unfinished or (declared == "" and not found)
        if declared:
            found.append(declared)
        if len(found) == 2:
            break
    if not found:
        _check_not_in_vain(announced=announced, unfinished=unfinished)
        return None
    last, before = found[0], found[1:]
    shortened = text.endswith(last) and before and before != [last] and before[0].startswith(last)
    if shortened or (unfinished and before != [last]):
        raise AbstainError("cut off")
    if _NO_ANSWER.match(last):
        raise AbstainError("nothing declared")
    if _DENIED.match(last) or is_refusal(last):
        raise AbstainError("answer denied")
    if len(last.split()) > MOST_WORDS:
        raise AbstainError("no short answer")
    return last


def _check_not_in_vain(*, announced: bool, unfinished: bool) -> None:
    if unfinished:
        raise AbstainError("nothing declared")
    if announced:
        raise AbstainError("answer denied")


def _declared_from_the_end(text: str) -> Iterator[str | None]:
    """What each declaration announces, the last one first; None for one that is denied or depends on something."""
    cues = [*ANNOUNCEMENT.finditer(text), *_HEADING.finditer(text)]
    for cue in sorted(cues, key=lambda match: match.start(), reverse=True):
        rejected = is_rejected(text, cue.start())
        yield None if rejected else _declared_text(text[cue.end() : cue.end() + 2 * REACH])


def _declared_text(following: str) -> str | None:
    text = following.lstrip(" \t\n:*=")
    text = _HEDGE.sub("", text, count=1) if _HEDGE.match(text) else text
    quoted = re.match(r"\"([^\"\n]+)\"", text)
    if quoted:
        return quoted[1].strip()
    sentence = SENTENCE_END.split(text + "\n", maxsplit=1)[0]
    if _ASKED_AND_DENIED.match(text, len(sentence)):
        return None
    return strip_marks(without_reason(sentence))


def without_reason(text: str) -> str:
    """Text up to "because ...", "since ..." or ", not ..."; the whole of one that begins so."""
    return _REASON.sub("", text, count=1) or text


def strip_marks(text: str) -> str:
    """Text without the punctuation, quotes and dollar signs around it."""
    bare = text.strip().rstrip(".,;:!").strip("\"'` ")
    formula = _FORMULA.fullmatch(bare)
    return formula[1].strip() if formula else bare


def _leading(text: str) -> str | None:
    """A first line of a few words, before a paragraph that explains it."""
    first, _, rest = text.partition("\n")
    rest_opens_paragraph = rest.startswith(("\n", " \n"))
    rest = rest.strip()
    if not rest or len(first.split()) > 6 or first.rstrip().endswith(":") or _NO_OPENING.match(first):
        return None
    if is_refusal(first):
        return None
    answer = strip_marks(first)
    if _EXPLANATION.match(rest):
        return answer or None
    restated = (
        answer and answer.casefold() in rest[: 2 * REACH].casefold() and len(rest.split()) > len(answer.split()) + 2
    )
    explains = restated and rest.rstrip().endswith((".", "。")) and rest[:1].isupper()
    return answer if rest_opens_paragraph and explains else None


def _check_no_loop(text: str) -> None:
    words = text.casefold().split()
    if len(words) >= _LOOP and len(set(words)) * _FRESH <= len(words):
        raise AbstainError("one phrase over and over")
