"""Packing: which samples share a row, so that rows are few and hold neither too many tokens nor too many pictures.

Rows are filled one after another, each with what leaves the least room in both budgets together. Samples lie on one
shelf per number of pictures, ordered by length: of a shelf, only the longest sample that still fits can be the best.
"""

import bisect
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Row = list[int]  # numbers of the samples in one packed row
Integers: TypeAlias = Sequence[int] | NDArray[np.integer[Any]]

# Few samples leave a greedy choice little to choose from: for up to FEW, others are tried too, for which room for
# pictures counts so many times as much beside room for tokens.
FEW = 1024
OTHER_WEIGHTINGS = (0.5, 2.0, 0.25, 4.0)


class Limits(NamedTuple):
    """What a row holds at most."""

    row_tokens: int
    max_images: int | None = None

    def __str__(self) -> str:
        images = "" if self.max_images is None else f" and {self.max_images} images"
        return f"{self.row_tokens} tokens{images}"


def lower_bound(lengths: Integers, num_images: Integers, limits: Limits) -> int:
    """Returns a number of rows that no packing can stay below.

    It is the largest of the rows that all tokens fill, those that all pictures fill, and the samples of which no two
    fit into a row because each is longer than half of it.
    """
    tokens, images = np.asarray(lengths, np.int64), np.asarray(num_images, np.int64)
    full_of_tokens = -(-int(tokens.sum()) // limits.row_tokens)
    full_of_images = -(-int(images.sum()) // limits.max_images) if limits.max_images else 0
    alone = int((2 * tokens > limits.row_tokens).sum())
    return max(full_of_tokens, full_of_images, alone)


def pack(samples: Integers, lengths: Integers, num_images: Integers, limits: Limits) -> list[Row]:
    """Packs samples that each fit into a row; the same arguments always give the same rows.

    Takes time in proportion to the samples times the different numbers of pictures among them.

    Args:
        samples: Their numbers; one that is given twice is packed twice. Among equal samples their order decides.
        lengths: Tokens of every sample there is, by number.
        num_images: Pictures, likewise.
        limits: What a row holds.

    Source: the rule is the norm-based greedy one of Panigrahy, Talwar, Uyeda and Wieder, "Heuristics for vector bin
        packing" (2011).
    """
    chosen = np.asarray(samples, np.int64)
    tokens, images = np.asarray(lengths)[chosen], np.asarray(num_images)[chosen]
    assert tokens.max(initial=0) <= limits.row_tokens, "a sample is longer than a row"
    assert limits.max_images is None or images.max(initial=0) <= limits.max_images, "a sample has too many pictures"
    if not chosen.size:
        return []
    rows = _fill_rows(_shelves(chosen, tokens, images, limits), limits)
    fewest = lower_bound(tokens, images, limits)
    for weighting in OTHER_WEIGHTINGS:
        if len(rows) == fewest or chosen.size > FEW:
            break
        rows = min(rows, _fill_rows(_shelves(chosen, tokens, images, limits), limits, weighting), key=len)
    return rows


class _Shelf(NamedTuple):
    """The samples with one number of pictures, shortest first."""

    images: int
    lengths: list[int]
    samples: list[int]


def _shelves(
    samples: NDArray[np.int64], tokens: NDArray[np.integer[Any]], images: NDArray[np.integer[Any]], limits: Limits
) -> list[_Shelf]:
    if limits.max_images is None:
        images = np.zeros_like(tokens)
    order = np.lexsort((tokens, images))
    samples, tokens, images = samples[order], tokens[order], images[order]
    counts, starts = np.unique(images, return_index=True)
    parts = zip(np.split(tokens, starts[1:]), np.split(samples, starts[1:]), strict=True)
    return [
        _Shelf(count, lengths.tolist(), numbers.tolist())
        for count, (lengths, numbers) in zip(counts.tolist(), parts, strict=True)
    ]


def _fill_rows(shelves: list[_Shelf], limits: Limits, weighting: float = 1.0) -> list[Row]:
    """Empties the shelves into rows."""
    row_tokens, max_images = limits.row_tokens, limits.max_images or 1
    # Room is measured in shares of a row, and counts the more, the more rows would be full of it.
    tokens_weight = sum(sum(shelf.lengths) for shelf in shelves) / row_tokens**3
    images_weight = sum(shelf.images * len(shelf.samples) for shelf in shelves) / max_images**3 * weighting
    rows: list[Row] = []
    while shelves:
        row, tokens_left, images_left = [], row_tokens, max_images
        # The largest sample goes first: what is left for the end should be small.
        largest = max(shelves, key=lambda shelf: max(shelf.lengths[-1] / row_tokens, shelf.images / max_images))
        found: tuple[_Shelf, int] | None = (largest, -1)
        while found:
            shelf, place = found
            row.append(shelf.samples.pop(place))
            tokens_left -= shelf.lengths.pop(place)
            images_left -= shelf.images
            if not shelf.samples:
                shelves.remove(shelf)
            found = _best_fit(shelves, tokens_left, images_left, tokens_weight, images_weight)
        rows.append(row)
    return rows


def _best_fit(
    shelves: list[_Shelf], tokens_left: int, images_left: int, tokens_weight: float, images_weight: float
) -> tuple[_Shelf, int] | None:
    """Returns the sample, by shelf and place, that leaves the least room, or None if none fits."""
    best, least = None, math.inf
    for shelf in shelves:
        if shelf.images > images_left:
            break
        place = bisect.bisect_right(shelf.lengths, tokens_left) - 1
        if place < 0:
            continue
        tokens, images = tokens_left - shelf.lengths[place], images_left - shelf.images
        room = tokens_weight * tokens * tokens + images_weight * images * images
        if room < least:
            best, least = (shelf, place), room
    return best
