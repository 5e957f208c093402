"""`cambrian data`: what training and evaluation read."""

from pathlib import Path
from typing import Annotated

import typer

from cambrian_cli.commands.data_leakage import leakage
from cambrian_cli.commands.train import AsJson
from cambrian_cli.output import progress, report

app = typer.Typer(name="data", help="Make data.", no_args_is_help=True, rich_markup_mode=None)
app.command()(leakage)


@app.callback()
def options() -> None:
    """Make data."""


@app.command()
def scenes(
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder to write; empty, missing, or of the same scenes.")
    ],
    count: Annotated[int, typer.Option(min=1, help="Number of scenes.")] = 1000,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes; another seed, other scenes.")] = 0,
    side: Annotated[int, typer.Option(min=16, help="Width and height of the pictures in pixels.")] = 64,
    processes: Annotated[int, typer.Option(min=1, help="Processes that render.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Render scenes: pictures, COCO instances, Omni3D cuboids and captions."""
    from cambrian_data.scenes import write_scenes

    with report(as_json) as out:
        with progress("scenes") as advance:
            summary = write_scenes(output, count=count, seed=seed, side=side, processes=processes, progress=advance)
        out.line(f"{summary.count} scenes with {summary.num_objects} objects: {output}")
        out.result(
            {
                "output": output,
                "count": summary.count,
                "seed": summary.seed,
                "side": summary.side,
                "num_objects": summary.num_objects,
                "content_hash": summary.content_hash,
            }
        )
