"""Average normalised Levenshtein similarity: DocVQA, InfographicVQA, ST-VQA.

Source: Biten et al. 2019 (ST-VQA); the threshold is 0.5, and a similarity of exactly 0.5 counts, as in the
robust-reading server's script.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian_eval.scoring.reading import score_reading
from cambrian_eval.scoring.short_answer import read_short_answer
from cambrian_eval.scoring.unwrapping import plain_characters

if TYPE_CHECKING:
    from cambrian_eval.types import Question, Score

THRESHOLD = 0.5


def score_anls(question: Question, reply: str) -> Score:
    """Score the similarity of the short answer to the accepted one that is nearest; below 0.5 it is nothing."""
    return score_reading(
        question,
        "anls",
        lambda: read_short_answer(reply),
        lambda answer: max(similarity(answer, accepted) for accepted in question.answers),
    )


def similarity(answer: str, accepted: str) -> float:
    """1 - edits / characters of the longer text, case and runs of spaces ignored; 0 where that is below 0.5."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.normalized_similarity(_normalise(answer), _normalise(accepted), score_cutoff=THRESHOLD)


def _normalise(text: str) -> str:
    return " ".join(plain_characters(text).lower().split())
