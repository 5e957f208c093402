"""Yes or no, read as words: "no" is not in "notice". POPE, MME, and every question that asks for one of the two.

Source: VLMEvalKit reads "yes" xor "no" as words. This rule reads less: a "no" inside a sentence ("no other cars") is no
answer, and a reply with both words is read only where one of them is declared or leads.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cambrian_eval.scoring.abstention import AbstainError
from cambrian_eval.scoring.declarations import FAR
from cambrian_eval.scoring.reading import Reading, score_reading
from cambrian_eval.scoring.refusals import is_off_question, is_refusal
from cambrian_eval.scoring.short_answer import MOST_WORDS, last_declared
from cambrian_eval.scoring.unwrapping import unwrap, without_blank_lines

if TYPE_CHECKING:
    from cambrian_eval.types import Question, Score

_WORD = re.compile(r"\b(yes|no)\b(?!['-])", re.IGNORECASE)
_BOTH = re.compile(
    r"\byes\s*(?:/|or|and|&|\|)\s*no\b|\bno\s*(?:/|or|and|&|\|)\s*yes\b|\byes\s*,\s*no\b(?!\s+\w)", re.IGNORECASE
)
_EITHER = re.compile(r"\b(?:or|nor|neither|either)\b", re.IGNORECASE)
_LEADING = re.compile(
    r"[\W_]*+(?:(?:probably|most\s+likely|i\s+think|i\s+believe|i(?:'d|\s+would)\s+say)(?:\s+so)?[\s,:]+)?"
    r"(yes|no)\b(?!['-]|\.\s?\d)(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
# "no dogs", "no way to tell": what follows makes "no" a part of the sentence; "no there is none" goes on with another.
_DETERMINER = re.compile(
    r"\s+(?!(?:there|it|the|this|i|he|she|they|we|that|a|an|not|because|since|as|in|on)\b)\w", re.IGNORECASE
)
_MENTIONED = re.compile(r"[\"')\]]*\s+(?:is|was|would|can|may|to)\b", re.IGNORECASE)
_TAKEN_BACK = re.compile(
    r"\b(?:wait|actually|sorry|correction|hmm+|scratch\s+that|on\s+second\s+thought)\b[^.\n]{0,60}?\b(yes|no)\b",
    re.IGNORECASE,
)
_CHINESE = re.compile(r"\W*(?:(?P<no>不是|否|没有|不对|不)|(?P<yes>是的|是|对的|对|有的|有))(?=[\s,.!;:。]|\Z)")
_CLOSING = re.compile(r"(?:^|[\n.!:?]\s*)(?:so|thus|therefore|hence)?[\s,]*(yes|no)\s*[.!]?\s*\Z", re.IGNORECASE)


def score_yes_no(question: Question, reply: str) -> Score:
    """Score 1 where the word read is the accepted one. Accepted answers are `yes` or `no`, in any case."""
    accepted = {answer.strip().strip(".").casefold() for answer in question.answers}
    return score_reading(
        question, "yes/no", lambda: read_yes_no(question.text, reply), lambda word: float(word in accepted)
    )


def read_yes_no(asked: str, reply: str) -> Reading:
    """Read `yes` or `no`.

    Args:
        asked: The question's text: "There is a dog" answers "Is there a dog?".
        reply: What the model said.

    Raises:
        AbstainError: Neither word stands as the answer, or both do.
    """
    text = without_blank_lines(unwrap(reply))
    declared = last_declared(text)
    if declared is not None:
        word = _declared_word(declared, asked)
        if len(text.split()) <= MOST_WORDS and _leading_word(text, asked) not in (None, word):
            raise AbstainError("both yes and no")
        return Reading(word, "declared answer")
    leading = _leading_word(text, asked)
    if leading is not None:
        return Reading(leading, "leading word")
    closing = _CLOSING.search(text, max(0, len(text) - FAR))
    if closing and not _BOTH.search(text[-FAR:]):
        return Reading(closing[1].lower(), "closing word")
    if is_refusal(text):
        raise AbstainError("refusal")
    stated = _statement(asked, text)
    if stated is not None:
        return Reading(stated, "statement")
    raise AbstainError("neither yes nor no")


def _declared_word(declared: str, asked: str) -> str:
    words = {word.lower() for word in _WORD.findall(declared)}
    if len(words) > 1 and (_EITHER.search(declared) or _BOTH.search(declared)):
        raise AbstainError("both yes and no")
    word = _leading_word(declared, asked) or _statement(asked, declared)
    if word is not None:
        return word
    if len(words) > 1:
        raise AbstainError("both yes and no")
    if words != {"yes"} or re.search(r"n't\b|\bnot\b", declared, re.IGNORECASE):
        raise AbstainError("neither yes nor no")  # a "no" inside a phrase belongs to a noun
    return "yes"


def _leading_word(text: str, asked: str) -> str | None:
    chinese = _CHINESE.match(text)
    if chinese:
        return "no" if chinese["no"] else "yes"
    match = _LEADING.match(text)
    if match is None:
        return None
    word, rest = match[1].lower(), match["rest"]
    if is_off_question(rest):
        raise AbstainError("refusal")
    if _MENTIONED.match(rest) or (word == "no" and _DETERMINER.match(rest)):
        return None
    if _BOTH.match(text.lstrip(" \"'(*")) or rest.lstrip().startswith("?") or _is_contradicted(word, rest, asked):
        raise AbstainError("both yes and no")
    return word


def _is_contradicted(word: str, rest: str, asked: str) -> bool:
    """Whether what follows a leading word says the other one: "No. Yes.", "Yes... wait, no", "Yes, there is no dog"."""
    other = {"yes": "no", "no": "yes"}[word]
    back = list(_TAKEN_BACK.finditer(rest[-FAR:]))
    return bool(
        (back and back[-1][1].lower() == other)
        or re.match(rf"\s+{other}\b|[\s.,!;:]*{other}\b(?!\s+\w)", rest, re.IGNORECASE)
        or re.search(rf"[.!\n]\s*{other}[^\w\n]*\Z", rest[-FAR:], re.IGNORECASE)
        or _statement(asked, rest.lstrip(" \t\n.,!;:")) == other
    )


_ASKED = re.compile(
    r"\s*(?:is|are)\s+there\s+(?:(?:a|an|any|some)\s+)?(?P<what>[\w -]{1,80}?)"
    r"(?:\s+(?:in|on|visible|present|here)\b.*)?\s*\?",
    re.IGNORECASE | re.DOTALL,
)
_SAID = re.compile(
    r"""
    (?: (?: there\s+(?:is|are) | there's | i\s+(?:can\s+)?see ) (?P<not>\s+no | \s+not | n't )?
      | (?P<none>no)
    )
    \s+ (?: (?: a | an | any | some | one | two | three | several | many | \d{1,3} ) \s+ )? (?P<what>.{1,200})
    """,
    re.IGNORECASE | re.VERBOSE,
)
# "a dog house" is no dog: after the thing, only its place may follow.
_PLACE = (
    r"s?(?=\s*(?:$|[.,;!]|\b(?:in|on|at|near|by|here|under|next|behind|lying|sitting|standing|running|walking|visible"
    r"|present|shown|(?:is|are)\s+(?:visible|present|shown|seen|there|in))\b))"
)
_ECHO = re.compile(r"[^.!?\n]*\?")
_UNSURE = re.compile(
    r"\b(?:but|however|although|though|might|may|could|appears?|seems?|possibly|doubt)\b", re.IGNORECASE
)


def _statement(asked: str, text: str) -> str | None:
    """What a sentence like "There is no dog in the picture." answers to "Is there a dog in the picture?"."""
    wanted, said = _ASKED.match(asked), _SAID.match(text)
    if wanted is None or said is None or _UNSURE.search(text[:FAR]) or _ECHO.match(text):
        return None
    if not re.match(re.escape(wanted["what"].strip()) + _PLACE, said["what"], re.IGNORECASE):
        return None
    return "no" if said["not"] or said["none"] else "yes"
