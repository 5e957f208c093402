"""Reads the letter of a multiple-choice reply: a cascade of named rules, the surest first, that abstains when lost.

A rule that sees two answers, a letter that was not offered, or a letter beside another option's text ends the cascade
with an abstention: a guess is never made, and "A bus" is not A.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from cambrian_eval.errors import DataError
from cambrian_eval.scoring.abstention import AbstainError
from cambrian_eval.scoring.declarations import FAR, REACH, SENTENCE_BREAK, Declaration, find_declarations
from cambrian_eval.scoring.opening_letter import NO_WORD, read_label, read_letter
from cambrian_eval.scoring.option_text import equal_option, mentioned_option, words_of
from cambrian_eval.scoring.refusals import is_off_question, is_refusal
from cambrian_eval.scoring.unwrapping import unwrap
from cambrian_eval.types import Question, Score


@dataclass(frozen=True)
class Extraction:
    """The letter that a rule read, or None and, in the rule's name, why not."""

    letter: str | None
    rule: str


@dataclass(frozen=True)
class _Reply:
    """A cleaned reply, the options, and the declarations found in it."""

    text: str
    choices: Sequence[str]
    declarations: Sequence[Declaration] = ()

    @property
    def declares_in_vain(self) -> bool:
        """An answer was announced or denied but could not be read: weak rules must not fill the gap."""
        return any(d.rejected or d.announces for d in self.declarations)


def extract_letter(reply: str, choices: Sequence[str]) -> Extraction:
    """Read the chosen letter.

    Args:
        reply: What the model said.
        choices: The option texts in order; the first is A.

    Returns:
        The letter and the rule that read it, or None and the reason.
    """
    try:
        text = unwrap(reply)
        view = _Reply(text, choices, find_declarations(text[-FAR:], choices))
        for name, rule in _RULES:
            letter = rule(view)
            if letter is not None:
                _check_not_taken_back(letter, text[-FAR:], choices)
                return _offered(letter, name, choices)
    except AbstainError as reason:
        return Extraction(None, f"abstain: {reason}")
    return Extraction(None, "abstain: no answer found")


def score_letter(question: Question, reply: str) -> Score:
    """Score a reply to a multiple-choice question: 1 if the letter read is the right one.

    Raises:
        DataError: There are more options than letters.
    """
    if len(question.choices) > len(ascii_uppercase):
        raise DataError(
            f"question {question.id} has {len(question.choices)} options; letters name at most "
            f"{len(ascii_uppercase)}. Ask it as an open question, or with fewer options."
        )
    found = extract_letter(reply, question.choices)
    value = float(found.letter == question.answers[0]) if question.answers else None
    return Score(value, found.letter, found.rule)


def _offered(letter: str, rule: str, choices: Sequence[str]) -> Extraction:
    if letter not in ascii_uppercase[: len(choices)]:
        raise AbstainError("letter not offered")
    return Extraction(letter, rule)


# Between the word that corrects and the new letter stand only fillers: "no, wait, I think it is C".
_CORRECTION = re.compile(
    rf"""
    (?: \b(?: no | wait | actually | hmm+ | sorry | oops | rather | correction | scratch\s+that | i\s+meant? )
      | (?<=[.,(])\s?or
    )\b
    (?: [\s,.:;!-]+
      | \b(?: no | wait | actually | it's | it | is | should | be | i | meant? | think | maybe | perhaps | possibly
           | the | option | answer )\b
    ){{0,12}}+
    [(\["']? ((?-i:[A-Z])) {NO_WORD} (?-i:(?!\s+[a-z]))
    """,
    re.IGNORECASE | re.VERBOSE,
)
_TEXT_CORRECTION = re.compile(
    r"(?:\.\.+|[.,;!?\u2014-])\s*(?:no|wait|actually|hmm+|sorry|oops|correction|scratch\s+that)\b[\s,.:;!\u2014-]*"
    r"(?:(?:no|wait|actually|sorry)\b[\s,.:;!-]*){0,3}(?P<said>[^.!?\n\u3002]{1,240})",
    re.IGNORECASE,
)
_RETRACTION = re.compile(r"[.!]\s*(no|(?:that's|that\s+is)\s+(?:wrong|incorrect|not\s+\w+))\W*\Z", re.IGNORECASE)


def _check_not_taken_back(letter: str, text: str, choices: Sequence[str]) -> None:
    """A letter that was read must not be corrected or withdrawn later on: "B... no wait, C", "A (or B)", "A. No."."""
    own = choices[ascii_uppercase.index(letter)] if letter in ascii_uppercase[: len(choices)] else ""
    retraction = _RETRACTION.search(text)
    if retraction and words_of(retraction[1]) != words_of(own):  # "B. No" names an option that is called "No"
        raise AbstainError("letter taken back")
    _check_text_not_corrected(letter, own, text, choices)
    corrections = list(_CORRECTION.finditer(text))
    if not corrections or corrections[-1][1] == letter:
        return
    said_again = re.search(rf"\b{letter}\b", text[corrections[-1].end() :])
    if not said_again:
        raise AbstainError("two letters")


