"""Edit distance to a page's text: SynthDoG.

Source: the reference counts the pages read within 0, 5, 10, 25 and 50 edits, case and outer spaces ignored; Donut,
which published the data, reports 1 - edits / length. The value here is the latter, `num_edits` serves the counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian_eval.scoring.abstention import AbstainError
from cambrian_eval.scoring.reading import Reading, score_reading
from cambrian_eval.scoring.refusals import opens_with_refusal
from cambrian_eval.scoring.unwrapping import plain_characters, unwrap_transcript

if TYPE_CHECKING:
    from cambrian_eval.types import Question, Score

LIMITS = (0, 5, 10, 25, 50)
"""The numbers of edits within which the reference counts a page as read."""

_MOST_WORDS_OF_REFUSAL = 60  # a page may begin with "I cannot see" too


def score_edit_distance(question: Question, reply: str) -> Score:
    """Score 1 - edits / characters of the longer text, for the accepted text that is nearest."""
    from rapidfuzz.distance import Levenshtein

    return score_reading(
        question,
        "edit distance",
        lambda: _read(reply),
        lambda answer: max(
            Levenshtein.normalized_similarity(_normalise(answer), _normalise(accepted)) for accepted in question.answers
        ),
    )


def num_edits(extracted: str, accepted: str) -> int:
    """Characters to insert, delete or replace, case and outer spaces ignored, to turn one text into the other."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.distance(_normalise(extracted), _normalise(accepted))


def _read(reply: str) -> Reading:
    text = unwrap_transcript(reply)
    if len(text.split()) <= _MOST_WORDS_OF_REFUSAL and opens_with_refusal(text):
        raise AbstainError("refusal")
    return Reading(text, "whole reply")


def _normalise(text: str) -> str:
    return plain_characters(text).lower().strip()
