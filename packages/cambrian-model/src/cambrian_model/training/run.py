"""A whole run: stages of a recipe one after another in one folder, each starting from the exported model of the last.

The folder is the run's memory: whatever kills the process, `resume=True` finds there which stages are done, which
checkpoint is the newest, and continues bit for bit. It holds `recipe.yaml` (resolved), `run.json` (versions, data,
hardware), `metrics.jsonl`, `curve.png`, `checkpoints/<stage>-<step>`, `stages/<stage>`, `checkpoint` and `result.json`.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from transformers import AutoConfig
from transformers.utils import logging

from cambrian_model.assemble import assemble
from cambrian_model.config import CambrianConfig
from cambrian_model.errors import RecipeError, TrainingError, did_you_mean
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.processing.processor import CambrianProcessor
from cambrian_model.training.batches import Place, Schedule, stream
from cambrian_model.training.index import DataIndex, Dataset, index_dataset
from cambrian_model.training.loop import run_steps, start_accelerator
from cambrian_model.training.metrics import (
    MetricsLog,
    StageSummary,
    cut_metrics,
    draw_curve,
    read_metrics,
    summarise,
)
from cambrian_model.training.optim import build_optimizer
from cambrian_model.training.provenance import describe_machine
from cambrian_model.training.recipe import ModelSection, Recipe, StageSection, load_recipe
from cambrian_model.training.stages import Trainable, TrainableRow, select_trainable
from cambrian_model.training.state import (
    UNFINISHED,
    Checkpoints,
    Progressed,
    atomic_folder,
    seed_everything,
    write_json,
    write_text,
)
from cambrian_model.vision.source import identify


@dataclass(frozen=True)
class Progress:
    """How far a run is, for whoever watches.

    Attributes:
        phase: "index" measures the data, "train" takes steps, "export" writes a stage's model.
        stage: The stage; in phase "index" the name of the data.
        done: Units done: samples, steps, or 1.
        total: Units in all.
        numbers: What to show beside them: loss, lr, tokens per second.
    """

    phase: Literal["index", "train", "export"]
    stage: str
    done: int
    total: int
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainResult:
    """What a run came to.

    Attributes:
        run_dir: Its folder.
        checkpoint: The trained model and processor, for `from_pretrained`.
        seconds: Time taken by all steps, restarts included.
        stages: A summary of each stage.
        dropped: Per stage, how many samples were left out of every epoch, by reason; `run.json` names them.
    """

    run_dir: Path
    checkpoint: Path
    seconds: float
    stages: dict[str, StageSummary]
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)


def train(
    recipe: Recipe,
    *,
    datasets: Mapping[str, Dataset],
    output: Path,
    stages: Sequence[str] | None = None,
    start_from: Path | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Trains a recipe's stages in order.

    Args:
        recipe: What to do, see `load_recipe`.
        datasets: For every name in `recipe.data` that a stage uses, its conversations.
        output: Folder of the run; empty or missing, unless `resume`.
        stages: Names of the stages to train; by default all of them.
        start_from: A model folder to start from, instead of building one from `recipe.model`.
        resume: Continue the run in `output`. An empty or missing folder starts anew, a finished run returns at once.
        progress: Told of every piece of work done.

    Raises:
        RecipeError: Unknown stage, or a value that the recipe leaves to its user is not set.
        TrainingError: The folder holds something else, the data is empty or unreadable, the loss is not finite, the
            disk is full.
    """
    names = _stage_names(recipe, stages)
    _check_ready(recipe, datasets, names)
    run = RunFolder(Path(output), recipe, names, start_from.resolve() if start_from else None)
    if run.is_finished(resume):
        return run.result()
    if run.start_from and run.stages[0] in run.unfinished():
        _check_same_model(recipe.model, run.start_from)
    run.sweep()
    report = progress or (lambda _: None)
    accelerator = start_accelerator(recipe)
    started, seconds_before = time.perf_counter(), sum(line["seconds"] for line in read_metrics(run.metrics))
    schedules: dict[str, Schedule] = {}
    for name in run.unfinished():
        seed_everything(recipe.seed, name)
        model, processor = _load_model(recipe, run.source(name))
        trainable = select_trainable(model, recipe.stages[name])
        schedules = schedules or _schedules(run, datasets, processor, report)
        _train_stage(run, name, model, processor, trainable, datasets, schedules[name], accelerator, report)
    run.finish(seconds_before + time.perf_counter() - started)
    return run.result()


