"""Containment: the reply is right if an accepted answer stands in it. OCRBench.

Source: OCRBench's official script. Handwritten formulas (HME100k) are compared without spaces and in their own case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian_eval.scoring.abstention import AbstainError
from cambrian_eval.scoring.reading import Reading, score_reading
from cambrian_eval.scoring.refusals import opens_with_refusal
from cambrian_eval.scoring.short_answer import last_declared
from cambrian_eval.scoring.unwrapping import plain_characters, unwrap_text, unwrap_transcript

if TYPE_CHECKING:
    from cambrian_eval.types import Question, Score


def score_contains(question: Question, reply: str) -> Score:
    """Score 1 where the declared answer, or else the reply, contains an accepted answer.

    `question.details["formula"]`, if true, compares the whole reply, as for handwritten formulas. An accepted answer
    without characters is never contained.
    """
    formula = bool(question.details.get("formula", False))
    accepted = [bare for bare in (_normalise(answer, formula=formula) for answer in question.answers) if bare]
    return score_reading(
        question,
        "containment",
        lambda: _read(reply, formula=formula),
        lambda answer: float(any(wanted in _normalise(answer, formula=formula) for wanted in accepted)),
    )


def _read(reply: str, *, formula: bool) -> Reading:
    # TeX is compared as it was written, so nothing of it is taken off, and "3 . 5" is no end of a sentence.
    text = unwrap_transcript(reply) if formula else unwrap_text(reply)
    declared = None if formula else last_declared(text)
    if declared is not None:
        return Reading(declared, "declared answer")
    if opens_with_refusal(text):
        raise AbstainError("refusal")
    return Reading(text, "whole reply")


def _normalise(text: str, *, formula: bool) -> str:
    plain = plain_characters(text)
    return "".join(plain.split()) if formula else " ".join(plain.lower().split())
