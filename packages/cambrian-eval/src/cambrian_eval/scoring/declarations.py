"""Places where a reply declares its answer: "the answer is B", "I choose (C)", "A is correct".

A declaration that is denied ("I don't think it's B"), conditional ("if ..., the answer is A") or asked ("is it A?") is
kept, marked as rejected or without a letter: it tells the weaker rules not to fill the gap.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TYPE_CHECKING

from cambrian_eval.scoring.abstention import AbstainError
from cambrian_eval.scoring.opening_letter import NO_WORD, read_letter
from cambrian_eval.scoring.option_text import equal_option, mentioned_option

if TYPE_CHECKING:
    from collections.abc import Sequence

FAR = 20_000
"""Declarations further than this from the end of a reply, in characters, are not looked for."""

REACH = 240
"""How far a rule looks around a place, in characters."""


@dataclass(frozen=True)
class Declaration:
    """A place where a reply announces its answer, and what could be read there."""

    announces: bool
    letter: str | None = None
    rule: str = ""
    rejected: bool = False
    abstention: str | None = None


ANNOUNCEMENT = re.compile(
    r"\b(?:answer|ans|(?:correct|right|best|final|my|appropriate|accurate)\s+(?:option|choice|letter|selection|one))"
    r"[\"']?(?:\s+(?:here|to\s+(?:the|this|your)\s+question))?"
    r"\s*(?:\b(?:is|would\s+be|should\s+be|must\s+be|will\s+be|has\s+to\s+be)\b(?:\s*:)?|[:=→]|->|-(?=\s))"
    r"|^[ \t]*(?:option|choice|selection|prediction)[ \t]*:"
    r"|(?<![不没别非])答案(?:(?:应该是|应为|是|为)[:\s]*|[:\n]\s*)",
    re.IGNORECASE | re.MULTILINE,
)
_CHOOSING = re.compile(
    r"\b(?:it|that|this)(?:'s|\s+(?:is|must\s+be|should\s+be|would\s+be|has\s+to\s+be))(?=\s)"
    r"|\b(?:choose|chose|pick|picked|select|selected|go(?:ing)?\s+(?:with|for)|went\s+with|opt\s+for|vote\s+for|guess"
    r"|say|settle\s+on|answer\s+with|respond\s+with|conclude|corresponds\s+to|matches)(?=[\s:])"
    r"|\banswer(?=\s+\(?[A-Z]\b)"
    r"|(?<![不没别非])(?:答案|正确(?:的)?选项|正确的(?=是|为)|应该?选择?|故选择?|选择|选)(?:应该是|应为|是|为)?[:\s]*",
    re.IGNORECASE,
)
_CONFIRMATION = re.compile(
    rf"""
    (?: (?<=\s) | (?<=^) | (?<=\() ) ([A-Z]) {NO_WORD} \)? (?: \s*\([^()\n]{{1,60}}\) )?  # "B", "(B)", "B (right)"
    \s+ (?: is | must\s+be | should\s+be | would\s+be ) \s+ (?: the\s+ | my\s+ )?
    (?> (?: only\s+ | most\s+ )? (?: correct | best | right | final | likely | appropriate | accurate )\s+
        (?: answer | option | choice | one )\b
      | correct\b
      | answer\b
    )
    (?! \s*\? | \s+(?:only\s+)?(?:if|unless)\b )
    """,
    re.MULTILINE | re.VERBOSE,
)
_NEGATION = re.compile(
    r"n't\b|\b(?:not|never|neither|nor|cannot|wrong|incorrect|false|doubt|unsure|unlikely|either|another|other"
    r"|possible|could|might|may|or|refuse|avoid|exclude|worst|least|previous|example|sample)\b",
    re.IGNORECASE,
)
# "我不会选", "没有选"; but not "不难看出选".
_CHINESE_NEGATION = re.compile(r"(?:不(?![难仅但用过同])|没|别|未|勿|并非)[\u4e00-\u9fff]{0,3}\Z")
_SECOND_OF_TWO = re.compile(r"\b[A-Z]\)?\s*(?:and|or|nor|[/&,])\s*\(?\Z")
_CONDITION = re.compile(
    r"\b(?:if|unless|otherwise|whether|suppose|assuming|depends)\b|如果|假如|要是|倘若|除非|否则|取决于", re.IGNORECASE
)
_CLAUSE_BREAK = re.compile(r"[,;:()]|\b(?:but|so|therefore|thus|hence|then|because|and)\b", re.IGNORECASE)
SENTENCE_BREAK = re.compile(r"[.!?](?=\s)|[\n。]")


def find_declarations(text: str, choices: Sequence[str]) -> list[Declaration]:
    """Every declaration, in the order of the text."""
    found: list[tuple[int, Declaration]] = [
        (match.start(), _read_declaration(text, match, choices, announces=True))
        for match in ANNOUNCEMENT.finditer(text)
    ]
    found += [
        (match.start(), _read_declaration(text, match, choices, announces=False)) for match in _CHOOSING.finditer(text)
    ]
    found += [
        (match.start(), Declaration(True, match[1], "declared letter", rejected=is_rejected(text, match.start())))
        for match in _CONFIRMATION.finditer(text)
    ]
    return [declaration for _, declaration in sorted(found, key=lambda item: item[0])]


def _read_declaration(text: str, cue: re.Match[str], choices: Sequence[str], *, announces: bool) -> Declaration:
    following = text[cue.end() : cue.end() + REACH]
    rejected = is_rejected(text, cue.start())
    try:
        letter = read_letter(following, choices)
        if letter is not None:
            return Declaration(announces, letter, "declared letter", rejected=rejected)
        if announces:
            return Declaration(True, _read_text(following, choices), "declared text", rejected=rejected)
    except AbstainError as reason:
        return Declaration(announces, rejected=rejected, abstention=str(reason))
    return Declaration(False)


def _read_text(following: str, choices: Sequence[str]) -> str | None:
    sentence = SENTENCE_BREAK.split(following.lstrip(" \t\n:\"'"), maxsplit=1)[0].rstrip(".!\"'")
    clause = re.split(r"[,;(]|\b(?:because|since|as)\b", sentence, maxsplit=1)[0]
    index = equal_option(clause, choices)
    if index is None:
        index = mentioned_option(sentence, choices, declared=True)
    if index is None:
        return None
    bracketed = re.search(r"\(([A-Z])\)", sentence)
    if bracketed and bracketed[1] != ascii_uppercase[index]:
        raise AbstainError("letter and text disagree")
    return ascii_uppercase[index]


def is_rejected(text: str, start: int) -> bool:
    """Whether the words before a declaration, in its sentence, deny it or make it depend on something."""
    before = SENTENCE_BREAK.split(text[max(0, start - REACH) : start])[-1]
    clause = _CLAUSE_BREAK.split(before)[-1]
    denied = _NEGATION.search(clause) or _CHINESE_NEGATION.search(clause)
    return bool(_CONDITION.search(before) or denied or _SECOND_OF_TWO.search(before))