def find_finished(
    recipe: Recipe,
    output: Path,
    stages: Sequence[str] | None = None,
    start_from: Path | None = None,
    resume: bool = False,
) -> TrainResult | None:
    """Returns the result of a run that is finished already, without its data; None if there is something to do.

    Raises:
        RecipeError: Unknown stage.
        TrainingError: The folder holds another run, or something else.
    """
    names = _stage_names(recipe, stages)
    run = RunFolder(Path(output), recipe, names, start_from.resolve() if start_from else None)
    return run.result() if run.is_finished(resume) else None


def has_begun(folder: Path) -> bool:
    """Tells whether a run in this folder has taken a step; one that has not holds nothing worth keeping."""
    metrics = folder / "metrics.jsonl"
    return (metrics.is_file() and metrics.stat().st_size > 0) or any(
        (folder / name).is_dir() and any((folder / name).iterdir()) for name in ("checkpoints", "stages", "checkpoint")
    )


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run: what is where, and whether it may be written into."""

    path: Path
    recipe: Recipe
    stages: Sequence[str]
    start_from: Path | None

    @property
    def metrics(self) -> Path:
        """One JSON object per step."""
        return self.path / "metrics.jsonl"

    @property
    def curve(self) -> Path:
        """Loss and learning rate of all steps as a picture."""
        return self.path / "curve.png"

    @property
    def checkpoint(self) -> Path:
        """The trained model and processor."""
        return self.path / "checkpoint"

    @property
    def checkpoints(self) -> Checkpoints:
        """What the run can be continued from."""
        return Checkpoints(self.path / "checkpoints", self.recipe.checkpoint.keep)

    def stage(self, name: str) -> Path:
        """Returns where a stage's model lies once the stage is done."""
        return self.path / "stages" / name

    def unfinished(self) -> list[str]:
        """Returns the stages still to train."""
        return [name for name in self.stages if not self.stage(name).is_dir()]

    def source(self, name: str) -> Path | None:
        """Returns the model folder that a stage starts from; None builds the model from the recipe."""
        position = list(self.stages).index(name)
        return self.stage(self.stages[position - 1]) if position else self.start_from

    def is_finished(self, resume: bool) -> bool:
        """Tells whether the run is finished already, after a look at what the folder holds; writes nothing.

        A run without a single step, as a mistake leaves it, is no obstacle to the corrected one.

        Raises:
            TrainingError: The folder holds another run, or something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise TrainingError(f"{self.path} cannot be the output folder: it is a file; choose another --output")
        entries = self.path.iterdir() if self.path.is_dir() else ()
        content = sorted(entry.name for entry in entries if not entry.name.startswith(UNFINISHED))
        if not content:
            return False
        if "recipe.yaml" not in content:
            raise TrainingError(
                f"{self.path} is no run folder: it holds {', '.join(content[:5])}; choose an empty or new --output"
            )
        if not has_begun(self.path):
            return False
        other = load_recipe(self.path / "recipe.yaml")
        if not resume:
            raise TrainingError(
                f'{self.path} holds a run of recipe "{other.name}"; to continue it add --resume, '
                f'to start a new run of "{self.recipe.name}" choose another --output'
            )
        if changes := _differences(other, self.recipe):
            raise TrainingError(
                f'{self.path} holds a run of recipe "{other.name}" with other values: {"; ".join(changes)}; '
                "resume with the recipe it was started with, or choose another --output"
            )
        self._check_same("stages", list(self.stages))
        self._check_same("start_from", str(self.start_from) if self.start_from else None)
        return (self.path / "result.json").is_file()

    def sweep(self) -> None:
        """Deletes what a killed run left half-written."""
        self.checkpoints.sweep()
        for left in [*self.path.glob(f"{UNFINISHED}*"), *(self.path / "stages").glob(f"{UNFINISHED}*")]:
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)

    def describe(self, schedules: Mapping[str, Schedule]) -> None:
        """Claims the folder and writes `run.json`, or checks that the data is what it was when the run began.

        Raises:
            TrainingError: The data has changed, no sample fits into a row, or the folder cannot be made.
        """
        indices = {self.recipe.stages[name].data: schedule.index for name, schedule in schedules.items()}
        known = self._known().get("data", {}) if has_begun(self.path) else {}
        for name, index in indices.items():
            if name in known and known[name]["fingerprint"] != index.fingerprint:
                raise TrainingError(
                    f'data "{name}" has changed since {self.path} was started ({known[name]["samples"]} samples then, '
                    f"{len(index.ids)} now); put it back, or start a new run"
                )
        if known:
            return
        facts = {
            "recipe": self.recipe.name,
            "seed": self.recipe.seed,
            "stages": list(self.stages),
            "start_from": str(self.start_from) if self.start_from else None,
            "data": {name: _index_facts(index) for name, index in indices.items()},
            "packing": {name: _packing_facts(schedule) for name, schedule in schedules.items()},
            **describe_machine(),
        }
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"{self.path} cannot be the output folder: {error}; choose another --output") from error
        write_text(self.path / "recipe.yaml", self.recipe.to_yaml())
        write_json(self.path / "run.json", facts)

    def describe_stage(self, name: str, table: Sequence[TrainableRow]) -> None:
        """Notes in `run.json` what a stage trains: parameters and learning rate of every part, null where frozen."""
        known = self._known()
        known["parts"] = {**known.get("parts", {}), name: {row.part: row._asdict() for row in table}}
        write_json(self.path / "run.json", known)

    def finish(self, seconds: float) -> None:
        """Publishes the last stage's model as the run's checkpoint, and marks the run finished.

        Raises:
            TrainingError: The disk is full.
        """
        with atomic_folder(self.checkpoint, "checkpoint") as folder:
            shutil.copytree(self.stage(self.stages[-1]), folder, copy_function=_link_or_copy, dirs_exist_ok=True)
        lines = read_metrics(self.metrics)
        if lines and not self.curve.is_file():
            draw_curve(lines, self.curve, self.recipe.name)
        summaries = summarise(lines)
        stages = {name: asdict(summary) for name, summary in summaries.items()}
        write_json(self.path / "result.json", {"seconds": round(seconds, 3), "stages": stages})

    def result(self) -> TrainResult:
        """Returns the result of a finished run."""
        result = json.loads((self.path / "result.json").read_text(encoding="utf-8"))
        stages = {name: StageSummary(**summary) for name, summary in result["stages"].items()}
        dropped = {
            name: {reason: len(ids) for reason, ids in packing["dropped"].items()}
            for name, packing in self._known().get("packing", {}).items()
        }
        return TrainResult(self.path, self.checkpoint, result["seconds"], stages, dropped)

    def _known(self) -> dict[str, Any]:
        file = self.path / "run.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def _check_same(self, key: str, value: Any) -> None:
        known = self._known()
        if known and known.get(key) != value:
            raise TrainingError(
                f"{self.path} holds a run with {key} {known.get(key)}, not {value}; "
                "resume it as it was started, or choose another --output"
            )


def _train_stage(
    run: RunFolder,
    name: str,
    model: CambrianForConditionalGeneration,
    processor: CambrianProcessor,
    trainable: Trainable,
    datasets: Mapping[str, Dataset],
    schedule: Schedule,
    accelerator: Accelerator,
    report: Callable[[Progress], None],
) -> None:
    """Trains one stage from its newest checkpoint, or from its beginning, and exports the model."""
    recipe, stage = run.recipe, run.recipe.stages[name]
    run.describe_stage(name, trainable.table)
    model.to(accelerator.device)
    optimizer = build_optimizer(trainable.groups, stage.optim)
    num_steps = _num_steps(stage, schedule)
    done = Progressed(name, 0, Place())
    if latest := run.checkpoints.latest(name):
        done = run.checkpoints.load(latest, model, optimizer)
    cut_metrics(run.metrics, list(run.stages)[: list(run.stages).index(name)], name, done.step)
    data = stream(datasets[stage.data], processor, schedule, _pad_token_id(processor), done.place, recipe.num_workers)
    with MetricsLog(run.metrics) as log:
        for step in run_steps(model, optimizer, data, accelerator, stage.optim, done.step, num_steps):
            log.write({"stage": name, **step.metrics})
            if step.number % recipe.log_every == 0 or step.number == num_steps:
                report(Progress("train", name, step.number, num_steps, _shown(step.metrics)))
            if _is_due(recipe.checkpoint.every, step.number, num_steps):
                run.checkpoints.save(Progressed(name, step.number, step.next_place), model, optimizer)
    draw_curve(read_metrics(run.metrics), run.curve, recipe.name)  # before the export, which makes the stage done
    with atomic_folder(run.stage(name), "the model of stage") as folder, _no_progress_bars():
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    report(Progress("export", name, 1, 1))


def _load_model(recipe: Recipe, source: Path | None) -> tuple[CambrianForConditionalGeneration, CambrianProcessor]:
    if source is None:
        return assemble(recipe.model.spec())
    with _no_progress_bars():
        model = CambrianForConditionalGeneration.from_pretrained(source, dtype=torch.float32)
    return model, CambrianProcessor.from_pretrained(source)


def _check_same_model(section: ModelSection, source: Path) -> None:
    """Refuses to start from a model that is not the recipe's, for its `model` section would go unheeded.

    Raises:
        TrainingError: Names the key and both values.
    """
    found = CambrianConfig.from_pretrained(source)
    wanted_parts, found_parts = _wanted_parts(section), _found_parts(found)
    for key, wanted in wanted_parts.items():
        if wanted != found_parts.get(key):
            raise TrainingError(
                f"model.{key} is {wanted} in the recipe, but {found_parts.get(key)} in the checkpoint {source}; "
                "change this key, take the checkpoint's own recipe, or start from another checkpoint"
            )


TEXT_KEYS = ("model_type", "hidden_size", "num_hidden_layers")
ENCODER_KEYS = ("image_side", "feature_layer", "grid_side")


def _wanted_parts(section: ModelSection) -> dict[str, Any]:
    """Returns what a recipe says of its model, by dotted key; what it leaves open is left out."""
    parts: dict[str, Any] = {"grid_side": section.grid_side, "vision_encoders": len(section.vision_encoders)}
    for i, encoder in enumerate(section.vision_encoders):
        parts[f"vision_encoders.{i}.name"] = identify(encoder.name)
        given = {key: getattr(encoder, key) for key in ENCODER_KEYS}
        parts |= {f"vision_encoders.{i}.{key}": value for key, value in given.items() if value is not None}
    parts |= {f"connector.{key}": value for key, value in section.connector.model_dump(mode="json").items()}
    language = section.language_model
    text = language.config or {}
    if language.path and Path(language.path).is_dir():
        text = AutoConfig.from_pretrained(language.path).to_dict()
    return parts | {f"language_model.config.{key}": text[key] for key in TEXT_KEYS if key in text}


def _found_parts(config: CambrianConfig) -> dict[str, Any]:
    """Returns the same of a checkpoint."""
    parts: dict[str, Any] = {"grid_side": config.grid_side, "vision_encoders": len(config.encoders)}
    for i, encoder in enumerate(config.encoders):
        parts[f"vision_encoders.{i}.name"] = f"{encoder.library}:{encoder.name}"
        parts |= {f"vision_encoders.{i}.{key}": getattr(encoder, key) for key in ENCODER_KEYS}
    connector = asdict(config.connector_config)
    parts |= {f"connector.{k}": list(v) if isinstance(v, tuple) else v for k, v in connector.items()}
    text = config.get_text_config()
    return parts | {f"language_model.config.{key}": getattr(text, key, None) for key in TEXT_KEYS}


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keeps transformers from drawing over whatever shows the run's own progress."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _schedules(
    run: RunFolder, datasets: Mapping[str, Dataset], processor: CambrianProcessor, report: Callable[[Progress], None]
) -> dict[str, Schedule]:
    """Measures the data of the stages still to train, and fixes its order."""
    stages = {name: run.recipe.stages[name] for name in run.unfinished()}
    indices: dict[str, DataIndex] = {}
    for data in dict.fromkeys(stage.data for stage in stages.values()):
        try:
            indices[data] = index_dataset(datasets[data], processor, partial(_report_indexed, report, data))
        except TrainingError as error:
            raise TrainingError(f'data "{data}": {error}') from error
    schedules = {name: Schedule(indices[stage.data], stage.batch, run.recipe.seed) for name, stage in stages.items()}
    run.describe(schedules)
    return schedules


def _report_indexed(report: Callable[[Progress], None], data: str, done: int, total: int) -> None:
    report(Progress("index", data, done, total))


def _stage_names(recipe: Recipe, stages: Sequence[str] | None) -> list[str]:
    """Returns the stages to train, in the recipe's order."""
    for name in stages or ():
        if name not in recipe.stages:
            raise RecipeError(f'recipe "{recipe.name}" has no stage "{name}"{did_you_mean(name, recipe.stages)}')
    return [name for name in recipe.stages if stages is None or name in stages]


