"""The number rule: MathVista's and MMMU's open questions, whose answers are integers, floats, lists or texts.

Source: MathVista's official normalisation (integers equal; floats equal after rounding to the question's precision) and
MMMU's (two decimals; a text counts if the accepted one stands in it). Neither picks a number at random or tries
several: one number is read, where the reply declares it, or none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cambrian_eval.scoring.abstention import AbstainError
from cambrian_eval.scoring.declarations import FAR, REACH
from cambrian_eval.scoring.exact import normalise
from cambrian_eval.scoring.quantities import NUMBER, WORD_VALUES, Tolerance, parse_list, parse_quantity, plain_numbers
from cambrian_eval.scoring.reading import Reading, score_reading
from cambrian_eval.scoring.refusals import is_refusal
from cambrian_eval.scoring.short_answer import SENTENCE_END, last_declared, read_short_answer, without_reason
from cambrian_eval.scoring.units import in_unit
from cambrian_eval.scoring.unwrapping import unwrap_text, without_blank_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian_eval.types import Question, Score

MMMU_DECIMALS = 2
"""MMMU rounds numbers to so many decimals; so do we where a question states no precision."""


def score_number(question: Question, reply: str) -> Score:
    """Score the number, list or text that a reply declares.

    `question.details` may hold `answer_type` (`integer`, `float`, `list` or `text`; without it the accepted answers
    tell), `precision` (decimals, for floats) and `unit` (a reply in another unit of the same kind is converted).
    """
    kind = question.details.get("answer_type") or _kind(question.answers)
    if kind == "text":
        return score_reading(
            question, "text", lambda: read_short_answer(reply), lambda answer: _grade_text(answer, question.answers)
        )
    if kind == "list":
        return score_reading(question, "list", lambda: read_list(reply), lambda answer: _grade_list(answer, question))
    return score_reading(question, "number", lambda: read_number(reply), lambda answer: _grade_number(answer, question))


def _kind(answers: Sequence[str]) -> str:
    if not answers:
        return "text"
    if all(parse_quantity(answer) for answer in answers):
        return "float"
    return "list" if all(parse_list(answer) for answer in answers) else "text"


def _tolerance(question: Question) -> Tolerance:
    if question.details.get("answer_type") == "integer":
        return Tolerance()
    precision = question.details.get("precision")
    return Tolerance(decimals=MMMU_DECIMALS if precision is None else int(precision))


def _grade_number(answer: str, question: Question) -> float:
    unit = str(question.details.get("unit") or "")
    quantity = parse_quantity(answer)
    found = in_unit(quantity, unit) if quantity else None
    accepted = [parse_quantity(one) for one in question.answers]
    return float(found is not None and any(found.equals(one, _tolerance(question)) for one in accepted if one))


def _grade_list(answer: str, question: Question) -> float:
    found, same = parse_list(answer) or (), _tolerance(question)
    accepted = [parse_list(one) for one in question.answers]
    return float(
        any(one is not None and len(one) == len(found) and all(map(same.holds, found, one)) for one in accepted)
    )


def _grade_text(answer: str, accepted: Sequence[str]) -> float:
    said = normalise(answer)
    return float(any(_stands_in(normalise(one), said) for one in accepted))


def _stands_in(wanted: str, said: str) -> bool:
    """Equal, or there as whole words."""
    return said == wanted or bool(wanted and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", said))


def read_number(reply: str) -> Reading:
    """Read the one number that a reply declares, is, or states.

    Raises:
        AbstainError: There is none, there are several, it is denied, or the reply is unreadable.
    """
    text = unwrap_text(reply)
    declared = last_declared(text)
    if declared is not None:
        return Reading(_stated(declared), "declared answer")
    if is_refusal(text):
        raise AbstainError("refusal")
    if parse_quantity(text):
        return Reading(" ".join(text.split()), "whole reply")
    closing = _closing_statement(without_blank_lines(text))
    if closing is not None:
        return Reading(closing, "closing statement")
    short = read_short_answer(reply)
    _check_one_sentence(short.text)
    return Reading(_stated(short.text), "statement" if short.place == "whole reply" else short.place)


def read_list(reply: str) -> Reading:
    """Read the list of numbers that a reply declares or is.

    Raises:
        AbstainError: There is none, or the reply is unreadable.
    """
    reading = read_short_answer(reply)
    match = re.search(r"\[([^\[\]]{1,200})\]", reading.text)
    written = match[0] if match else reading.text
    if parse_list(written) is None:
        raise AbstainError("no list of numbers")
    return Reading(written, reading.place)


_AMOUNT = (
    rf"(?:[-+]?\s?(?:(?:US)?[$\u20ac\u00a3\u00a5\u20b9]\s?)?[-+]?{NUMBER}(?:\s?/\s?{NUMBER})?(?![\w.]*\d)"
    rf"|(?:{'|'.join(WORD_VALUES)})\b(?!\s+of\b))"
    r"(?:\s?%|\s?(?:percent|thousand|million|billion|trillion)\b)?"
)
_STATED = re.compile(
    r"""
    (?: (?: \b(?: is | are | was | were | be | equals? | have | has | see | count | counted | shows? | contains? | get
          | gives? | total\s+of ) | '(?:s|re) ) \s+
      | (?: 共有 | 一共 | 有 | 是 | 为 | 等于 ) \s*
      | [=\u2248] \s* | (?<!\d):\s* | :\s+
    )
    (?: (?: about | approximately | around | roughly | exactly | only | a\s+total\s+of | nearly | almost
          | equal\s+to ) \s+
      | [~\u2248]
    )*
    (?P<value> """
    + _AMOUNT
    + r"""
      (?: \s? (?! (?: in | on | at | of | for | from | with | per | and | but | visible | left | as | by ) \b )
        [^\W\d_][\w\u00b0/^'-]* )?
    )
    (?: \s+ [^\W\d_][\w'-]* ){0,12} \s* \Z
    """,
    re.IGNORECASE | re.VERBOSE,
)
_STATED_NUMBERS = re.compile(
    rf"(?:\b(?:is|are|was|were|equals?|have|has)\s+|'s\s+|[:=\u2248]\s*)[$~]?({NUMBER})(?=[\s,;.]|\Z)", re.IGNORECASE
)
_ANY_NUMBER = re.compile(r"\d[\d.,]*+")
_OPENING_NUMBER = re.compile(
    rf"\s*(?:(?:so|therefore|thus|hence|overall|in\s+total)\b[\s,]+)?(?P<value>{_AMOUNT})(?=\s|$|[.;(]|,(?!\d))",
    re.IGNORECASE,
)
_YEAR = re.compile(rf"\s*(?:in\s+|the\s+|year\s+)+(?P<value>{NUMBER})\s*", re.IGNORECASE)
_DOUBT = re.compile(
    r"""
    n't\b | \b(?: cannot | let | suppose | assume | assuming )\b
    | \b(?: not | or | nor | either | at\s+least | at\s+most | up\s+to | if | unless | might | may
      | maybe | perhaps | could | possibly | except | wrong | incorrect | dozens? | hundreds? | thousands )\b
    | \b(?: than | over | under ) \s+ \$? \d | \d \s? - \s? \d | \d \s+ to \s+ \d | \?
    # A formula that is not worked out: "3 + x", "12 - x", "2 squared".
    | [+*\u00d7\u00f7\u221a\u03c0\u00b1] | \d\s*\^ | \d \s* - \s* [a-z] \b
    | \bbelow\s+zero\b | \b(?: plus | minus | divided | multiplied | squared | cubed )\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_UNFINISHED = 12
_NEXT_EQUATION = re.compile(r"=[^=]*(?:[,;](?!\d{3})|\b(?:and|or)\b)|\bnot\b|n't\b|\n", re.IGNORECASE)
_ASSUMED = re.compile(r"\s*(?:if|let|suppose|assume|assuming|given|when)\b", re.IGNORECASE)
_CLOSING = re.compile(
    r"(?:\A|[.!?\u3002]\s+|\n)\s*(?:so|therefore|thus|hence|in\s+total|in\s+conclusion|overall|finally|altogether)\b"
    r"[\s,]*(?P<said>[^\n.!?]*(?:\.\d[^\n.!?]*)*)[.!]\s*\Z",
    re.IGNORECASE,
)


def _check_one_sentence(text: str) -> None:
    """A number out of several sentences, or out of one that was cut off, may be a step on the way to the answer.

    Raises:
        AbstainError: The text is more than one sentence, or a long one without an end.
    """
    if SENTENCE_END.search(text.rstrip(" .!?\u3002")):
        raise AbstainError("no short answer")
    if len(text.split()) > _UNFINISHED and not text.endswith((".", "!", "\u3002")):
        raise AbstainError("no short answer")


def _stated(text: str) -> str:
    """The number that a phrase or sentence states.

    Raises:
        AbstainError: It states none, or one among several.
    """
    if parse_quantity(text):
        return text
    plain = plain_numbers(without_reason(text)).rstrip(" .!\u3002")
    if parse_quantity(plain):
        return plain.strip()
    year = _YEAR.fullmatch(plain)
    if year:
        return year["value"]
    result = _result(plain)
    if result is not None:
        return result
    if _DOUBT.search(plain) or len(set(_STATED_NUMBERS.findall(plain))) > 1:
        raise AbstainError("no single number")
    stated = _STATED.search(plain)
    if stated and parse_quantity(stated["value"]):
        return stated["value"].strip()
    opening = _OPENING_NUMBER.match(plain)
    if opening and len(_ANY_NUMBER.findall(plain)) == 1:
        return opening["value"].strip()
    raise AbstainError("no single number" if _ANY_NUMBER.search(plain) else "no number")


def _result(text: str) -> str | None:
    """The right-hand side of the only equation: "25 - 12.5 = 12.5"; a chain of them counts as one."""
    left, sign, right = text.rpartition("=")
    if not sign or _ASSUMED.match(left) or _NEXT_EQUATION.search(left) or parse_quantity(right) is None:
        return None
    return right.strip()


def _closing_statement(text: str) -> str | None:
    """The number that the last sentence concludes with: "So there are 12 balls."."""
    match = _CLOSING.search(text, max(0, len(text) - FAR))
    if match is None or len(text) <= len(match[0]) or len(match["said"]) > REACH:
        return None
    return _stated(match["said"])
