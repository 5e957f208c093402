"""`cambrian eval`: benchmarks and a model, and beside every number the two levels it has to beat."""

from pathlib import Path
from typing import Annotated

import typer

from cambrian_cli.commands.train import AsJson
from cambrian_cli.output import report, silence_libraries


def evaluate(
    tasks: Annotated[
        str,
        typer.Argument(
            metavar="TASKS", help="A benchmark, a group, or several with commas between: cambrian tasks list."
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="A run, a checkpoint folder, cambrian:PATH, huggingface:NAME, openai:URL#NAME, random[:SEED], "
            "constant[:LETTER] or canned:FILE.",
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the benchmark, as on the hub, or of one folder for each benchmark; if not given, the run's "
            "own held-out scenes, or the hub.",
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of the data; the benchmark's own if not given.")] = None,
    revision: Annotated[
        str | None, typer.Option(metavar="COMMIT", help="Commit, branch or tag of the hub's data.")
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
    ids: Annotated[
        str | None, typer.Option(metavar="IDS", help="Ask only these: 12,2d-40,40-60, or a file that lists them.")
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Decides what a limit keeps, which pictures are exchanged, which orders options have.")
    ] = 0,
    blind: Annotated[bool, typer.Option("--blind", help="Show no pictures.")] = False,
    shuffle_images: Annotated[
        bool, typer.Option("--shuffle-images", help="Show every question the picture of another one.")
    ] = False,
    permute: Annotated[
        int,
        typer.Option(min=0, metavar="K", help="Ask each question in K orders of its options; all of them is circular."),
    ] = 0,
    prompt: Annotated[
        str, typer.Option(metavar="FORM", help="direct (the benchmark's own), cot (think first) or bare (no format).")
    ] = "direct",
    scoring: Annotated[
        str, typer.Option(metavar="HOW", help="generate (read the reply) or logits (the likeliest letter).")
    ] = "generate",
    compat: Annotated[
        str | None, typer.Option(metavar="TOOL", help="Ask and score as reference, lmms-eval or vlmevalkit does.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Cap on a reply's length, below the benchmark's own.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Questions asked at once; the model's preference, or 16, if not given.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that answer, each with the model, one for each GPU.")
    ] = 1,
    verify_batching: Annotated[
        int, typer.Option(min=0, metavar="N", help="Ask N prompts alone too; if a reply differs, ask all one by one.")
    ] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show one prompt and what would be asked; load no model.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate a model on benchmarks; the same command goes on with an evaluation that was interrupted."""
    from cambrian_cli import evaluation

    conditions = evaluation.make_conditions(
        split=split,
        limit=limit,
        ids=ids,
        seed=seed,
        mode=evaluation.choose_mode(blind, shuffle_images),
        prompt=prompt,
        scoring=scoring,
        permute=permute,
        compat=compat,
        verify_batching=verify_batching,
    )
    with report(as_json) as out:
        wanted = evaluation.choose_tasks(tasks)
        plans = evaluation.plan_all(wanted, model, data, batch_size, max_new_tokens, revision, conditions)
        if dry_run:
            out.result({"dry_run": evaluation.show_plans(out, plans)})
            return
        silence_libraries()
        with evaluation.loaded(model, workers) as crew:
            folder = output or evaluation.default_output(tasks, crew.name, plans[0].run, conditions)
            results = evaluation.ask_all(plans, crew, folder)
        for result in results:
            evaluation.show(out, result)
            out.line(f"report: {result.output / evaluation.REPORT}")
        fields = evaluation.finish(out, wanted, results, folder)
        out.result(fields)
        evaluation.check_complete(results, folder)