def _check_ready(recipe: Recipe, datasets: Mapping[str, Dataset], names: Sequence[str]) -> None:
    if unset := recipe.unset():
        options = " ".join(f"--set {key}=PATH" for key in unset)
        raise RecipeError(f'recipe "{recipe.name}" leaves {", ".join(unset)} to you; add {options}')
    for name in names:
        if (data := recipe.stages[name].data) not in datasets:
            raise TrainingError(f'stage "{name}" needs data "{data}", but only {sorted(datasets)} was passed')


def _num_steps(stage: StageSection, schedule: Schedule) -> int:
    if stage.epochs is None:
        assert stage.max_steps is not None
        return stage.max_steps
    return min(schedule.num_steps(stage.epochs), stage.max_steps or sys.maxsize)


def _is_due(every: int, step: int, num_steps: int) -> bool:
    """Tells whether to write a checkpoint; after the last step the whole model is exported instead."""
    return every > 0 and step % every == 0 and step < num_steps


def _pad_token_id(processor: CambrianProcessor) -> int:
    """Returns what fills the end of a row: its value never matters, it only has to be a text token."""
    pad, end = processor.tokenizer.pad_token_id, processor.tokenizer.eos_token_id
    return next((token for token in (pad, end) if token is not None), 0)


def _shown(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {"loss": metrics["loss"], "lr": metrics["lr"], "tokens/s": metrics["tokens"] / metrics["seconds"]}


def _index_facts(index: DataIndex) -> dict[str, Any]:
    return {
        "fingerprint": index.fingerprint,
        "samples": len(index.ids),
        "tokens": sum(index.lengths),
        "images": sum(index.num_images),
    }


def _packing_facts(schedule: Schedule) -> dict[str, Any]:
    plan = schedule.plan(0)
    dropped = {reason: [schedule.index.ids[i] for i in samples] for reason, samples in plan.dropped.items()}
    return {"rows": len(plan.rows), "fill": round(plan.fill, 4), "dropped": dropped}


def _differences(old: Recipe, new: Recipe) -> list[str]:
    """Names every key whose value differs, with both values."""
    before, after = dict(_leaves(old.model_dump(mode="json"))), dict(_leaves(new.model_dump(mode="json")))
    return [
        f"{key} was {before.get(key, 'absent')!r}, now {after.get(key, 'absent')!r}"
        for key in dict.fromkeys([*before, *after])
        if before.get(key, "absent") != after.get(key, "absent")
    ]


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        yield key, value
        return
    for name, item in value.items():
        yield from _leaves(item, f"{key}.{name}" if key else name)


def _link_or_copy(source: str, target: str) -> None:
    """Gives a file a second name where the file system can, for models are large."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
