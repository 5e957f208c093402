"""`cambrian eval`: one benchmark, one model, and beside every number the two levels it has to beat."""

from pathlib import Path
from typing import Annotated

import typer

from cambrian_cli.commands.train import AsJson
from cambrian_cli.output import progress, report, silence_libraries


def evaluate(
    task: Annotated[str, typer.Argument(metavar="TASK", help="cvbench, cvbench-2d or cvbench-3d.")],
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL", help="A run, a checkpoint folder, random[:SEED], constant[:LETTER] or canned:FILE."
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the benchmark, as on the hub; if not given, the run's own held-out scenes, or the hub.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the evaluation; eval/TASK inside the run, or a folder in runs, if not given."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Ask only so many questions, in proportion to task and source.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides what a limit keeps and which pictures are exchanged.")] = 0,
    blind: Annotated[bool, typer.Option("--blind", help="Show no pictures.")] = False,
    shuffle_images: Annotated[
        bool, typer.Option("--shuffle-images", help="Show every question the picture of another one.")
    ] = False,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Questions asked at once; 16 if not given.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Cap on a reply's length, below the benchmark's own.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a model on a benchmark; the same command goes on with an evaluation that was interrupted."""
    from cambrian_cli import evaluation

    mode = evaluation.choose_mode(blind, shuffle_images)
    with report(as_json) as out:
        plan = evaluation.plan(task, model, data, batch_size, max_new_tokens)
        silence_libraries()
        loaded = evaluation.load_model(model)
        folder = output or evaluation.default_output(task, loaded.name, plan.run, mode, limit, seed)
        with progress(f"asking {task}") as advance:
            result = evaluation.ask(plan, loaded, folder, mode=mode, limit=limit, seed=seed, progress=advance)
        evaluation.show(out, result)
        out.line(f"report: {folder / evaluation.REPORT}")
        out.result(
            {"evaluation": evaluation.summarise([result]), "run_dir": folder, "n_failed": result.num_failed},
        )
