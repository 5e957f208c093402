"""`cambrian export`: the model of a run that has not finished, out of one of its checkpoints."""

from pathlib import Path
from typing import Annotated

import typer

from cambrian_cli.commands.train import AsJson
from cambrian_cli.output import report, silence_libraries

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run; it may be training meanwhile.")]
Target = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the model; it must not exist.")]
Stage = Annotated[str | None, typer.Option(help="Stage of the checkpoint; the last one if not given.")]
Best = Annotated[
    bool, typer.Option("--best", help="Of the lowest validation loss, a finished stage's end included, not the newest.")
]


def export(run: Run, output: Target, stage: Stage = None, best: Best = False, as_json: AsJson = False) -> None:
    """Write the model of a run's checkpoint, as a finished stage is written: for `ask`, `eval`, `from_pretrained`."""
    from cambrian_model import training

    silence_libraries()
    with report(as_json) as out:
        done = training.export_checkpoint(run, output, stage, "best" if best else "latest")
        out.line(f"{output}: the model of stage {done.stage} after step {done.step}")
        out.result({"checkpoint": output, "stage": done.stage, "step": done.step})
