"""Exact match after normalisation: GQA, and every question whose answer is one word or phrase.

Source: GQA's evaluation compares strings; case, an article and the punctuation around the answer are ours to forgive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian_eval.scoring.reading import score_reading
from cambrian_eval.scoring.short_answer import read_short_answer
from cambrian_eval.scoring.unwrapping import plain_characters

if TYPE_CHECKING:
    from cambrian_eval.types import Question, Score

_AROUND = " \t\n.,;:!?\"'`()[]{}\u3001\u3002"  # full-width marks are plain ones by then
_ARTICLES = ("the ", "an ", "a ")


def score_exact(question: Question, reply: str) -> Score:
    """Score 1 where the short answer equals an accepted one, whatever its case, article and punctuation around it."""
    accepted = {normalise(answer) for answer in question.answers}
    return score_reading(
        question, "exact", lambda: read_short_answer(reply), lambda answer: float(normalise(answer) in accepted)
    )


def normalise(text: str) -> str:
    """Lower case, single spaces, no punctuation around it and no article before it."""
    words = " ".join(plain_characters(text).casefold().split())
    bare = words.strip(_AROUND) or words
    for article in _ARTICLES:
        if bare.startswith(article):
            return bare.removeprefix(article).lstrip()
    return bare
