"""A model out of a run that is still in training, or was stopped: the export of one of its checkpoints, on demand."""

import json
import shutil
from pathlib import Path
from typing import Literal

import torch

from cambrian_model.errors import TrainingError, did_you_mean
from cambrian_model.training.batches import Place
from cambrian_model.training.checkpoints import Checkpoints
from cambrian_model.training.ema import EMA, NUM_UPDATES
from cambrian_model.training.export import export_model
from cambrian_model.training.files import atomic_folder
from cambrian_model.training.manifest import Facts, refer_to_frozen, write_manifest
from cambrian_model.training.metrics import read_metrics
from cambrian_model.training.optim import build_optimizer
from cambrian_model.training.random_state import capture_random_state, restore_random_state, seed_everything
from cambrian_model.training.recipe import load_recipe
from cambrian_model.training.run_folder import RunFolder
from cambrian_model.training.start_model import StageModel, check_input, load_model, name_source, prepare_model
from cambrian_model.training.training_state import Progressed, TrainingState


def export_checkpoint(
    run_dir: Path, output: Path, stage: str | None = None, which: Literal["latest", "best"] = "latest"
) -> Progressed:
    """Writes the model of a checkpoint as `train` writes that of a finished stage; the run stays as it is.

    Args:
        run_dir: Folder of the run, which may be training meanwhile.
        output: Folder of the model; it must not exist.
        stage: Of the checkpoint; None for the last one that has any, or, for the best, the last that has begun.
        which: The newest one, or the one with the lowest validation loss; the end of a finished stage counts, too.

    Returns:
        How far the run was then.

    Raises:
        TrainingError: No run, no such stage or checkpoint there, or a folder in the way.
    """
    if output.exists():
        raise TrainingError(f"{output} is there already; choose a new folder")
    run = _open_run(run_dir)
    if stage is not None and stage not in run.stages:
        raise TrainingError(f'{run_dir} has no stage "{stage}"{did_you_mean(stage, run.stages)}')
    checkpoints = Checkpoints(run.checkpoints)
    if which == "best" and (end := _best_at_end(run, checkpoints, stage)) is not None:
        with atomic_folder(output, "the model") as folder:
            shutil.copytree(run.stage(end.stage), folder, dirs_exist_ok=True)
        return end
    name, path = _find(run, checkpoints, stage, which)
    before = capture_random_state()
    source = check_input(run, name)
    seed_everything(run.recipe.seed, name)
    start = prepare_model(run.recipe, name, *load_model(run.recipe, run.source(name)), source, torch.device("cpu"))
    done = _load(run, name, start, checkpoints, path)
    with atomic_folder(output, "the model") as folder:
        export_model(start.model, start.processor, folder)
        write_manifest(folder, Facts(run.recipe.name, name, source, run.recipe.stages[name].train))
    restore_random_state(before)
    return done


def _open_run(run_dir: Path) -> RunFolder:
    recipe_file, facts_file = run_dir / "recipe.yaml", run_dir / "run.json"
    if not (recipe_file.is_file() and facts_file.is_file()):
        raise TrainingError(f"{run_dir} is no run folder: it holds no recipe.yaml and run.json; give a run's --output")
    facts = json.loads(facts_file.read_text(encoding="utf-8"))
    start_from = Path(facts["start_from"]) if facts["start_from"] else None
    return RunFolder(run_dir, load_recipe(recipe_file), facts["stages"], start_from)


def _best_at_end(run: RunFolder, checkpoints: Checkpoints, stage: str | None) -> Progressed | None:
    """Returns the end of a stage if its model, which is written already, is the best: no checkpoint is made of it."""
    name = stage or _last_begun(run)
    lines = [line for line in read_metrics(run.metrics) if line["stage"] == name]
    last = next((line for line in reversed(lines) if line.get("kind") == "validation"), None)
    if last is None or not run.stage(name).is_dir():
        return None
    loss, best = sum(last["losses"].values()) / len(last["losses"]), checkpoints.best_metric(name)
    return Progressed(name, last["step"], Place()) if best is None or loss <= best else None


def _last_begun(run: RunFolder) -> str:
    """Returns the stage that the newest line of the metrics is of."""
    lines = read_metrics(run.metrics)
    return lines[-1]["stage"] if lines else run.stages[0]


def _find(run: RunFolder, checkpoints: Checkpoints, stage: str | None, which: str) -> tuple[str, Path]:
    for name in [stage or _last_begun(run)] if stage or which == "best" else reversed(run.stages):
        path = checkpoints.best(name) if which == "best" else checkpoints.latest(name)
        if path is not None:
            return name, path
    wanted = "checkpoint with a validation loss" if which == "best" else "checkpoint"
    raise TrainingError(
        f"{run.path} holds no {wanted}{f' of stage {stage}' if stage else ''}; the models of finished stages are in "
        f"{run.path / 'stages'}, and checkpoint.every says how often one is written"
    )


def _load(run: RunFolder, name: str, start: StageModel, checkpoints: Checkpoints, path: Path) -> Progressed:
    """Puts the weights of a checkpoint into the model: their average, if the stage keeps one."""
    stage = run.recipe.stages[name]
    ema = EMA(start.model, stage.ema.decay) if stage.ema is not None else None
    averages = ema.state() if ema is not None else None
    frozen = None if run.recipe.checkpoint.full else refer_to_frozen(start.model, name_source(start.source))
    optimizer = build_optimizer(start.model, start.trainable.groups, stage.optim)
    state = TrainingState(start.model, optimizer, Progressed(name, 0, Place()), averages, {}, run.recipe.seed, frozen)
    done = checkpoints.load(path, state)
    with torch.no_grad():
        for parameter_name, average in (averages or {}).items():
            if parameter_name != NUM_UPDATES:
                start.model.get_parameter(parameter_name).copy_(average)
    return done
