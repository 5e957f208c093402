"""What stages train on: measured once, then in an order that never depends on who asks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, cast

import torch

from cambrian_model.config import VisionEncoderConfig
from cambrian_model.errors import TrainingError
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.processing.processor import CambrianProcessor
from cambrian_model.processing.sample import Sample
from cambrian_model.training.bad_samples import BadSamples
from cambrian_model.training.batches import JoinedDatasets, PackedSchedule, Schedule, Share, StepEncoder
from cambrian_model.training.distributed import num_ranks, rank, together
from cambrian_model.training.feature_cache import CachedEncoder, DatasetImages, FeatureCache
from cambrian_model.training.index import Conversation, DataIndex, Dataset, index_dataset, join
from cambrian_model.training.packing import Limits
from cambrian_model.training.progress import Progress, Report
from cambrian_model.training.recipe import Recipe
from cambrian_model.training.recipe.stage import BatchSection
from cambrian_model.training.run_folder import RunFolder
from cambrian_model.training.stream_sources import DatasetSource, MixedSource, Weighted
from cambrian_model.training.streaming import StreamSchedule, StreamSource

Sources = Mapping[str, Dataset | StreamSource]


@dataclass(frozen=True)
class StageData:
    """The data of a stage.

    Attributes:
        schedule: Its order.
        encoder: Makes the steps of this rank.
        facts: What the run notes of it: rows, fill, what was left out and why, share of tokens of every source.
    """

    schedule: Schedule
    encoder: StepEncoder
    facts: dict[str, Any] = field(default_factory=dict)


class FirstSamples:
    """The beginning of a dataset: what is validated on."""

    def __init__(self, dataset: Dataset, count: int) -> None:
        self._dataset, self._count = dataset, count

    def __len__(self) -> int:
        return min(self._count, len(self._dataset))

    def __getitem__(self, number: int, /) -> Conversation:
        return self._dataset[number]


@dataclass(frozen=True)
class StageSources:
    """The sources of a run, measured.

    Attributes:
        recipe: The run's.
        run: Its folder.
        datasets: By source: samples by number, or a stream.
        indices: Of all that have numbers.
        processor: Encodes them.
    """

    recipe: Recipe
    run: RunFolder
    datasets: Sources
    indices: Mapping[str, DataIndex]
    processor: CambrianProcessor

    @classmethod
    def measure(
        cls, run: RunFolder, datasets: Sources, processor: CambrianProcessor, device: torch.device, report: Report
    ) -> Self:
        """Measures every source that unfinished stages need: the first rank does, and the others read what it found.

        Raises:
            TrainingError: A source is empty, or holds what cannot be read.
        """
        recipe = run.recipe
        stages = [recipe.stages[name] for name in run.unfinished()]
        used = {name: datasets[name] for name in dict.fromkeys(name for stage in stages for name in stage.data)}
        for section in (stage.validation for stage in stages if stage.validation):
            for name in section.data:
                first = FirstSamples(_numbered(name, datasets[name]), section.max_samples)
                used[_beginning(name, section.max_samples)] = first
        indices = {
            name: _measured_once(recipe, name, cast(Dataset, dataset), processor, run, device, report)
            for name, dataset in used.items()
            if not is_stream(dataset)
        }
        return cls(recipe, run, used, indices, processor)

    def facts(self) -> dict[str, dict[str, Any]]:
        """Returns what the run notes of every source."""
        return {
            name: {
                "fingerprint": index.fingerprint,
                "samples": len(index.ids),
                "tokens": int(index.lengths.sum()),
                "images": int(index.num_images.sum()),
                "bad": len(index.bad),
            }
            for name, index in self.indices.items()
        }

    def of_stage(self, name: str, encoders: Sequence[VisionEncoderConfig]) -> StageData:
        """Returns the data of a stage in its order.

        Raises:
            TrainingError: No sample fits into a row.
        """
        stage = self.recipe.stages[name]
        if any(is_stream(self.datasets[source]) for source in stage.data):
            return self._streamed(stage.data, stage.batch, encoders)
        return self._packed(stage.data, stage.batch, encoders)

    def of_validation(self, name: str, encoders: Sequence[VisionEncoderConfig]) -> dict[str, StageData]:
        """Returns the validation sources of a stage, each by itself; none if it has none."""
        stage = self.recipe.stages[name]
        if stage.validation is None:
            return {}
        names = {source: _beginning(source, stage.validation.max_samples) for source in stage.validation.data}
        return {source: self._packed({first: 1.0}, stage.batch, encoders) for source, first in names.items()}

    def with_features(
        self, name: str, data: StageData, model: CambrianForConditionalGeneration, device: torch.device, report: Report
    ) -> StageData:
        """Saves the features of all pictures of a stage that are not saved yet, and reads them from then on.

        Raises:
            TrainingError: The stage reads a stream, an encoder is trained, or the disk is full.
        """
        if data.encoder.lengths is None:
            raise TrainingError(
                f"stages.{name}.feature_cache is true, but the stage reads a stream, whose pictures are not known "
                "beforehand; set it to false, or give records"
            )
        cache = FeatureCache.open(
            self.run.path / "features", model.encoders, self.processor, self.recipe.precision, device
        )
        schedule = cast(PackedSchedule, data.schedule)
        cache.write(
            DatasetImages(data.encoder.dataset, schedule.index.num_images.tolist()),
            model.encoders,
            num_workers=self.recipe.num_workers,
            on_bad=self.recipe.on_bad_sample,
            report=lambda phase, done, total: report(Progress("encode", name, done, total, note=phase)),
        )
        cached = CachedEncoder(self.processor, cache)
        return replace(data, encoder=replace(data.encoder, encoder=cached, empty=cached.empty_sample()))

    def _packed(
        self, weights: Mapping[str, float], batch: BatchSection, encoders: Sequence[VisionEncoderConfig]
    ) -> StageData:
        index = join([self.indices[source] for source in weights], list(weights.values()))
        schedule = PackedSchedule(index, batch, self.recipe.seed)
        datasets = [cast(Dataset, self.datasets[source]) for source in weights]
        encoder = self._encoder(JoinedDatasets(datasets, list(weights)), batch, encoders, index.lengths.tolist())
        return StageData(schedule, encoder, self._facts(schedule, weights))

    def _streamed(
        self, weights: Mapping[str, float], batch: BatchSection, encoders: Sequence[VisionEncoderConfig]
    ) -> StageData:
        sources = {name: self._as_stream(name, weight) for name, weight in weights.items()}
        schedule = StreamSchedule(
            MixedSource(sources),
            self.processor,
            Limits(batch.row_tokens, batch.max_images),
            batch.rows,
            seed=self.recipe.seed,
            on_bad=self.recipe.on_bad_sample,
            too_long=batch.too_long,
        )
        return StageData(schedule, self._encoder(JoinedDatasets([]), batch, encoders, None), {"weights": dict(weights)})

    def _as_stream(self, name: str, weight: float) -> Weighted:
        dataset = self.datasets[name]
        if is_stream(dataset):
            expected = self.recipe.data[name].expected
            return Weighted(cast(StreamSource, dataset), weight, expected.samples if expected else None)
        numbered = cast(Dataset, dataset)
        return Weighted(DatasetSource(numbered, self.recipe.seed), weight, len(numbered))

    def _encoder(
        self,
        dataset: Dataset,
        batch: BatchSection,
        encoders: Sequence[VisionEncoderConfig],
        lengths: Sequence[int] | None,
    ) -> StepEncoder:
        return StepEncoder(
            dataset,
            self.processor,
            batch,
            pad_token_id(self.processor),
            empty_sample(encoders),
            Share(rank(), num_ranks()),
            lengths,
            self.recipe.on_bad_sample,
        )

    def _facts(self, schedule: PackedSchedule, weights: Mapping[str, float]) -> dict[str, Any]:
        plan = schedule.plan(0)
        ids = [name for source in weights for name in self.indices[source].ids]
        return {
            "weights": dict(weights),
            "rows": len(plan.rows),
            "fill": round(plan.fill, 4),
            "token_share": {source: round(share, 4) for source, share in plan.token_share.items()},
            "truncated": len(plan.truncated),
            "dropped": {reason: [ids[i] for i in samples] for reason, samples in plan.dropped.items()},
        }


def is_stream(source: Dataset | StreamSource) -> bool:
    """Tells a stream from samples that have numbers."""
    return hasattr(source, "state_dict")


def _beginning(name: str, count: int) -> str:
    """Names the first samples of a source, which another stage may use whole."""
    return f"{name}[:{count}]"


def _numbered(name: str, source: Dataset | StreamSource) -> Dataset:
    if is_stream(source):
        raise TrainingError(f'data "{name}" is a stream, which cannot be validated on; give records')
    return cast(Dataset, source)


def _measured_once(
    recipe: Recipe,
    name: str,
    dataset: Dataset,
    processor: CambrianProcessor,
    run: RunFolder,
    device: torch.device,
    report: Report,
) -> DataIndex:
    """Measures a source on the first rank; the others read what it found."""
    if num_ranks() == 1:
        return _measure(recipe, name, dataset, processor, run, report)
    folder = run.path / "index" / name
    with together(f'measuring data "{name}"', device):
        if rank() == 0:
            _measure(recipe, name, dataset, processor, run, report).save(folder)
    return DataIndex.load(folder)


def _measure(
    recipe: Recipe, name: str, dataset: Dataset, processor: CambrianProcessor, run: RunFolder, report: Report
) -> DataIndex:
    index = index_dataset(
        name,
        dataset,
        processor,
        on_bad=recipe.on_bad_sample,
        num_workers=recipe.num_workers,
        report=lambda done, total: report(Progress("index", name, done, total)),
    )
    BadSamples(run.bad_samples, recipe.on_bad_sample).record("index", name.partition("[:")[0], index.bad)
    return index


def pad_token_id(processor: CambrianProcessor) -> int:
    """Returns what fills the end of a row: its value never matters, it only has to be a text token."""
    pad, end = processor.tokenizer.pad_token_id, processor.tokenizer.eos_token_id
    return next((token for token in (pad, end) if token is not None), 0)


def empty_sample(encoders: Sequence[VisionEncoderConfig]) -> Sample:
    """Returns a sample of no text and no pictures, whose pixels have the shapes of these encoders."""
    nothing = torch.zeros(0, dtype=torch.long)
    pixels = [torch.zeros(0, 3, encoder.image_side, encoder.image_side) for encoder in encoders]
    return Sample(nothing, nothing, pixels, torch.zeros(0, 2, dtype=torch.long))
