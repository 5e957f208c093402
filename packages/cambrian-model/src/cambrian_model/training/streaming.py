"""Data that is read from its beginning to its end, never by number: the same steps as from an index, window by window.

A window is as many samples as are packed together. It is cut where whole steps end, and what is behind the cut begins
the next window. So a place in a stream is where the source stood when the window began, and a number of steps: no
sample has to be carried along in a checkpoint, and the order depends on the source and the seed alone.
"""

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from cambrian_model.errors import CambrianModelError, TrainingError
from cambrian_model.processing.image_source import read_image_size
from cambrian_model.processing.measure import Measure
from cambrian_model.training.bad_samples import ADVICE, BadSample, OnBad, UnreadableSampleError
from cambrian_model.training.batches import Place, StepRows
from cambrian_model.training.index import Conversation, Encoder, sample_name
from cambrian_model.training.packing import Limits, Row, pack
from cambrian_model.training.stream_sources import DatasetSource, MixedSource, StreamSource, Weighted

__all__ = [
    "DatasetSource",
    "MixedSource",
    "StreamPlace",
    "StreamSchedule",
    "StreamSource",
    "Weighted",
    "read_place",
]

WINDOW = 2048  # samples packed together
UNREADABLE = "cannot be read"  # among the reasons for which samples are left out


@dataclass(frozen=True)
class StreamPlace(Place):
    """A place in a stream; JSON can hold it, see `read_place`.

    Attributes:
        source: Where the source stood when the window began; None at the beginning of an epoch.
        window_step: Steps of the window that are behind.
        left_out: Samples that the windows before this one left out, by reason, over all epochs.
    """

    source: Mapping[str, Any] | None = None
    window_step: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)


def read_place(values: Mapping[str, Any]) -> Place:
    """Returns the place, in a stream or not, that a checkpoint holds as `dataclasses.asdict` of it."""
    return StreamPlace(**values) if "window_step" in values else Place(**values)


class _Item(NamedTuple):
    """What a source gave, measured.

    Attributes:
        conversation: It; empty if it is left out.
        length: Its tokens, at most those of a row.
        num_images: Its pictures.
        reason: Why it is left out; None if it is not.
        bad: What is wrong, if it cannot be read.
        after: Where the source stands behind it.
    """

    conversation: Conversation
    length: int
    num_images: int
    reason: str | None
    bad: BadSample | None
    after: dict[str, Any]


class _Window(NamedTuple):
    """The steps of a window, and where it ends.

    Attributes:
        steps: Rows of every step, made of places in what is waiting.
        taken: How much of what is waiting belongs to the window, from its beginning.
        is_last: Whether nothing follows in this epoch.
    """

    steps: list[list[Row]]
    taken: int
    is_last: bool


