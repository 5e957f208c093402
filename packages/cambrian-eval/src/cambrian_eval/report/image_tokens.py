"""What pictures cost: tokens of the model's context for one picture."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian_eval.types import ScoredAnswer

COLUMNS = ("", "prompts with pictures", "tokens per picture: mean", "least", "median", "most", "tokens in all")
NUM_BINS = 8


@dataclass(frozen=True)
class ImageTokens:
    """Tokens for one picture, a value for each prompt that shows some, ascending.

    Attributes:
        label: Whose.
        per_picture: A prompt's tokens over its number of pictures.
        total: Tokens of all pictures of all prompts.
    """

    label: str
    per_picture: tuple[float, ...]
    total: int

    def row(self) -> list[str]:
        """The cells of a table with the columns `COLUMNS`."""
        values = self.per_picture
        levels = (statistics.fmean(values), values[0], statistics.median(values), values[-1])
        return [self.label, str(len(values)), *(f"{value:.6g}" for value in levels), f"{self.total:,}"]

    def histogram(self) -> tuple[list[str], list[int]]:
        """Labels of bins and counts; empty where all pictures cost the same."""
        low, high = self.per_picture[0], self.per_picture[-1]
        if low == high:
            return [], []
        width = (high - low) / NUM_BINS
        places = [min(NUM_BINS - 1, int((value - low) / width)) for value in self.per_picture]
        labels = [f"{low + n * width:.0f} to {low + (n + 1) * width:.0f}" for n in range(NUM_BINS)]
        return labels, [places.count(n) for n in range(NUM_BINS)]


def measure_image_tokens(label: str, answers: Sequence[ScoredAnswer]) -> ImageTokens | None:
    """Measure the prompts of a run; None where none shows a picture, or the model does not tell."""
    found = [
        (answer.answer.image_tokens, len(answer.prompt.pictures))
        for answer in answers
        if answer.answer.image_tokens is not None and answer.prompt.pictures
    ]
    if not found:
        return None
    per_picture = sorted(tokens / pictures for tokens, pictures in found)
    return ImageTokens(label, tuple(per_picture), sum(tokens for tokens, _ in found))
