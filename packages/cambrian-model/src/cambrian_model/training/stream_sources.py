"""Sources that are read in order: what a source is, a data set with samples by number, several mixed by weight."""

import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from cambrian_model.errors import TrainingError
from cambrian_model.training.bad_samples import UnreadableSampleError
from cambrian_model.training.index import Conversation, Dataset, sample_name


class StreamSource(Protocol):
    """Conversations in an order of its own, for ever the same one in the same epoch.

    Iterating goes on from where the source stands to the end of the epoch. In the place of a record that cannot be
    read, the error is given, not raised.
    """

    def start(self, epoch: int) -> None:
        """Goes to the beginning of an epoch, counted from 0."""

    def __iter__(self) -> Iterator[Conversation | UnreadableSampleError]: ...

    def state_dict(self) -> dict[str, Any]:
        """Returns where the source stands, behind what iterating gave last, as what JSON can hold."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes to where a source of the same data stood.

        Raises:
            TrainingError: The data is not the same.
        """


class DatasetSource:
    """A data set with samples by number, shuffled anew in every epoch: what is mixed with a stream."""

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self._dataset, self._seed = dataset, seed
        self._epoch, self._next = 0, 0

    def start(self, epoch: int) -> None:
        """Goes to the beginning of an epoch."""
        self._epoch, self._next = epoch, 0

    def __iter__(self) -> Iterator[Conversation | UnreadableSampleError]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(len(self._dataset)).tolist()
        while self._next < len(order):
            number = order[self._next]
            self._next += 1
            try:
                sample: Conversation | UnreadableSampleError = self._dataset[number]
            except UnreadableSampleError as error:
                sample = error
            yield sample

    def state_dict(self) -> dict[str, Any]:
        """Returns where the source stands."""
        return {"epoch": self._epoch, "next": self._next, "samples": len(self._dataset)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes to where a source of the same data stood."""
        if state["samples"] != len(self._dataset):
            raise TrainingError(
                f"a data set had {state['samples']} samples when the run was saved and has {len(self._dataset)} now; "
                "continue with the same data, or start a new run"
            )
        self._epoch, self._next = state["epoch"], state["next"]


class Weighted(NamedTuple):
    """One source of a mixture.

    Attributes:
        source: It.
        weight: How often each of its samples occurs in an epoch, on average.
        size: Its samples, where known.
    """

    source: StreamSource
    weight: float = 1.0
    size: int | None = None


class MixedSource:
    """Several sources as one, each at its own rate until all are at their end.

    Where the sizes of all sources are known, rates are such that all end together; else they are the weights. Which
    samples an epoch has is decided by their names: with a weight of 0.5, one half in one epoch and the other in the
    next; with 1.5, every sample, and half of them again in a second reading of the source.

    Raises:
        TrainingError: A weight is not a positive number.
    """

    def __init__(self, sources: Mapping[str, Weighted]) -> None:
        for name, source in sources.items():
            if not 0 < source.weight < math.inf:
                raise TrainingError(f'source "{name}" has weight {source.weight}; expected a number above 0')
        self._sources = dict(sources)
        all_known = all(source.size for source in sources.values())
        self._rates = {name: source.weight * (source.size or 1 if all_known else 1) for name, source in sources.items()}
        self.start(0)

    def start(self, epoch: int) -> None:
        """Goes to the beginning of an epoch."""
        self._epoch = epoch
        self._readings = dict.fromkeys(self._sources, 0)
        self._taken = dict.fromkeys(self._sources, 0)
        for name in self._sources:
            self._start_reading(name)

    def __iter__(self) -> Iterator[Conversation | UnreadableSampleError]:
        samples = {name: self._samples(name) for name in self._sources}
        while samples:
            name = min(samples, key=lambda name: (self._taken[name] + 1) / self._rates[name])
            item = next(samples[name], None)
            if item is None:
                del samples[name]
                continue
            self._taken[name] += 1
            yield item

    def state_dict(self) -> dict[str, Any]:
        """Returns where all sources stand."""
        states = {name: source.source.state_dict() for name, source in self._sources.items()}
        return {"epoch": self._epoch, "readings": {**self._readings}, "taken": {**self._taken}, "sources": states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes to where the same sources stood."""
        if list(state["sources"]) != list(self._sources):
            raise TrainingError(
                f"the run was saved with the sources {', '.join(state['sources'])}, and now has "
                f"{', '.join(self._sources)}; continue with the same ones in the same order, or start a new run"
            )
        self._epoch, self._readings, self._taken = state["epoch"], {**state["readings"]}, {**state["taken"]}
        for name, source in self._sources.items():
            source.source.load_state_dict(state["sources"][name])

    def _samples(self, name: str) -> Iterator[Conversation | UnreadableSampleError]:
        """Yields what an epoch has of a source, whose every reading gives the samples that occur once more."""
        source, weight, _ = self._sources[name]
        while self._readings[name] < math.ceil(weight):
            for item in source:
                if self._occurrences(item, weight) > self._readings[name]:
                    yield item
            self._readings[name] += 1
            self._start_reading(name)

    def _occurrences(self, item: Conversation | UnreadableSampleError, weight: float) -> int:
        if isinstance(item, UnreadableSampleError):
            return 1  # told once, whatever the weight
        return occurrences(sample_name(item), weight, self._epoch)

    def _start_reading(self, name: str) -> None:
        source, weight, _ = self._sources[name]
        source.start(self._epoch * math.ceil(weight) + self._readings[name])


def occurrences(name: str, weight: float, epoch: int) -> int:
    """Returns how often an epoch has a sample of this name: `weight` times on average, never off by one or more."""
    phase = zlib.crc32(name.encode()) / 2**32
    return math.floor((epoch + 1) * weight + phase) - math.floor(epoch * weight + phase)
