"""What a run will be, before it is one: parameters, memory, steps, operations, days, and the first sample as text.

The model is built without numbers (meta device), so that the largest recipe is planned on a laptop in seconds. Figures
of the data are measured where the data is at hand, and else follow from what the recipe expects it to be; what neither
gives is left out, and the plan says so.
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

from cambrian_model.assemble import assemble_empty, processor_at_hand
from cambrian_model.errors import CambrianModelError, TrainingError
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.processing.processor import CambrianProcessor
from cambrian_model.training.adapters import add_adapters
from cambrian_model.training.batches import JoinedDatasets, PackedSchedule
from cambrian_model.training.distributed import BYTES_OF_STATE
from cambrian_model.training.feature_estimate import CacheEstimate, estimate
from cambrian_model.training.flops import BatchShape, FlopModel, encoder_flops, find_device, peak_flops
from cambrian_model.training.index import DataIndex, Dataset, index_dataset, join
from cambrian_model.training.memory import Memory, MicroBatch, Setting, estimate_memory
from cambrian_model.training.mixing import Plan
from cambrian_model.training.recipe import Recipe
from cambrian_model.training.recipe.section import nothing
from cambrian_model.training.recipe.stage import BatchSection, StageSection
from cambrian_model.training.rendering import render
from cambrian_model.training.trainable import TrainableRow, select_trainable
from cambrian_model.vision.base import is_trained

SECONDS_PER_DAY = 86_400
EXPECTED_FILL = 0.97  # of rows packed from samples whose lengths are not known one by one
CACHED_BYTES = 4  # of a cached number, at most: float32 where an encoder ends with a norm
MASKED = ("eager", "sdpa")  # attention that computes whole rows, and hides other documents by a mask


@dataclass(frozen=True)
class DataPlan:
    """What one epoch of a stage's data is.

    Attributes:
        origin: Whether it was "measured", is what the recipe says is "expected", or is "unknown".
        samples: Samples.
        rows: Packed rows.
        tokens: Tokens that are not padding.
        text_tokens: Of these, those of text, if all pictures were square.
        images: Pictures, each as often as it is seen.
        unique_images: The same, each of a source counted once.
        pairs: Of tokens that attend to each other.
        fill: Share of the rows that is not padding.
        most_images: Pictures in the rows with the most of them that one device may compute together.
        token_share: Share of the tokens that each source has.
        truncated: Samples whose text is cut.
        dropped: Samples that no epoch takes, by reason.
        bad: Samples that cannot be read.
    """

    origin: Literal["measured", "expected", "unknown"]
    samples: float = 0.0
    rows: float = 0.0
    tokens: float = 0.0
    text_tokens: float = 0.0
    images: float = 0.0
    unique_images: float = 0.0
    pairs: float = 0.0
    fill: float = 1.0
    most_images: int = 0
    token_share: Mapping[str, float] = field(default_factory=dict)
    truncated: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    bad: int = 0

    def of_step(self, batch: BatchSection, grid_side: int) -> BatchShape:
        """Returns what a step holds on average; where nothing is known, full rows of text."""
        if not self.rows:
            return BatchShape.of_rows(batch.rows, batch.row_tokens, batch.rows * batch.row_tokens)
        share = batch.rows / self.rows
        images = round(self.images * share)
        tokens, pairs, text = (round(total * share) for total in (self.tokens, self.pairs, self.text_tokens))
        return BatchShape(tokens, pairs, text, images, images * grid_side**2)


@dataclass(frozen=True)
class StagePlan:
    """What one stage will be.

    Attributes:
        name: Of the stage.
        table: What is trained and what is frozen, part by part.
        trained_tensors: Parameter tensors that are trained; every one is in exactly one optimizer group.
        groups: Optimizer groups.
        strategy: How the devices share the work: "ddp" or "fsdp".
        data: Of one epoch.
        rows: Rows of a step, on all devices together.
        micro_batches: Batches that each device computes for a step.
        tokens_per_step: Tokens, with padding.
        steps: Optimizer steps; None where they depend on data of which nothing is known.
        flops_per_step: Operations of a step that MFU counts, of all devices together.
        hardware_flops_per_step: Those that are carried out: masked pairs and padding, and what is computed again.
        flops_by_part: Forward and backward operations of a step.
        days: At the plan's MFU; None where steps or the device's peak are not known.
        memory: Of one device.
        cache: What saving the encoders' features would cost and save; None where an encoder is trained, or no picture
            is known of.
        first_sample: The first sample of the first epoch as text, supervised spans in double brackets.
        notes: What was assumed or left out.
    """

    name: str
    table: list[TrainableRow]
    trained_tensors: int
    groups: int
    strategy: Literal["ddp", "fsdp"]
    data: DataPlan
    rows: int
    micro_batches: int
    tokens_per_step: int
    steps: int | None
    flops_per_step: float
    hardware_flops_per_step: float
    flops_by_part: dict[str, tuple[float, float]]
    days: float | None
    memory: Memory
    cache: CacheEstimate | None
    first_sample: str | None
    notes: list[str]


@dataclass(frozen=True)
class Machine:
    """What a run is planned for.

    Attributes:
        gpus: Devices.
        device: What one is called.
        peak: Its operations per second at best; None where that is not known.
        num_bytes: Its memory; None where that is not known.
        mfu: Share of the peak that is assumed to be reached.
    """

    gpus: int
    device: str
    peak: float | None
    num_bytes: float | None
    mfu: float

    @property
    def speed(self) -> float | None:
        """Operations per second of all devices together."""
        return self.gpus * self.peak * self.mfu if self.peak else None

    def strategy(self, recipe: Recipe, model: CambrianForConditionalGeneration) -> Literal["ddp", "fsdp"]:
        """Returns how the devices share the work, as `distributed.choose_strategy` decides on them."""
        if self.gpus == 1 or self.num_bytes is None:
            return "fsdp" if recipe.parallel.strategy == "fsdp" and self.gpus > 1 else "ddp"
        if recipe.parallel.strategy != "auto":
            return recipe.parallel.strategy
        needed = sum(p.numel() * (BYTES_OF_STATE if p.requires_grad else 4) for p in model.parameters())
        return "ddp" if needed <= self.num_bytes / 3 else "fsdp"


@dataclass(frozen=True)
class RecipePlan:
    """What a run will be.

    Attributes:
        recipe: Its name.
        machine: What it is planned for.
        parameters: Of the whole model, without adapters.
        stages: In their order.
        notes: What was left out of all of it.
    """

    recipe: str
    machine: Machine
    parameters: int
    stages: list[StagePlan]
    notes: list[str]

    @property
    def days(self) -> float | None:
        """Days that all stages take together; None where that of one is not known."""
        known = [stage.days for stage in self.stages if stage.days is not None]
        return sum(known) if len(known) == len(self.stages) else None


def plan_recipe(
    recipe: Recipe,
    gpus: int,
    *,
    mfu: float = 0.4,
    device: str = "H100",
    datasets: Mapping[str, Dataset] | None = None,
) -> RecipePlan:
    """Plans a run; no weight is read, and no picture is decoded but those of first samples.

    Args:
        recipe: The run's.
        gpus: Devices.
        mfu: Share of the devices' peak that is assumed to be reached, see `flops`.
        device: What a device is called, see `flops.find_device`.
        datasets: Sources whose samples are at hand; the others are taken to be what the recipe expects.

    Raises:
        RecipeError: A pattern of a stage matches nothing, or two match the same parameter.
        ConfigError: The parts of the model do not fit together, or one is not described.
        CheckpointError: A part's folder does not hold what was expected.
        TrainingError: The devices cannot be divided as the recipe asks, or data cannot be read or packed.
    """
    _check_replicas(recipe, gpus)
    known = find_device(device)
    notes: list[str] = []
    peak = recipe.peak_tflops * 1e12 if recipe.peak_tflops else peak_flops(device, recipe.precision)
    if peak is None:
        notes.append(f'no peak of "{device}" in {recipe.precision} is known, so no time is told; set peak_tflops')
    machine = Machine(gpus, device, peak, known.gigabytes * 1e9 if known else None, mfu)
    model = assemble_empty(recipe.model.spec())
    sources = _Sources.measure(recipe, datasets or {}, model, notes)
    stages = [
        _plan_stage(recipe, name, _with_adapters(recipe, stage, model), machine, sources)
        for name, stage in recipe.stages.items()
    ]
    return RecipePlan(recipe.name, machine, model.num_parameters(), stages, notes)


def check_recipe(recipe: Recipe) -> None:
    """Builds the model without numbers and chooses what every stage trains.

    A recipe that leaves the language model to its user is taken as it is.

    Raises:
        RecipeError: A pattern of a stage matches nothing, or two match the same parameter.
        ConfigError: The parts of the model do not fit together, or one is not described.
        CheckpointError: A part's folder does not hold what was expected.
        TrainingError: A stage's adapters do not fit.
    """
    if nothing(recipe.model.language_model, "path", "config"):
        return
    model = assemble_empty(recipe.model.spec())
    for stage in recipe.stages.values():
        select_trainable(_with_adapters(recipe, stage, model), stage)


def _with_adapters(
    recipe: Recipe, stage: StageSection, model: CambrianForConditionalGeneration
) -> CambrianForConditionalGeneration:
    """Returns the model of a stage: a new one if it has adapters, which end with it, so that others know of none."""
    if stage.adapters is None:
        return model
    model = assemble_empty(recipe.model.spec())
    add_adapters(model, stage.adapters)
    return model


def _check_replicas(recipe: Recipe, gpus: int) -> None:
    if recipe.parallel.strategy == "fsdp" and gpus % recipe.parallel.replicas:
        raise TrainingError(
            f"parallel.replicas is {recipe.parallel.replicas}, but {gpus} devices cannot be divided into so many "
            "groups; plan for a multiple of it, or change it"
        )


class _Sources(NamedTuple):
    """The data that is at hand, measured, and what encodes it, if the tokenizer is at hand."""

    datasets: Mapping[str, Dataset]
    indices: Mapping[str, DataIndex]
    processor: CambrianProcessor | None

    @classmethod
    def measure(
        cls,
        recipe: Recipe,
        datasets: Mapping[str, Dataset],
        model: CambrianForConditionalGeneration,
        notes: list[str],
    ) -> "_Sources":
        try:
            processor = processor_at_hand(recipe.model.spec(), model.config)
        except CambrianModelError as error:
            notes.append(f"without its tokenizer no data is measured, and no sample shown: {error}")
            return cls({}, {}, None)
        used = [name for name in datasets if any(name in stage.data for stage in recipe.stages.values())]
        indices = {name: index_dataset(name, datasets[name], processor, on_bad=recipe.on_bad_sample) for name in used}
        return cls(datasets, indices, processor)

    def schedule(self, recipe: Recipe, stage: StageSection) -> PackedSchedule | None:
        """Returns the order of a stage's data; None where some of it is not at hand."""
        if any(name not in self.indices for name in stage.data):
            return None
        index = join([self.indices[name] for name in stage.data], list(stage.data.values()))
        return PackedSchedule(index, stage.batch, recipe.seed)

    def first_sample(self, stage: StageSection, plan: Plan) -> str:
        """Returns the first sample of an epoch, as the model gets it, as text."""
        assert self.processor is not None, "data is measured by a processor"
        dataset = JoinedDatasets([self.datasets[name] for name in stage.data])
        conversation = dataset[int(plan.rows[0][0])]
        sample = self.processor.encode(conversation["messages"], conversation.get("images") or [])
        sample = sample.cut(stage.batch.row_tokens)
        return f'sample "{conversation["id"]}": {render(self.processor, sample.input_ids, sample.labels)}'