def _check_text_not_corrected(letter: str, own: str, text: str, choices: Sequence[str]) -> None:
    """Nor may another option's text follow: "D, cow... no, horse"; unless the letter or its own text comes again."""
    corrections = list(_TEXT_CORRECTION.finditer(text))
    if not corrections:
        return
    last = corrections[-1]
    named = mentioned_option(last["said"], choices, declared=True)
    if named is None or ascii_uppercase[named] == letter:
        return
    rest = text[last.start("said") :]
    if not re.search(rf"\b{letter}\b", rest) and (not own or own.casefold() not in rest.casefold()):
        raise AbstainError("letter taken back")


_LABELS = re.compile(
    r"\b(?:option|choice|answer|letter|the|is|final|correct|my|so|thus|therefore|hence)\b|'s\b|答案|选项|选择|选|是",
    re.IGNORECASE,
)
_SOLE_SYMBOLS = re.compile(r"[?+=%@^~\\≠¬-]")
_TOKEN = re.compile(r"[^\W_]+")
MOST_REPEATS = 4  # a letter alone may be said so often; more is a model that cannot stop


def _bare_letter(reply: _Reply) -> str | None:
    """Nothing but one letter, however bracketed or labelled; said a few times, but not over and over."""
    if len(reply.text) > REACH or _SOLE_SYMBOLS.search(reply.text):
        return None
    bare = _LABELS.sub(" ", reply.text)
    letters = _TOKEN.findall(bare)
    if len(letters) > 1 and read_label(bare.strip(), reply.choices):
        return None  # "B. C", where C is the text of option B
    if not letters or not all(len(token) == 1 and token.upper() in ascii_uppercase for token in letters):
        return None
    if len({letter.upper() for letter in letters}) > 1:
        raise AbstainError("two letters")
    if len(letters) > MOST_REPEATS:
        raise AbstainError("one letter over and over")
    return letters[0].upper()


def _option_text(reply: _Reply) -> str | None:
    """The whole reply spells one option."""
    index = equal_option(reply.text, reply.choices) if len(reply.text) <= 10 * REACH else None
    if index is None or (reply.text.endswith("?") and not reply.choices[index].rstrip().endswith("?")):
        return None
    return ascii_uppercase[index]


def _declared(rule: str) -> Callable[[_Reply], str | None]:
    """The last declaration that can be read, if it was read by `rule`."""

    def read(reply: _Reply) -> str | None:
        readable = [d for d in reply.declarations if not d.rejected and (d.letter or d.abstention)]
        if not readable:
            return None
        last = readable[-1]
        if last.abstention:
            raise AbstainError(last.abstention)
        return last.letter if last.rule == rule else None

    return read


_BULLET = r"[ ]?(?:(?:[-\u2022]|\d+[.)])[ ]?)?"
_MARKER = re.compile(
    rf"""
      (?<![\w'])(?<!not[ ]) \(?([A-Z])[).:] (?=\s|$)               # "A)", "(A):", "A."
    | (?<!not[ ]) \(([A-Za-z])\)                                   # "(a)"
    | ^{_BULLET} ([A-Z]) [ ]?$                                     # "A" on its line, "- A", "1. A"
    | ^{_BULLET} ([B-HJ-Z]) (?=[ ][-=\w])                          # "B right", "- B right"; A and I also begin texts
        (?![ ](?:is|was|has|does|can|cannot|would|could|may|might|because|since|shows)\b)
    | ["'] ([A-Z]) ["'] (?=\s*:)                                   # {{"A": 0.2}}
    """,
    re.MULTILINE | re.VERBOSE,
)


def _marked_letters(text: str) -> set[str]:
    """Letters that stand as labels of a list or of an option; those after "not" are ruled out."""
    return {group.upper() for match in _MARKER.finditer(text) for group in match.groups() if group}


def _leading_letter(reply: _Reply) -> str | None:
    """A letter with a delimiter, its option's text or a reason, before the rest of the reply."""
    letter = read_letter(reply.text, reply.choices)
    if letter is None or letter == read_label(reply.text, reply.choices):
        return letter
    if _marked_letters(reply.text) - {letter}:
        raise AbstainError("two letters")
    return letter


_CLOSING_LETTER = re.compile(
    r"(?:^|\n|[.!:]\s|。)[ \t]*(?:(?:so|thus|therefore|hence|option|choice|final|answer|probably|likely|definitely"
    r"|maybe|perhaps|finally)[ \t,:]*)*[(\[\"']?((?-i:[A-Za-z]))[)\]\"']?[ \t]*[.!]?\s*\Z",
    re.IGNORECASE,
)


