"""A whole run: stages of a recipe one after another in one folder, each starting from the exported model of the last.

The folder is the run's memory: whatever kills the process, `resume=True` finds there which stages are done, which
checkpoint is the newest, and continues bit for bit. Every process of a run calls `train` alike.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from cambrian_model.errors import RecipeError, TrainingError, did_you_mean
from cambrian_model.training.distributed import rank, start_accelerator, sum_over_ranks, together
from cambrian_model.training.folder_lock import FolderLock
from cambrian_model.training.index import Dataset
from cambrian_model.training.metrics import read_metrics, step_lines
from cambrian_model.training.progress import Report
from cambrian_model.training.random_state import seed_everything
from cambrian_model.training.recipe import Recipe
from cambrian_model.training.run_folder import RunFolder, TrainResult
from cambrian_model.training.stage_data import StageSources
from cambrian_model.training.stage_run import Evaluate, Surroundings, train_stage
from cambrian_model.training.start_model import check_input, load_model, prepare_model
from cambrian_model.training.streaming import StreamSource
from cambrian_model.training.trackers import open_trackers


def train(
    recipe: Recipe,
    *,
    datasets: Mapping[str, Dataset | StreamSource],
    output: Path,
    stages: Sequence[str] | None = None,
    start_from: Path | None = None,
    resume: bool = False,
    progress: Report | None = None,
    evaluate: Evaluate | None = None,
) -> TrainResult:
    """Trains a recipe's stages in order.

    Args:
        recipe: What to do, see `load_recipe`.
        datasets: For every name in `recipe.data` that a stage uses, its conversations, by number or as a stream.
        output: Folder of the run; empty or missing, unless `resume`. All ranks must see it.
        stages: Names of the stages to train; by default all of them.
        start_from: A model folder to start from, instead of building one from `recipe.model`.
        resume: Continue the run in `output`. An empty or missing folder starts anew, a finished run returns at once.
        progress: Told of every piece of work done, on every rank.
        evaluate: Called with model, processor, stage and step every `recipe.evaluation.every` steps, on every rank;
            returns scores by name.

    Raises:
        RecipeError: Unknown stage, or a value that the recipe leaves to its user is not set.
        TrainingError: The folder holds something else, the data is empty or unreadable, the loss is not finite, the
            disk is full.
        RunStopped: The process was told to stop (SIGTERM), and has saved where it was.
    """
    names = _stage_names(recipe, stages)
    _check_ready(recipe, datasets, names)
    run = RunFolder(Path(output), recipe, names, start_from.resolve() if start_from else None)
    is_joined = dist.is_initialized()
    accelerator = start_accelerator(recipe)
    report, lock = progress or (lambda _: None), FolderLock(run.path)
    try:
        if _is_finished(run, resume, accelerator.device):
            return run.result()
        with _told_to_stop() as is_told_to_stop:
            _prepare_folder(run, lock, accelerator.device)
            with open_trackers(recipe.trackers, recipe.name, run.path / "trackers", recipe.model_dump()) as trackers:
                around = Surroundings(accelerator, trackers, report, evaluate, is_told_to_stop)
                _train_stages(run, datasets, around, lock)
        return run.result()
    finally:
        lock.release()
        if not is_joined and dist.is_initialized():
            dist.destroy_process_group()


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


def _is_finished(run: RunFolder, resume: bool, device: torch.device) -> bool:
    """Looks at the folder on the first rank, before any rank writes there."""
    with together("looking at the run's folder", device):
        is_finished = rank() == 0 and run.is_finished(resume)
    return sum_over_ranks([float(is_finished)], device) == [1.0]


def _prepare_folder(run: RunFolder, lock: FolderLock, device: torch.device) -> None:
    with together("preparing the run's folder", device):
        if rank() == 0 and run.path.is_dir():
            lock.take()
            run.sweep()


def _train_stages(
    run: RunFolder, datasets: Mapping[str, Dataset | StreamSource], around: Surroundings, lock: FolderLock
) -> None:
    recipe, device = run.recipe, around.accelerator.device
    started = time.perf_counter()
    seconds_before = sum(line["seconds"] for line in step_lines(read_metrics(run.metrics)))
    sources: StageSources | None = None
    for name in run.unfinished():
        with together(f"loading the model of stage {name}", device):
            source = check_input(run, name)
            seed_everything(recipe.seed, name)
            model, processor = load_model(recipe, run.source(name))
            start = prepare_model(recipe, name, model, processor, source, device)
        if sources is None:
            sources = StageSources.measure(run, datasets, processor, device, around.report)
            _describe(run, lock, sources, model.config.encoders, device)
        data = sources.of_stage(name, model.config.encoders)
        validation = sources.of_validation(name, model.config.encoders)
        if recipe.stages[name].feature_cache:
            data = sources.with_features(name, data, model, device, around.report)
        train_stage(run, name, start, data, validation, around)
    with together("finishing the run", device):
        if rank() == 0:
            run.finish(seconds_before + time.perf_counter() - started)


def _describe(
    run: RunFolder, lock: FolderLock, sources: StageSources, encoders: Sequence[Any], device: torch.device
) -> None:
    packing = {name: dict(sources.of_stage(name, encoders).facts) for name in run.unfinished()}
    with together("describing the run", device):
        if rank() == 0:
            run.claim()
            lock.take()
            run.describe(sources.facts(), packing)


@contextmanager
def _told_to_stop() -> Iterator[Callable[[], bool]]:
    """Gives what tells whether SIGTERM has come; only a process's main thread hears of signals."""
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        yield told.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


def _stage_names(recipe: Recipe, stages: Sequence[str] | None) -> list[str]:
    """Returns the stages to train, in the recipe's order."""
    for name in stages or ():
        if name not in recipe.stages:
            raise RecipeError(f'recipe "{recipe.name}" has no stage "{name}"{did_you_mean(name, recipe.stages)}')
    return [name for name in recipe.stages if stages is None or name in stages]


def _check_ready(recipe: Recipe, datasets: Mapping[str, Dataset | StreamSource], names: Sequence[str]) -> None:
    if unset := recipe.unset():
        options = " ".join(f"--set {key}=PATH" for key in unset)
        raise RecipeError(f'recipe "{recipe.name}" leaves {", ".join(unset)} to you; add {options}')
    for name in names:
        if missing := [source for source in recipe.stages[name].sources if source not in datasets]:
            raise TrainingError(f'stage "{name}" needs data "{missing[0]}", but only {sorted(datasets)} was passed')