def _plan_stage(
    recipe: Recipe, name: str, model: CambrianForConditionalGeneration, machine: Machine, sources: _Sources
) -> StagePlan:
    stage = recipe.stages[name]
    notes: list[str] = []
    trainable = select_trainable(model, stage)
    tensors = _check_groups(model, [group.names for group in trainable.groups])
    schedule = sources.schedule(recipe, stage)
    plan = schedule.plan(0) if schedule else None
    share = -(-stage.batch.rows // machine.gpus)
    micro_rows = min(stage.batch.micro_rows or share, share)
    data = _plan_data(recipe, stage, micro_rows, schedule, plan, notes)
    data = replace(
        data, bad=sum(len(sources.indices[source].bad) for source in stage.data if source in sources.indices)
    )
    steps = _num_steps(stage, data, schedule)
    if steps is None:
        notes.append("the number of steps depends on data of which nothing is known; set max_steps")
    shape = data.of_step(stage.batch, model.config.grid_side)
    flops = FlopModel.of(
        model,
        checkpointed=recipe.activation_checkpointing,
        loss=recipe.loss.implementation,
        has_pixels=not stage.feature_cache,
    )
    per_step = flops.model_flops(shape)
    strategy = machine.strategy(recipe, model)
    return StagePlan(
        name=name,
        table=trainable.table,
        trained_tensors=tensors,
        groups=len(trainable.groups),
        strategy=strategy,
        data=data,
        rows=stage.batch.rows,
        micro_batches=stage.batch.micro_batches(machine.gpus),
        tokens_per_step=stage.batch.rows * stage.batch.row_tokens,
        steps=steps,
        flops_per_step=per_step,
        hardware_flops_per_step=flops.hardware_flops(_as_computed(recipe, stage.batch, shape)),
        flops_by_part=flops.by_part(shape),
        days=steps * per_step / machine.speed / SECONDS_PER_DAY if machine.speed and steps is not None else None,
        memory=_plan_memory(recipe, stage, model, machine, strategy, micro_rows, data),
        cache=_plan_cache(model, machine, data),
        first_sample=sources.first_sample(stage, plan) if plan else None,
        notes=notes,
    )


def _check_groups(model: CambrianForConditionalGeneration, groups: list[tuple[str, ...]]) -> int:
    """Checks that every trained parameter is in exactly one group, and returns their number."""
    trained = sorted(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    assert sorted(name for group in groups for name in group) == trained, "a parameter is in no group, or in two"
    return len(trained)


def _plan_data(
    recipe: Recipe,
    stage: StageSection,
    micro_rows: int,
    schedule: PackedSchedule | None,
    plan: Plan | None,
    notes: list[str],
) -> DataPlan:
    grid_side = recipe.model.grid_side
    square = grid_side * (grid_side + 1)
    if schedule is not None and plan is not None:
        return _measured(schedule, plan, micro_rows, square)
    expected = {name: recipe.data[name].expected for name in stage.data}
    if absent := [name for name, section in expected.items() if section is None]:
        notes.append(
            f"data {', '.join(absent)} is not at hand, and the recipe does not say what is expected of it "
            "(data.NAME.expected): a step is taken to be full rows of text, with no picture"
        )
        return DataPlan("unknown", most_images=(stage.batch.max_images or 0) * micro_rows)
    notes.append(
        f"data is not at hand, but what the recipe expects of it: pictures are taken to be square ({square} tokens), "
        f"samples of a source to be of one length, and rows to be {EXPECTED_FILL:.0%} full"
    )
    return _expected(recipe, stage, micro_rows, square)


def _measured(schedule: PackedSchedule, plan: Plan, micro_rows: int, square: int) -> DataPlan:
    index, taken = schedule.index, np.concatenate([np.asarray(row) for row in plan.rows])
    tokens = np.minimum(index.lengths, schedule.batch.row_tokens)[taken].astype(np.int64)
    images = int(index.num_images[taken].sum())
    fullest = sorted((int(index.num_images[np.asarray(row)].sum()) for row in plan.rows), reverse=True)[:micro_rows]
    return DataPlan(
        "measured",
        samples=len(taken),
        rows=len(plan.rows),
        tokens=int(tokens.sum()),
        text_tokens=max(int(tokens.sum()) - images * square, len(taken)),
        images=images,
        unique_images=int(index.num_images.sum()),
        pairs=int((tokens**2).sum()),
        fill=plan.fill,
        most_images=sum(fullest),
        token_share=plan.token_share,
        truncated=len(plan.truncated),
        dropped={reason: len(samples) for reason, samples in plan.dropped.items()},
    )


def _expected(recipe: Recipe, stage: StageSection, micro_rows: int, square: int) -> DataPlan:
    batch, tokens_of = stage.batch, {}
    samples = images = text = pairs = unique = 0.0
    for name, weight in stage.data.items():
        section = recipe.data[name].expected
        assert section is not None, "the caller has looked"
        count, length = section.samples * weight, min(section.tokens + section.images * square, batch.row_tokens)
        samples, images = samples + count, images + count * section.images
        unique += section.samples * section.images
        text += count * min(section.tokens, length)
        pairs += count * length**2
        tokens_of[name] = count * length
    tokens = sum(tokens_of.values())
    rows = tokens / (EXPECTED_FILL * batch.row_tokens)
    return DataPlan(
        "expected",
        samples=samples,
        rows=rows,
        tokens=tokens,
        text_tokens=text,
        images=images,
        unique_images=unique,
        pairs=pairs,
        fill=EXPECTED_FILL,
        most_images=min(math.ceil(images / rows), batch.max_images or sys.maxsize) * micro_rows,
        token_share={name: of_source / tokens for name, of_source in tokens_of.items()},
    )


def _num_steps(stage: StageSection, data: DataPlan, schedule: PackedSchedule | None) -> int | None:
    if stage.epochs is None:
        return stage.max_steps
    if schedule is not None:
        steps = schedule.num_steps(stage.epochs)
    elif data.rows:
        steps = math.ceil(data.rows / stage.batch.rows) * stage.epochs
    else:
        return stage.max_steps
    return min(steps, stage.max_steps) if stage.max_steps else steps


def _as_computed(recipe: Recipe, batch: BatchSection, shape: BatchShape) -> BatchShape:
    """Returns what a step holds with its padding, and with the pairs that a mask hides, where attention has one."""
    whole = BatchShape.of_rows(batch.rows, batch.row_tokens, shape.supervised, shape.images, shape.cells)
    has_mask = (recipe.attention or "sdpa") in MASKED
    return whole if has_mask else replace(whole, pairs=shape.pairs)


def _plan_memory(
    recipe: Recipe,
    stage: StageSection,
    model: CambrianForConditionalGeneration,
    machine: Machine,
    strategy: Literal["ddp", "fsdp"],
    micro_rows: int,
    data: DataPlan,
) -> Memory:
    text = micro_rows * (data.text_tokens / data.rows if data.rows else stage.batch.row_tokens)
    setting = Setting(
        ranks=machine.gpus,
        strategy=strategy,
        parallel=recipe.parallel,
        precision=recipe.precision,
        attention=recipe.attention or "sdpa",
        checkpointed=recipe.activation_checkpointing,
        loss=recipe.loss,
        has_pixels=not stage.feature_cache,
        has_ema=stage.ema is not None,
        quantize=stage.adapters.quantize if stage.adapters else None,
    )
    batch = MicroBatch(micro_rows, stage.batch.row_tokens, data.most_images, math.ceil(text))
    return estimate_memory(model, batch, setting)


def _plan_cache(model: CambrianForConditionalGeneration, machine: Machine, data: DataPlan) -> CacheEstimate | None:
    has_features = all(e.config.library != "precomputed" and not is_trained(e) for e in model.encoders)
    if not has_features or not data.unique_images:
        return None
    return estimate(
        model.config,
        round(data.unique_images),
        CACHED_BYTES,
        encoder_flops(model),
        images_per_epoch=data.images,
        flops_per_second=machine.speed,
    )
