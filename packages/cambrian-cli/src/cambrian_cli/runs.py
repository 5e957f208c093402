"""Run folders: a new one that no other run has, and the checkpoint inside one."""

import os
from datetime import datetime
from pathlib import Path

from cambrian_cli.errors import CommandError

RUNS = Path("runs")
CHECKPOINT = "checkpoint"  # the trained model inside a run's folder


def check_options(output: Path | None, resume: bool) -> None:
    """Refuses, before any work is done, options that need a named folder and a folder that holds something.

    Raises:
        CommandError: `--output` is missing where it is needed, or names a folder in use.
    """
    if output is not None:
        if not resume and output.exists() and not (output.is_dir() and not any(output.iterdir())):
            raise CommandError(f"{output} is in use; choose an empty or new folder, or continue its run with --resume.")
        return
    if resume:
        raise CommandError("--resume continues the run in a folder; name the folder with --output DIR.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise CommandError("several processes train one run; give all of them the same folder with --output DIR.")


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
    """Returns the model folder of a run, or `folder` itself if it is one already, or no run (a name on the hub)."""
    inside = folder / CHECKPOINT
    return inside if inside.is_dir() and not (folder / "config.json").exists() else folder