@dataclass(frozen=True)
class StreamSchedule:
    """The order of a stream. Only one `steps` may be under way at a time: it moves the source.

    Attributes:
        source: What is read.
        encoder: Measures samples, by text and image headers alone.
        limits: What a row holds.
        step_rows: Rows of a step.
        seed: The recipe's.
        window: Samples packed together; their pictures are held in memory if the source gives bytes.
        on_bad: What is done with a sample that cannot be read.
        too_long: What is done with a sample longer than a row.
    """

    source: StreamSource
    encoder: Encoder
    limits: Limits
    step_rows: int
    seed: int
    window: int = WINDOW
    on_bad: OnBad = "error"
    too_long: Literal["truncate", "drop"] = "truncate"

    def num_steps(self, epochs: int) -> int:
        """Refuses: how long a stream is shows only at its end.

        Raises:
            TrainingError: Always.
        """
        raise TrainingError(
            f"a stage of {epochs} epochs reads a stream, whose length nobody knows before its end; set max_steps, on "
            "which the learning rate's schedule depends"
        )

    def steps(self, place: Place) -> Iterator[StepRows]:
        """Yields the rows of every step from `place` on, without end.

        Raises:
            TrainingError: A sample cannot be read, the data is not that of `place`, or an epoch has no sample.
        """
        if not isinstance(place, StreamPlace):
            if place.step:
                raise TrainingError(
                    f"step {place.step} of epoch {place.epoch} is no place in a stream; continue a run with the data "
                    "that it was started with"
                )
            place = StreamPlace(place.epoch)
        while True:
            place = yield from self._epoch(place)

    def _epoch(self, place: StreamPlace) -> Generator[StepRows, None, StreamPlace]:
        """Yields the rest of an epoch and returns where the next one begins."""
        if place.source is None:
            self.source.start(place.epoch)
        else:
            self.source.load_state_dict(place.source)
        behind = place.window_step
        begin = replace(place, step=place.step - behind, source=self.source.state_dict(), window_step=0)
        items, waiting = self._items(), list[_Item]()
        while True:
            window = self._next_window(waiting, items, [self.seed, begin.epoch, begin.step])
            taken = waiting[: window.taken]
            after = self._after(begin, window, taken)
            bad = [item.bad for item in taken if item.bad is not None]
            for number in range(behind, len(window.steps)):
                rows = [[waiting[place].conversation for place in row] for row in window.steps[number]]
                within = replace(begin, step=begin.step + number + 1, window_step=number + 1)
                is_last = number + 1 == len(window.steps)
                yield StepRows(rows, begin.epoch, after if is_last else within, bad if number == 0 else [])
            del waiting[: window.taken]
            if window.is_last:
                return after
            begin, behind = after, 0

    def _after(self, begin: StreamPlace, window: _Window, taken: Sequence[_Item]) -> StreamPlace:
        """Returns where the window after this one begins.

        Raises:
            TrainingError: The epoch is over and had no steps.
        """
        left_out = dict(Counter(begin.left_out) + Counter(item.reason for item in taken if item.reason))
        step = begin.step + len(window.steps)
        if not window.is_last:
            return StreamPlace(begin.epoch, step, taken[-1].after, left_out=left_out)
        if not step:
            reasons = "; ".join(f"{count}: {reason}" for reason, count in left_out.items()) or "it holds no records"
            raise TrainingError(f"no sample of the stream can be used in rows of {self.limits} ({reasons})")
        return StreamPlace(begin.epoch + 1, left_out=left_out)

    def _next_window(self, waiting: list[_Item], items: Iterator[_Item], seed: Sequence[int]) -> _Window:
        """Reads on until there are samples for a window and for a step, and cuts them where whole steps end.

        `waiting` is what was read and not taken yet; what is cut off begins the next window, so that windows are the
        same whether or not reading was interrupted.
        """
        good = [place for place, item in enumerate(waiting) if item.reason is None]
        size, rows = 0, list[Row]()
        is_last = False
        while not is_last and len(rows) < self.step_rows:
            size += self.window
            while len(good) <= size and (item := next(items, None)) is not None:
                if item.reason is None:
                    good.append(len(waiting))
                waiting.append(item)
            is_last = len(good) <= size
            rows = self._pack(good[:size], waiting)
        if not is_last and len(rows) % self.step_rows:
            size, rows = self._cut(good[:size], waiting, len(rows) // self.step_rows * self.step_rows)
        rows = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
        steps = [rows[start : start + self.step_rows] for start in range(0, len(rows), self.step_rows)]
        return _Window(steps, len(waiting) if is_last else good[size - 1] + 1, is_last)

    def _cut(self, good: list[int], waiting: Sequence[_Item], num_rows: int) -> tuple[int, list[Row]]:
        """Returns how many of these samples make so many rows, and the rows."""
        fewest, most = 0, len(good)  # the first so many samples make not too many rows, and too many
        rows = list[Row]()
        while len(rows) < num_rows and most - fewest > 1:
            middle = (fewest + most) // 2
            tried = self._pack(good[:middle], waiting)
            if len(tried) > num_rows:
                most = middle
            else:
                fewest, rows = middle, tried
        return fewest, _split(rows, num_rows)

    def _pack(self, samples: Sequence[int], waiting: Sequence[_Item]) -> list[Row]:
        lengths = [item.length for item in waiting]
        return pack(samples, lengths, [item.num_images for item in waiting], self.limits)

    def _items(self) -> Iterator[_Item]:
        """Yields what is left of the source's epoch, measured.

        Raises:
            TrainingError: A sample cannot be read, and is not to be left out.
        """
        for given in self.source:
            after = self.source.state_dict()
            measured = given if isinstance(given, UnreadableSampleError) else self._measured(given, after)
            yield self._unreadable(measured, after) if isinstance(measured, UnreadableSampleError) else measured

    def _measured(self, conversation: Conversation, after: dict[str, Any]) -> _Item | UnreadableSampleError:
        images = conversation.get("images") or []
        try:
            sizes = [read_image_size(image, f"image {i}") for i, image in enumerate(images)]
            measure = self.encoder.measure(conversation["messages"], sizes)
        except CambrianModelError as error:
            return UnreadableSampleError(sample_name(conversation), str(error))
        reason = self._misfit(measure, len(images))
        length = min(measure.length, self.limits.row_tokens)
        return _Item({} if reason else conversation, length, len(images), reason, None, after)

    def _unreadable(self, error: UnreadableSampleError, after: dict[str, Any]) -> _Item:
        if self.on_bad == "error":
            raise TrainingError(f"{error}; {ADVICE}") from error
        return _Item({}, 0, 0, UNREADABLE, BadSample(-1, error.name, error.reason), after)

    def _misfit(self, measure: Measure, num_images: int) -> str | None:
        """Returns why a sample cannot be used; in the words of an indexed plan."""
        row = f"a row of {self.limits.row_tokens} tokens"
        if measure.length > self.limits.row_tokens:
            if self.too_long == "drop":
                return f"longer than {row}"
            if measure.picture_end > self.limits.row_tokens:
                return f"a picture does not end within {row}"
            if measure.first_supervised >= self.limits.row_tokens:
                return f"no supervised token within {row}"
        if self.limits.max_images is not None and num_images > self.limits.max_images:
            return f"more than {self.limits.max_images} images"
        return None


def _split(rows: Sequence[Row], count: int) -> list[Row]:
    """Returns exactly `count` rows of the same samples, the fullest ones halved where there are fewer.

    Adding a sample may add more than one row, so a prefix of the samples need not exist that makes just so many.
    """
    rows = list(rows)
    while len(rows) < count:
        fullest = max(range(len(rows)), key=lambda row: len(rows[row]))
        rows[fullest], half = rows[fullest][::2], rows[fullest][1::2]
        rows.append(half)
    return rows
