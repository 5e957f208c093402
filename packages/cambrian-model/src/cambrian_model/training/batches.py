"""The stream of encoded steps: from a place in the data, forever, whatever the number of workers.

Each item is one optimizer step: its packed rows, cut into the batches that go through the model one after another.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.utils import data

from cambrian_model.errors import CambrianModelError, TrainingError
from cambrian_model.processing.sample import Sample
from cambrian_model.training.index import DataIndex, Dataset, Encoder, sample_name
from cambrian_model.training.packing import Batch, Limits, Plan, Row, collate, plan_epoch, steps_of
from cambrian_model.training.recipe import BatchSection
from cambrian_model.training.workers import end_with_parent


@dataclass(frozen=True)
class Place:
    """A place in the data: the next step to take, `step` of `epoch`, both from 0."""

    epoch: int = 0
    step: int = 0


class StepRows(NamedTuple):
    """One optimizer step as planned: its rows, their epoch, and where the step after this one is."""

    rows: list[Row]
    epoch: int
    next_place: Place


@dataclass(frozen=True)
class StepData:
    """One optimizer step.

    Attributes:
        batches: What goes through the model, one after another.
        ids: Names of all samples, for error messages.
        epoch: Epoch that it belongs to, from 0.
        next_place: Where the step after this one is.
    """

    batches: list[Batch]
    ids: list[str]
    epoch: int
    next_place: Place

    @property
    def supervised_tokens(self) -> int:
        """Tokens that the loss counts, in all batches together."""
        return sum(batch.supervised_tokens for batch in self.batches)


@dataclass(frozen=True)
class Schedule:
    """The order of a stage's data, a pure function of its arguments."""

    index: DataIndex
    batch: BatchSection
    seed: int

    def plan(self, epoch: int) -> Plan:
        """Returns the rows of an epoch.

        Raises:
            TrainingError: No sample fits into a row.
        """
        limits = Limits(self.batch.row_tokens, self.batch.max_images)
        return plan_epoch(self.index.lengths, self.index.num_images, limits, self.index.hash, self.seed, epoch)

    def num_steps(self, epochs: int) -> int:
        """Returns how many optimizer steps the first `epochs` epochs have."""
        return sum(len(steps_of(self.plan(epoch), self.batch.step_rows)) for epoch in range(epochs))

    def steps(self, place: Place) -> Iterator[StepRows]:
        """Yields the rows of every step from `place` on, without end."""
        while True:
            steps = steps_of(self.plan(place.epoch), self.batch.step_rows)
            for step in range(place.step, len(steps)):
                is_last = step + 1 == len(steps)
                next_place = Place(place.epoch + 1) if is_last else Place(place.epoch, step + 1)
                yield StepRows(steps[step], place.epoch, next_place)
            place = Place(place.epoch + 1)


def stream(
    dataset: Dataset,
    encoder: Encoder,
    schedule: Schedule,
    pad_token_id: int,
    place: Place,
    num_workers: int = 0,
) -> Iterator[StepData]:
    """Yields encoded steps from `place` on, without end.

    Raises:
        TrainingError: A sample cannot be encoded, or is not as it was when it was indexed; names the sample.
    """
    loader = data.DataLoader(
        _EncodedSteps(dataset, encoder, schedule, pad_token_id),
        sampler=_Steps(lambda: schedule.steps(place)),
        batch_size=None,
        num_workers=num_workers,
        worker_init_fn=end_with_parent(),
        generator=torch.Generator(),  # its own: the loader would else draw from the generator that dropout uses
    )
    for step in loader:
        if isinstance(step, CambrianModelError):
            raise step
        yield step


@dataclass(frozen=True)
class _Steps:
    """The sampler: what is asked of `_EncodedSteps`, in order."""

    make: Callable[[], Iterator[StepRows]]

    def __iter__(self) -> Iterator[StepRows]:
        return self.make()


@dataclass(frozen=True)
class _EncodedSteps(data.Dataset):
    """Encodes the rows of a step, in whichever process; a user's error is handed back, to be raised in the main one."""

    dataset: Dataset
    encoder: Encoder
    schedule: Schedule
    pad_token_id: int

    def __getitem__(self, planned: StepRows) -> StepData | CambrianModelError:
        rows = planned.rows
        try:
            samples = [[self._encode(sample) for sample in row] for row in rows]
        except CambrianModelError as error:
            return error
        size, row_tokens = self.schedule.batch.rows, self.schedule.batch.row_tokens
        batches = [
            collate(samples[start : start + size], row_tokens, self.pad_token_id) for start in range(0, len(rows), size)
        ]
        ids = [self.schedule.index.ids[sample] for row in rows for sample in row]
        return StepData(batches, ids, planned.epoch, planned.next_place)

    def _encode(self, number: int) -> Sample:
        conversation = self.dataset[number]
        name, planned = sample_name(conversation), self.schedule.index.lengths[number]
        try:
            sample = self.encoder.encode(conversation["messages"], conversation.get("images") or [])
        except CambrianModelError as error:
            raise TrainingError(f"{name}: {error}") from error
        if len(sample.input_ids) != planned:
            raise TrainingError(
                f"{name} has {len(sample.input_ids)} tokens, but had {planned} when the data was indexed; "
                "do not change records or pictures during a run"
            )
        return sample
