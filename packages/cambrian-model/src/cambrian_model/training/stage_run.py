"""One stage from its newest checkpoint, or from its beginning, to its exported model."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator

from cambrian_model.errors import RunStopped
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.processing.processor import CambrianProcessor
from cambrian_model.training.adapters import check_shardable
from cambrian_model.training.bad_samples import BadSample, BadSamples
from cambrian_model.training.batches import JoinedDatasets, Place, stream
from cambrian_model.training.checkpoints import Checkpoints
from cambrian_model.training.curve import draw_curve
from cambrian_model.training.distributed import (
    choose_strategy,
    gather_texts,
    num_ranks,
    parallelize,
    plain_model,
    rank,
    together,
    wait_for_all,
)
from cambrian_model.training.ema import EMA
from cambrian_model.training.export import export_model
from cambrian_model.training.files import atomic_folder
from cambrian_model.training.guard import Guard, named
from cambrian_model.training.loop import Engine, Step, run_steps
from cambrian_model.training.loss_scale import LossScale
from cambrian_model.training.manifest import Facts, Reference, refer_to_frozen, write_manifest
from cambrian_model.training.metrics import Metrics, MetricsLog, cut_metrics, read_metrics, step_lines
from cambrian_model.training.optim import build_optimizer
from cambrian_model.training.profiling import profiling
from cambrian_model.training.progress import Progress, Report
from cambrian_model.training.random_state import capture_random_state, restore_random_state, seed_everything
from cambrian_model.training.recipe import Recipe
from cambrian_model.training.recipe.stage import StageSection
from cambrian_model.training.rendering import render_first
from cambrian_model.training.run_folder import RunFolder
from cambrian_model.training.stage_data import StageData
from cambrian_model.training.start_model import StageModel, name_source
from cambrian_model.training.streaming import StreamPlace
from cambrian_model.training.throughput import Throughput
from cambrian_model.training.trackers import Trackers
from cambrian_model.training.training_state import Progressed, TrainingState
from cambrian_model.training.validation import validate

Evaluate = Callable[[CambrianForConditionalGeneration, CambrianProcessor, str, int], Mapping[str, float]]


@dataclass(frozen=True)
class Surroundings:
    """What a run lends to each of its stages.

    Attributes:
        accelerator: Device and precision.
        trackers: Metrics go there too.
        report: Told of every piece of work done.
        evaluate: Asks the model something now and then; None does not.
        is_told_to_stop: Whether this process has been asked to end.
    """

    accelerator: Accelerator
    trackers: Trackers
    report: Report
    evaluate: Evaluate | None
    is_told_to_stop: Callable[[], bool]


def train_stage(
    run: RunFolder,
    name: str,
    start: StageModel,
    data: StageData,
    validation: Mapping[str, StageData],
    around: Surroundings,
) -> None:
    """Trains a stage from its newest checkpoint, or from its beginning, and exports the model. Every rank calls it.

    Raises:
        RunStopped: The run was told to stop, and has saved where it was.
        TrainingError: A sample cannot be read, the loss is not finite, the disk is full.
    """
    recipe, stage, device = run.recipe, run.recipe.stages[name], around.accelerator.device
    with together(f"describing stage {name}", device):
        if rank() == 0:
            run.describe_stage(name, start.trainable.table)
    frozen = None if recipe.checkpoint.full else refer_to_frozen(start.model, name_source(start.source))
    throughput = Throughput.of(start.model, recipe, stage, device)
    if num_ranks() > 1 and choose_strategy(start.model, recipe.parallel, device) == "fsdp":
        check_shardable(start.model)
    model = parallelize(start.model, recipe.parallel, recipe.precision, device)
    engine = _engine(recipe, stage, model, start, around.accelerator)
    checkpoints = Checkpoints(run.checkpoints, recipe.checkpoint.keep, recipe.checkpoint.full)
    job = _Job(run, name, start, data, engine, validation, around, checkpoints, frozen, throughput)
    if num_ranks() > 1:
        seed_everything(recipe.seed, name, rank())  # the same model on every rank, and other dropout
    done = job.resume()
    num_steps = _num_steps(stage, data)
    try:
        job.train(done, num_steps)
    finally:
        checkpoints.finish()  # also after an error: the save in the background needs the group of processes
    job.export()


class _Job:
    """A stage on this rank, in training."""

    def __init__(
        self,
        run: RunFolder,
        name: str,
        start: StageModel,
        data: StageData,
        engine: Engine,
        validation: Mapping[str, StageData],
        around: Surroundings,
        checkpoints: Checkpoints,
        frozen: Reference | None,
        throughput: Throughput,
    ) -> None:
        self.run, self.name, self.start, self.data = run, name, start, data
        self.engine, self.validation = engine, validation
        self.around, self.checkpoints, self.frozen, self.throughput = around, checkpoints, frozen, throughput
        self.bad = BadSamples(run.bad_samples, run.recipe.on_bad_sample)

    @property
    def recipe(self) -> Recipe:
        return self.run.recipe

    @property
    def stage(self) -> StageSection:
        return self.recipe.stages[self.name]

    def resume(self) -> Progressed:
        """Goes to the newest checkpoint, if there is one, and cuts the metrics back to it."""
        done = Progressed(self.name, 0, Place())
        if latest := self.checkpoints.latest(self.name):
            state = self._state(done)
            done = self.checkpoints.load(latest, state)
            self._take_over(state)
        if rank() == 0:
            finished = list(self.run.stages)[: list(self.run.stages).index(self.name)]
            kept = cut_metrics(self.run.metrics, finished, self.name, done.step)
            self.around.trackers.start_stage(len(step_lines(kept)) - done.step)
        wait_for_all()
        return done

    def train(self, done: Progressed, num_steps: int) -> None:
        """Takes the steps that are left."""
        steps = stream(self.data.encoder, self.data.schedule, done.place, self.recipe.num_workers)
        taken = run_steps(self.engine, steps, done.step, num_steps, self.around.is_told_to_stop)
        log = MetricsLog(self.run.metrics) if rank() == 0 else nullcontext()
        with log as lines, profiling(self.recipe.profile, self.run.path / "profile", self.name) as profile:
            for step in taken:
                self._after(step, num_steps, lines)
                profile()
                done = replace(done, step=step.number, place=step.next_place)
        if rank() == 0 and isinstance(done.place, StreamPlace):
            self.run.note_dropped(self.name, done.place.left_out)

    def _after(self, step: Step, num_steps: int, log: MetricsLog | None) -> None:
        """Logs a step, and validates, evaluates, saves, stops after it, where that is due."""
        metrics = {"stage": self.name, **step.metrics, **self.throughput.metrics(step)}
        self._log(metrics, log)
        if step.counts.bad:
            self._note_bad(step.data.bad)
        if step.metrics["loss"] is None:
            self.around.report(Progress("skip", self.name, step.number, num_steps, note=_why_skipped(step)))
        if step.number % self.recipe.log_every == 0 or step.number == num_steps:
            shown = self.throughput.shown(metrics)
            self.around.report(Progress("train", self.name, step.number, num_steps, shown))
        losses = self._validate(step.number, num_steps, log)
        self._evaluate(step.number, num_steps, log)
        metric = sum(losses.values()) / len(losses) if losses else None
        is_last = step.number == num_steps
        if not is_last and (step.is_told_to_stop or _is_due(self.recipe.checkpoint.every, step.number)):
            state = self._state(Progressed(self.name, step.number, step.next_place))
            path = self.checkpoints.save(state, metric=metric, wait=step.is_told_to_stop)
            if step.is_told_to_stop:
                raise RunStopped(
                    f"told to stop: step {step.number} of {num_steps} of stage {self.name} is saved in {path}; "
                    "continue with --resume"
                )
        self.checkpoints.poll()

    def _log(self, line: Metrics, log: MetricsLog | None) -> None:
        if log is not None:
            log.write(line)
        self.around.trackers.log(line)

    def _note_bad(self, mine: Sequence[BadSample], source: str | None = None) -> None:
        """Lists the samples that some rank could not read, of a source or of the stage's; every rank calls it."""
        shares = gather_texts(json.dumps(mine), self.engine.device)
        if rank() == 0:
            for bad in (BadSample(*fields) for share in shares for fields in json.loads(share)):
                self.bad.record("train", source or self._source_of(bad), [bad])

    def _source_of(self, bad: BadSample) -> str:
        """Returns the source that a sample is from; of a stream, the stage that reads it."""
        dataset = self.data.encoder.dataset
        found = dataset.source_of(bad.number) if isinstance(dataset, JoinedDatasets) else None
        return found or self.name

    def _validate(self, number: int, num_steps: int, log: MetricsLog | None) -> dict[str, float]:
        section = self.stage.validation
        if section is None or not (_is_due(section.every, number) or number == num_steps):
            return {}
        with self._at_rest():
            found = validate(self.engine, self.validation, self.recipe.num_workers)
        for source, (_, bad) in found.items():
            self._note_bad(bad, source)
        losses = {source: validated.loss for source, validated in found.items()}
        self._log({"kind": "validation", "stage": self.name, "step": number, "losses": losses}, log)
        self.around.report(Progress("validate", self.name, number, num_steps, losses))
        return losses

    def _evaluate(self, number: int, num_steps: int, log: MetricsLog | None) -> None:
        section = self.recipe.evaluation
        if self.around.evaluate is None or section is None or not _is_due(section.every, number):
            return
        with self._at_rest():
            model = plain_model(self.engine.model)
            scores = dict(self.around.evaluate(model, self.start.processor, self.name, number))
        self._log({"kind": "evaluation", "stage": self.name, "step": number, "scores": scores}, log)
        self.around.report(Progress("evaluate", self.name, number, num_steps, scores))

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """Lends the model for something else than training, which then goes on as if nothing had been."""
        state = capture_random_state()
        self.engine.model.eval()
        with self._averaged():
            yield
        restore_random_state(state)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Puts the average of the weights into the model for a while, if the stage keeps one."""
        with self.engine.ema.swapped(self.engine.model) if self.engine.ema else nullcontext():
            yield

    def export(self) -> None:
        """Writes the model of the stage, which makes the stage done."""
        run, device = self.run, self.engine.device
        with together("drawing the curve", device):
            if rank() == 0:
                draw_curve(read_metrics(run.metrics), run.curve, self.recipe.name)
        self.around.report(Progress("export", self.name, 0, 1))
        model = plain_model(self.engine.model)
        facts = Facts(self.recipe.name, self.name, self.start.source, self.stage.train)
        with together(f"writing the model of stage {self.name}", device):
            writing = atomic_folder(run.stage(self.name), "the model of stage") if rank() == 0 else nullcontext()
            with writing as folder, self._averaged():
                export_model(model, self.start.processor, folder)
                if folder is not None:
                    write_manifest(folder, facts)
        self.around.report(Progress("export", self.name, 1, 1))

    def _state(self, done: Progressed) -> TrainingState:
        engine = self.engine
        scalars: dict[str, Any] = {"bad_steps": engine.guard.in_a_row}
        if engine.loss_scale is not None:
            scalars["loss_scale"] = engine.loss_scale.state()
        averages = engine.ema.state() if engine.ema is not None else None
        return TrainingState(
            engine.model, engine.optimizer, done, averages, scalars, seed=self.recipe.seed, frozen=self.frozen
        )

    def _take_over(self, state: TrainingState) -> None:
        """Gives what a checkpoint holds beside tensors of model and optimizer to those who keep it."""
        self.engine.guard.in_a_row = state.scalars["bad_steps"]
        if self.engine.loss_scale is not None:
            self.engine.loss_scale.load(state.scalars["loss_scale"])
        if self.engine.ema is not None and state.ema is not None:
            self.engine.ema.load(state.ema)


def _engine(
    recipe: Recipe, stage: StageSection, model: torch.nn.Module, start: StageModel, accelerator: Accelerator
) -> Engine:
    return Engine(
        model,
        build_optimizer(plain_model(model), start.trainable.groups, stage.optim),
        accelerator,
        stage.optim,
        Guard(recipe.max_bad_steps),
        partial(render_first, start.processor),
        EMA(model, stage.ema.decay) if stage.ema is not None else None,
        LossScale() if recipe.precision == "fp16" else None,
    )


def _why_skipped(step: Step) -> str:
    if not step.counts.supervised_tokens:
        return "skipped: none of its samples could be read"
    return f"skipped: loss or gradient not finite; {named(step.metrics.get('not_finite', ()))}"


def _num_steps(stage: StageSection, data: StageData) -> int:
    if stage.epochs is None:
        assert stage.max_steps is not None
        return stage.max_steps
    return min(data.schedule.num_steps(stage.epochs), stage.max_steps or sys.maxsize)


def _is_due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0
