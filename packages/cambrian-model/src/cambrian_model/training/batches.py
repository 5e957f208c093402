"""The stream of encoded steps: from a place in the data, forever, whatever the number of workers and ranks.

Each item is this rank's share of one optimizer step: its packed rows, cut into the batches that go through the model
one after another. Every rank has the same number of batches in a step; one that is short of rows gets empty ones.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import torch
from torch.utils import data

from cambrian_model.errors import CambrianModelError, TrainingError
from cambrian_model.processing.sample import Sample
from cambrian_model.training.bad_samples import ADVICE, BadSample, UnreadableSampleError
from cambrian_model.training.collate import Batch, collate
from cambrian_model.training.index import Conversation, Dataset, Encoder, sample_name
from cambrian_model.training.mixing import MixtureIndex, Plan, plan_epoch, steps_of
from cambrian_model.training.packing import Limits
from cambrian_model.training.recipe.stage import BatchSection
from cambrian_model.training.workers import end_with_parent


@dataclass(frozen=True)
class Place:
    """A place in the data: the next step to take, `step` of `epoch`, both from 0."""

    epoch: int = 0
    step: int = 0


SampleRef = int | Conversation  # number of a sample in the stage's data, or, of a stream, the sample itself


class StepRows(NamedTuple):
    """One optimizer step as planned.

    Attributes:
        rows: Its samples.
        epoch: From 0.
        next_place: Where the step after this one is.
        bad: Samples that could not be read when it was planned, as those of a stream are.
    """

    rows: Sequence[Sequence[SampleRef]]
    epoch: int
    next_place: Place
    bad: Sequence[BadSample] = ()


class Share(NamedTuple):
    """Which rows of every step are this rank's: `rank`, `rank + ranks`, and so on."""

    rank: int = 0
    ranks: int = 1

    def of(self, rows: Sequence[Sequence[SampleRef]]) -> Sequence[Sequence[SampleRef]]:
        """Returns this rank's rows."""
        return rows[self.rank :: self.ranks]

    def only(self, planned: StepRows) -> StepRows:
        """Returns a step without the samples of other ranks, which are not to be sent to workers."""
        rows = [row if i % self.ranks == self.rank else [] for i, row in enumerate(planned.rows)]
        return planned._replace(rows=rows)


@dataclass(frozen=True)
class StepData:
    """This rank's share of one optimizer step.

    Attributes:
        batches: What goes through the model, one after another.
        ids: Names of its samples, for messages.
        epoch: Epoch that it belongs to, from 0.
        next_place: Where the step after this one is.
        bad: Samples that could not be read, and are left out.
    """

    batches: list[Batch]
    ids: list[str]
    epoch: int
    next_place: Place
    bad: list[BadSample] = field(default_factory=list)

    @property
    def supervised_tokens(self) -> int:
        """Tokens that the loss counts, in all batches together."""
        return sum(batch.supervised_tokens for batch in self.batches)


class Schedule(Protocol):
    """The order of a stage's data, the same whenever it is asked and whoever asks."""

    def steps(self, place: Place) -> Iterator[StepRows]:
        """Yields the rows of every step from `place` on, without end."""

    def num_steps(self, epochs: int) -> int:
        """Returns how many optimizer steps the first `epochs` epochs have."""


@dataclass(frozen=True)
class PackedSchedule:
    """The order of data that is indexed: a pure function of its arguments."""

    index: MixtureIndex
    batch: BatchSection
    seed: int

    def plan(self, epoch: int) -> Plan:
        """Returns the rows of an epoch.

        Raises:
            TrainingError: No sample fits into a row.
        """
        limits = Limits(self.batch.row_tokens, self.batch.max_images)
        return plan_epoch(self.index, limits, self.seed, epoch, self.batch.too_long)

    def num_steps(self, epochs: int) -> int:
        """Returns how many optimizer steps the first `epochs` epochs have."""
        return sum(len(steps_of(self.plan(epoch), self.batch.rows)) for epoch in range(epochs))

    def steps(self, place: Place) -> Iterator[StepRows]:
        """Yields the rows of every step from `place` on, without end."""
        while True:
            steps = steps_of(self.plan(place.epoch), self.batch.rows)
            for step in range(place.step, len(steps)):
                is_last = step + 1 == len(steps)
                next_place = Place(place.epoch + 1) if is_last else Place(place.epoch, step + 1)
                yield StepRows(steps[step], place.epoch, next_place)
            place = Place(place.epoch + 1)


