"""The normaliser of VQA answers that the reference took over, slips included, and its soft accuracy.

Slips: a full stop is removed unless a digit follows it, whatever stands before it, and only the first 32 of a reply
are; any comma between digits makes all punctuation vanish where it would otherwise become a space.

Source: the VQA evaluation of Antol et al., in the form of M4C's evaluator.
"""

from __future__ import annotations

from collections.abc import Sequence

from cambrian_eval.scoring import vqa
from cambrian_eval.scoring.abstention import AbstainError

NUM_ANNOTATORS = 10

_MOST_FULL_STOPS = 32


def normalise(text: str) -> str:
    """Lower case, digits for number words, no articles, little punctuation."""
    return vqa.normalise(text, max_full_stops=_MOST_FULL_STOPS)


def soft_accuracy(text: str, truths: Sequence[str]) -> float:
    """How many annotators agree: a third for each, at most 1, averaged over leaving each of the ten out.

    Raises:
        AbstainError: There are not ten truths; the original asserts them.
    """
    if len(truths) != NUM_ANNOTATORS:
        raise AbstainError(f"the original crashes on {len(truths)} reference answers; it asserts {NUM_ANNOTATORS}")
    agree = [normalise(truth) == text for truth in truths]
    return plain_sum([min(1, (sum(agree) - one) / 3) for one in agree]) / NUM_ANNOTATORS


def plain_sum(values: Sequence[float]) -> float:
    """The sum from left to right: from Python 3.12 on `sum` rounds otherwise than the original did."""
    total = 0.0
    for value in values:
        total += value
    return total
