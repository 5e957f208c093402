"""The benchmarks' pictures, and which of them a training picture is a near-duplicate of.

A picture of a benchmark may be known in two views: as it is shown, with boxes drawn on it, and the source it was drawn
on. It is found if either is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cambrian_data.errors import DataError
from cambrian_data.leakage.methods import Method
from cambrian_data.leakage.pictures import Picture
from cambrian_data.leakage.prints import Batch, has_information, print_type
from cambrian_data.leakage.search import HammingIndex, hamming

MAX_PAIRS = 2_000_000
"""Of an audit: more are no list that anybody reads, and fill the memory."""


class View(NamedTuple):
    """A picture of a benchmark in one of its views.

    Attributes:
        number: of the benchmark's picture, over all benchmarks.
        is_source: whether it is what boxes were drawn on.
    """

    number: int
    is_source: bool


class Shown(NamedTuple):
    """A picture of a benchmark.

    Attributes:
        benchmark: number of its set.
        picture: as it is shown.
        size: width and height in pixels; zeros if it cannot be read.
    """

    benchmark: int
    picture: Picture
    size: tuple[int, int]


class Pair(NamedTuple):
    """A benchmark's picture and a training picture that look alike.

    Attributes:
        number: of the benchmark's picture.
        training: number of the training set.
        picture: the training picture.
        size: its width and height in pixels.
        distance: bits, the smaller of the two that follow.
        distance_shown: bits from the picture as it is shown; None where it has no hash.
        distance_source: bits from what boxes were drawn on; None where there is none.
        exact: whether the bytes of the file are those of one of the views.
    """

    number: int
    training: int
    picture: Picture
    size: tuple[int, int]
    distance: int
    distance_shown: int | None
    distance_source: int | None
    exact: bool


class Gallery:
    """Collects the pictures of benchmarks, then finds the near-duplicates among training pictures.

    Args:
        method: of the hashes.
        threshold: largest distance in bits of a near-duplicate.
    """

    def __init__(self, method: Method, threshold: int) -> None:
        self._method, self._threshold = method, threshold
        self.shown: list[Shown] = []
        self._views: list[View] = []
        self._rows: list[np.ndarray] = []
        self._num_pairs = 0

    def add(self, benchmark: int, picture: Picture, row: np.ndarray) -> int:
        """Takes a picture with its fingerprint (a row, or none if it cannot be read); gives its number."""
        size = (int(row["width"][0]), int(row["height"][0])) if len(row) else (0, 0)
        self.shown.append(Shown(benchmark, picture, size))
        if len(row):
            self.add_view(len(self.shown) - 1, row, is_source=False)
        return len(self.shown) - 1

    def add_view(self, number: int, row: np.ndarray, *, is_source: bool) -> None:
        """Takes a view of a picture."""
        self._views.append(View(number, is_source))
        self._rows.append(row)

    def index(self) -> None:
        """Ends the collection."""
        self._prints = np.concatenate([np.zeros(0, print_type(self._method)), *self._rows])
        self._rows.clear()
        self._informed = has_information(self._prints, self._method, self._threshold)
        self._searchable = np.flatnonzero(self._informed)
        hashes = np.ascontiguousarray(self._prints["hash"][self._searchable])
        self._index = HammingIndex(hashes, self._method.num_bits, self._threshold)
        self._by_content: dict[bytes, list[int]] = defaultdict(list)
        for place in np.flatnonzero(~self._informed).tolist():
            self._by_content[self._prints["sha256"][place].tobytes()].append(place)
        self._places: dict[int, list[int]] = defaultdict(list)
        for place, view in enumerate(self._views):
            self._places[view.number].append(place)

    def pairs(self, training: int, batch: Batch) -> Iterator[Pair]:
        """The pairs with a batch of training pictures, by picture.

        Raises:
            DataError: if there are more of them in the audit than anybody can read.
        """
        usable = np.flatnonzero(batch.prints["usable"])
        informed = usable[has_information(batch.prints[usable], self._method, self._threshold)]
        matches = self._index.search(np.ascontiguousarray(batch.prints["hash"][informed]))
        found = set(
            zip(informed[matches.query].tolist(), self._searchable[matches.entry].tolist(), strict=True)
        ) | self._same_content(batch, np.setdiff1d(usable, informed))
        numbers = sorted({(row, self._views[place].number) for row, place in found})
        self._num_pairs += len(numbers)
        if self._num_pairs > MAX_PAIRS:
            raise DataError(
                f"more than {MAX_PAIRS:,} pairs within {self._threshold} bits; lower --threshold or raise --hash-size."
            )
        for row, number in numbers:
            yield self._to_pair(training, batch.pictures[row], batch.prints[row], number)

    def _same_content(self, batch: Batch, rows: np.ndarray) -> set[tuple[int, int]]:
        """Of pictures without information those that are the same file, which is sure whatever they show."""
        if not self._by_content:
            return set()
        contents = ((row, batch.prints["sha256"][row].tobytes()) for row in rows.tolist())
        return {(row, place) for row, content in contents for place in self._by_content.get(content, ())}

    def _to_pair(self, training: int, picture: Picture, row: np.ndarray, number: int) -> Pair:
        places = self._places[number]
        views = self._prints[places]
        distances = hamming(views["hash"], row["hash"][None]).tolist()
        by_view = {self._views[place].is_source: bits for place, bits in zip(places, distances, strict=True)}
        return Pair(
            number=number,
            training=training,
            picture=picture,
            size=(int(row["width"]), int(row["height"])),
            distance=min(distances),
            distance_shown=by_view.get(False),
            distance_source=by_view.get(True),
            exact=bool((views["sha256"] == row["sha256"]).all(axis=1).any()),
        )

    def uninformed(self) -> Iterator[View]:
        """The views that were not searched for, because a match would say nothing."""
        return (self._views[place] for place in np.flatnonzero(~self._informed).tolist())

    def drawing_distances(self) -> dict[int, Counter[int]]:
        """By benchmark: how many pictures differ in how many bits from what their boxes were drawn on."""
        counts: dict[int, Counter[int]] = defaultdict(Counter)
        for number, places in self._places.items():
            if len(places) == 2:
                first, second = self._prints["hash"][places]
                counts[self.shown[number].benchmark][int(hamming(first[None], second[None])[0])] += 1
        return counts