@dataclass(frozen=True)
class JoinedDatasets:
    """Several datasets end to end, as `MixtureIndex` numbers their samples."""

    datasets: Sequence[Dataset]
    names: Sequence[str] = ()

    def source_of(self, number: int) -> str | None:
        """Returns the name of the dataset that a sample is from; None for a number that no dataset has."""
        for name, dataset in zip(self.names, self.datasets, strict=False):
            if 0 <= number < len(dataset):
                return name
            number -= len(dataset)
        return None

    def __len__(self) -> int:
        return sum(map(len, self.datasets))

    def __getitem__(self, number: int, /) -> Conversation:
        for dataset in self.datasets:
            if number < len(dataset):
                return dataset[number]
            number -= len(dataset)
        raise IndexError(number)


@dataclass(frozen=True)
class StepEncoder(data.Dataset):
    """Encodes this rank's rows of a step, in whichever process.

    Attributes:
        dataset: Samples by number; a stream's rows hold theirs.
        encoder: The processor, or one that reads saved features.
        batch: The stage's.
        pad_token_id: Fills the end of a row.
        empty: A sample of nothing, with no pictures: what a batch of empty rows is made of.
        share: Which rows are this rank's.
        lengths: Tokens of every sample when it was indexed; None for a stream.
        on_bad: What is done with a sample that cannot be read.
    """

    dataset: Dataset
    encoder: Encoder
    batch: BatchSection
    pad_token_id: int
    empty: Sample
    share: Share
    lengths: Sequence[int] | None = None
    on_bad: Literal["error", "skip"] = "error"

    def __getitem__(self, planned: StepRows) -> StepData | CambrianModelError:
        """Returns the step, or a user's error, to be raised in the main process."""
        bad = list(planned.bad) if self.share.rank == 0 else []
        ids: list[str] = []
        try:
            rows = [self._encode_row(row, ids, bad) for row in self.share.of(planned.rows)]
        except CambrianModelError as error:
            return error
        num_rows = -(-len(planned.rows) // self.share.ranks)
        rows += [[] for _ in range(num_rows - len(rows))]
        size = self.batch.micro_rows or num_rows
        batches = [self._collate(rows[start : start + size]) for start in range(0, num_rows, size)]
        return StepData(batches, ids, planned.epoch, planned.next_place, bad)

    def _collate(self, rows: Sequence[Sequence[Sample]]) -> Batch:
        return collate(rows, self.batch.row_tokens, self.pad_token_id, empty=self.empty)

    def _encode_row(self, row: Sequence[SampleRef], ids: list[str], bad: list[BadSample]) -> list[Sample]:
        samples = []
        for sample in row:
            try:
                conversation = sample if isinstance(sample, Mapping) else self.dataset[sample]
                samples.append(self._encode(conversation, sample))
                ids.append(str(conversation["id"]))
            except UnreadableSampleError as error:
                if self.on_bad == "error":
                    raise TrainingError(f"{error}; {ADVICE}") from error
                bad.append(BadSample(sample if isinstance(sample, int) else -1, error.name, error.reason))
        return samples

    def _encode(self, conversation: Conversation, reference: SampleRef) -> Sample:
        """Encodes a sample.

        Raises:
            UnreadableSampleError: It cannot be encoded.
            TrainingError: It is another one than when it was indexed.
        """
        name = sample_name(conversation)
        try:
            sample = self.encoder.encode(conversation["messages"], conversation.get("images") or [])
        except TrainingError:
            raise  # saved features are damaged, for example, which is not the sample's fault
        except CambrianModelError as error:
            raise UnreadableSampleError(name, str(error)) from error
        planned = self.lengths[reference] if self.lengths is not None and isinstance(reference, int) else None
        if planned is not None and len(sample.input_ids) != planned:
            raise TrainingError(
                f"{name} has {len(sample.input_ids)} tokens, but had {planned} when the data was indexed; "
                "do not change records or pictures during a run"
            )
        return sample.cut(self.batch.row_tokens)


def stream(encoder: StepEncoder, schedule: Schedule, place: Place, num_workers: int = 0) -> Iterator[StepData]:
    """Yields encoded steps from `place` on, without end.

    Raises:
        TrainingError: A sample cannot be encoded, or is not as it was when it was indexed; names the sample.
    """
    loader = data.DataLoader(
        encoder,
        sampler=_Steps(lambda: map(encoder.share.only, schedule.steps(place))),
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
    """The sampler: what is asked of the encoder, in order."""

    make: Callable[[], Iterator[StepRows]]

    def __iter__(self) -> Iterator[StepRows]:
        return self.make()
