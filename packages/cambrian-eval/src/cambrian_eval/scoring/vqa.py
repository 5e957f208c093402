"""VQA soft accuracy: a reply counts as much as people agree with it. TextVQA, VizWiz, and VQA-like sets.

Source: Antol et al. 2015, with the normaliser of M4C (EvalAIAnswerProcessor), which TextVQA and VizWiz are scored with.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cambrian_eval.scoring.contractions import CONTRACTIONS
from cambrian_eval.scoring.reading import score_reading
from cambrian_eval.scoring.short_answer import read_short_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian_eval.types import Question, Score

ENOUGH = 3
"""So many people who gave an answer make it right."""

_ARTICLES = {"a", "an", "the"}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBERS)}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"(?<=\d),+(?=\d)")
# The published pattern means "not after a digit" but misspells it: it removes every full stop without a digit behind.
_FULL_STOP = re.compile(r"\.(?!\d)")


def score_vqa(question: Question, reply: str) -> Score:
    """Score the share of people, left out one at a time, whose fellows bear the short answer out."""
    return score_reading(
        question,
        "vqa",
        lambda: read_short_answer(reply),
        lambda answer: soft_accuracy(answer, question.answers),
    )


def soft_accuracy(answer: str, given: Sequence[str]) -> float:
    """Mean over people left out of min(1, matches among the others / 3).

    With fewer than four people there are fewer than three others, and all the others must agree: the divisor is then
    their number. A single accepted answer is matched or not.

    Args:
        answer: What the model answered.
        given: What people answered, usually ten of them.

    Returns:
        A value from 0 to 1.
    """
    wanted = normalise(answer)
    matches = [normalise(one) == wanted for one in given]
    if len(matches) == 1:
        return float(matches[0])
    needed = min(ENOUGH, len(matches) - 1)
    total = sum(matches)
    return sum(min(1.0, (total - match) / needed) for match in matches) / len(matches)


def normalise(text: str, *, max_full_stops: int = 0) -> str:
    """The published normalisation: lower case, number words as digits, no articles, no punctuation.

    Args:
        text: An answer.
        max_full_stops: How many full stops are removed; 0 for all of them.
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    text = text.strip().replace("\n", " ").replace("\t", " ").strip()
    words = [_DIGITS.get(word, word) for word in _without_punctuation(text, max_full_stops).split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _without_punctuation(text: str, max_full_stops: int) -> str:
    number = bool(_COMMA_IN_NUMBER.search(text))
    cleaned = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if beside_space or number else " ")
    return _FULL_STOP.sub("", cleaned, count=max_full_stops)
