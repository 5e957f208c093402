"""`cambrian data`: what training and evaluation read."""

from pathlib import Path
from typing import Annotated

import typer

from cambrian_cli.commands.train import AsJson
from cambrian_cli.output import progress, report

app = typer.Typer(name="data", help="Make data.", no_args_is_help=True, rich_markup_mode=None)


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


@app.command()
def cvbench(
    scenes: Annotated[Path, typer.Option(metavar="DIR", help="Scenes that `cambrian data scenes` has rendered.")],
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder to write; empty, missing, or of the same questions.")
    ],
    count_per_task: Annotated[
        int | None, typer.Option(min=1, help="Questions of each task; as many as can be balanced if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides which questions are asked, and how.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write a CV-Bench about rendered scenes, in the hub's layout, as `cambrian eval cvbench --data DIR` reads it."""
    from cambrian_data.cvbench import write_scene_benchmark

    with report(as_json) as out:
        with progress("questions") as advance:
            summary = write_scene_benchmark(scenes, output, count_per_task=count_per_task, seed=seed, progress=advance)
        counts = ", ".join(f"{task.questions} {name}" for name, task in summary.tasks.items())
        out.line(f"{summary.num_questions} questions ({counts}) about {summary.num_pictures} pictures: {output}")
        out.result(
            {
                "output": output,
                "seed": seed,
                "num_questions": summary.num_questions,
                "num_pictures": summary.num_pictures,
                "tasks": {name: task.questions for name, task in summary.tasks.items()},
                "content_hash": summary.content_hash,
            }
        )