# What makes a letter at the end a name or one that is ruled out: "Fig. B", "Mr. B", "wrong: A".
_NAMING_OR_DENYING = re.compile(
    r"\b(?:vs|fig|figure|mr|mrs|dr|vol|no|not|wrong|incorrect|except)[.:]?\s*[(\[\"']?\Z", re.IGNORECASE
)


def _closing_letter(reply: _Reply) -> str | None:
    """A last line or sentence that is nothing but a letter."""
    match = _CLOSING_LETTER.search(reply.text, max(0, len(reply.text) - REACH))
    if match is None or reply.declares_in_vain or not (match[1].isupper() or "(" in match[0]):
        return None
    if _NAMING_OR_DENYING.search(reply.text[: match.start(1)]):
        return None
    if _marked_letters(reply.text[-REACH:]) - {match[1].upper()}:
        raise AbstainError("two letters")
    return match[1].upper()


_BRACKETED = re.compile(r"\(([A-Z])\)")
_DOUBT = re.compile(
    r"n't\b|\b(?:not|no|never|neither|nor|cannot|or|if|unless|whether|than|except|unlike|farther|further|behind"
    r"|away|could|might|may|wrong|incorrect|between|far(?!\s+(?:left|right))"
    r"|anything|everything|figure|fig|panel|appendix|section|chapter|page)\b|\?",
    re.IGNORECASE,
)


def _bracketed_letter(reply: _Reply) -> str | None:
    """The only letter in brackets, at the end of a plain statement: "It is nearer to the bottle (B)."."""
    found = list(_BRACKETED.finditer(reply.text))
    if len({match[1] for match in found}) != 1 or reply.declares_in_vain:
        return None
    last = found[-1]
    before = SENTENCE_BREAK.split(reply.text[max(0, last.start() - REACH) : last.start()])[-1]
    ends = re.match(r"\s*(?:[.!;。]|\Z)", reply.text[last.end() :])
    if not ends or _DOUBT.search(before):
        return None
    named = mentioned_option(before, reply.choices, declared=True)
    if named is not None and ascii_uppercase[named] != last[1]:
        raise AbstainError("letter and text disagree")
    return last[1]


_YES_OR_NO = re.compile(r"(?P<word>yes|no)\s?[,.;:!](?=\s+[^\W\d])(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_SECOND_THOUGHT = re.compile(r"\b(?:wait|actually|sorry|hmm+|but|however|though|maybe|perhaps|might)\b", re.IGNORECASE)


def _yes_or_no(reply: _Reply) -> str | None:
    """An option called "Yes" or "No" with a sentence that explains it: "No, the picture does not show this."."""
    match = _YES_OR_NO.match(reply.text)
    if match is None or reply.declares_in_vain or len(reply.text) > REACH:
        return None
    word, rest = match["word"].casefold(), match["rest"]
    other = {"yes": "no", "no": "yes"}[word]
    index = equal_option(word, reply.choices)
    named = [choice for choice in reply.choices if words_of(choice) != [word] and words_of(choice)]
    others = any(re.search(rf"(?<!\w){re.escape(choice)}(?!\w)", rest, re.IGNORECASE) for choice in named)
    doubtful = others or re.search(rf"\b{other}\b|\?", rest, re.IGNORECASE) or _SECOND_THOUGHT.search(rest)
    if index is None or doubtful or _marked_letters(rest) or is_off_question(rest) or is_refusal(rest.lstrip(" ,.;:!")):
        return None
    return ascii_uppercase[index]


_CONCLUDED = re.compile(r"\b(?:so|thus|therefore|hence)[\s,:]+\(?([A-Z])\)?\Z")


def _option_mentioned(reply: _Reply) -> str | None:
    """A short plain statement that names exactly one option."""
    statement = reply.text.rstrip(" .!\n")
    if reply.declares_in_vain or len(statement) > REACH or SENTENCE_BREAK.search(statement):
        return None
    index = mentioned_option(statement, reply.choices)
    if index is None:
        return None
    letter = ascii_uppercase[index]
    concluded = _CONCLUDED.search(statement)
    if concluded and concluded[1] != letter:
        raise AbstainError("letter and text disagree")
    return letter


_RULES: tuple[tuple[str, Callable[[_Reply], str | None]], ...] = (
    ("bare letter", _bare_letter),
    ("option text", _option_text),
    ("declared letter", _declared("declared letter")),
    ("declared text", _declared("declared text")),
    ("leading letter", _leading_letter),
    ("closing letter", _closing_letter),
    ("bracketed letter", _bracketed_letter),
    ("yes or no", _yes_or_no),
    ("option mentioned", _option_mentioned),
)
