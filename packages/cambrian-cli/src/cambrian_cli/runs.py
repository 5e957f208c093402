"""Run folders: a new one that no other run has, and the checkpoint inside one."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from cambrian_cli.errors import CommandError
from cambrian_cli.output import is_first_process

RUNS = Path("runs")
RECIPE = "recipe.yaml"  # by which a run's folder is known
CHECKPOINT = "checkpoint"  # the trained model inside a run's folder


def check_options(output: Path | None, resume: bool) -> None:
    """Refuses, before any work is done, options that need a named folder and a folder that holds something.

    Raises:
        CommandError: `--output` is missing where it is needed, or names a folder in use.
    """
    if output is not None and not is_first_process():
        return  # the first one looks: it may have begun to write there
    if output is not None:
        if (output / RECIPE).is_file():
            return  # a run's folder: training knows whether it can be continued or replaced
        if not resume and output.exists() and not (output.is_dir() and not any(output.iterdir())):
            raise CommandError(f"{output} is in use; choose an empty or new folder, or continue its run with --resume.")
        return
    if resume:
        raise CommandError("--resume continues the run in a folder; name the folder with --output DIR.")
    if (processes := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise CommandError(f"{processes} processes share one run; name its folder with --output DIR.")


def new_folder(recipe_name: str, now: datetime | None = None) -> Path:
    """Makes ``runs/<recipe>-<date>-<time>``; two runs never share one, not even if they start in the same second."""
    stamp = (now or datetime.now()).strftime("%Y%m%d-%H%M%S")
    for number in range(1, 10_000):
        folder = RUNS / (f"{recipe_name}-{stamp}" if number == 1 else f"{recipe_name}-{stamp}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise CommandError(f"{RUNS} holds 10,000 runs named {recipe_name}-{stamp}; remove some or use --output DIR.")


@contextlib.contextmanager
def folder_of_run(output: Path | None, recipe_name: str) -> Iterator[Path]:
    """Gives the folder of a run; a new one goes again if an error comes before the run's first step."""
    if output is not None:
        yield output
        return
    from cambrian_model.training.run_folder import has_begun

    folder = new_folder(recipe_name)
    try:
        yield folder
    except BaseException:
        if not has_begun(folder):
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                RUNS.rmdir()  # succeeds only if it is empty
        raise


def model_in(folder: Path) -> Path:
    """Returns the model folder of a run, or `folder` itself, after a look at what it is.

    Raises:
        CheckpointError: It holds something else than a Cambrian checkpoint.
    """
    from cambrian_model.checkpoints.native import check_is_cambrian

    model = checkpoint_in(folder)
    check_is_cambrian(model.absolute())  # absolute, for training starts from a folder and never from a name on the hub
    return model


def checkpoint_in(folder: Path) -> Path:
    """Returns the model folder of a run, or `folder` itself if it is one already, or no run (a name on the hub).

    Raises:
        CommandError: The run has not finished.
    """
    inside = folder / CHECKPOINT
    if (folder / RECIPE).is_file() and not inside.is_dir():
        raise CommandError(f"{folder}: this run has not finished; continue it with --resume.")
    return inside if inside.is_dir() and not (folder / "config.json").exists() else folder
