"""`cambrian export-predictions`: a run's answers in the files of lmms-eval or VLMEvalKit."""

from pathlib import Path
from typing import Annotated

import typer

from cambrian_cli.commands.train import AsJson
from cambrian_cli.output import report


def export_predictions(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished evaluation.")],
    form: Annotated[str, typer.Option("--format", metavar="FORMAT", help="lmms-eval or vlmevalkit.")],
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder to write into; a folder named after the format in the run, if not given."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a run's predictions so that another evaluation tool can read them."""
    from cambrian_eval.bridges import exports

    with report(as_json) as out:
        files = exports.export_predictions(run, form, output or run / form)
        for path in files:
            out.line(f"{path} ({path.stat().st_size:,} bytes)")
        out.result({"format": form, "files": files})
