"""`cambrian train`, `pretrain` and `finetune`: one recipe, all of its stages or one of them."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cambrian_cli.output import progress_of_parts, report, silence_libraries

if TYPE_CHECKING:
    from cambrian_cli.captions import Captions
    from cambrian_eval import Result
    from cambrian_model.training import TrainResult

DEFAULT_RECIPE = "tiny"
PHASES = {"index": "measuring", "train": "training", "export": "saving"}

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name (`cambrian recipes list`) or file.")]
Output = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of the run; a new runs/RECIPE-DATE-TIME if not given."),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Continue the run in --output; an empty folder starts anew, a finished run is done."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe, as stages.align.max_steps=10."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="The last line on stdout is one JSON object; all else goes to stderr.")
]
StartFrom = Annotated[
    Path,
    typer.Option("--from", metavar="CKPT", help="Checkpoint to start from: a run of `pretrain`, or a model folder."),
]


def train(
    recipe: RecipeName = DEFAULT_RECIPE,
    output: Output = None,
    resume: Resume = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train a recipe through all of its stages, then caption three pictures and evaluate as the recipe says."""
    _train(recipe, output, resume, overrides, as_json)


def pretrain(
    recipe: RecipeName,
    output: Output = None,
    resume: Resume = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train the align stage of a recipe: the connector learns to speak to the language model."""
    _train(recipe, output, resume, overrides, as_json, stages=["align"])


def finetune(
    recipe: RecipeName,
    start_from: StartFrom,
    output: Output = None,
    resume: Resume = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train the finetune stage of a recipe from an aligned checkpoint."""
    _train(recipe, output, resume, overrides, as_json, stages=["finetune"], start_from=start_from)


def _train(
    recipe_name: str,
    output: Path | None,
    resume: bool,
    overrides: Sequence[str] | None,
    as_json: bool,
    stages: Sequence[str] | None = None,
    start_from: Path | None = None,
) -> None:
    from cambrian_cli import captions, datasets, evaluation, page, runs

    runs.check_options(output, resume)
    from cambrian_model import training
    from cambrian_model.training.run import find_finished

    silence_libraries()
    with report(as_json) as out:
        recipe = training.load_recipe(recipe_name, overrides=overrides or ())
        source = start_from and runs.model_in(start_from)
        result = find_finished(recipe, output, stages, source, resume) if output else None
        shown = captions.stored(result.run_dir) if result else None
        if result is None or shown is None:
            sources = datasets.build(recipe, stages)
            with runs.folder_of_run(output, recipe.name) as folder, progress_of_parts() as advance:
                result = training.train(
                    recipe,
                    datasets=sources,
                    output=folder,
                    stages=stages,
                    start_from=source,
                    resume=resume,
                    progress=lambda now: advance(
                        f"{PHASES[now.phase]} {now.stage}", now.done, now.total, **now.numbers
                    ),
                )
            shown = captions.make(recipe, sources, result.checkpoint, result.run_dir)
        captions.show(out, shown)
        results: list[Result] = []
        if list(recipe.stages)[-1] in result.stages:
            with progress_of_parts() as advance:
                results = evaluation.after_training(recipe, result.run_dir, advance)
        for stage, reasons in result.dropped.items():
            for reason, count in reasons.items():
                out.line(f"stage {stage} left out {count} samples: {reason} (named in run.json)")
        if results:
            out.table(*evaluation.compare(results))
            out.line(f"report:     {page.write(result.run_dir, results)}")
        out.line(f"run:        {result.run_dir}")
        out.line(f"checkpoint: {result.checkpoint}")
        out.result(_summary(result, shown, results))


def _summary(result: "TrainResult", shown: "Captions", results: "Sequence[Result]") -> dict[str, Any]:
    from cambrian_cli.evaluation import summarise

    return {
        "run_dir": result.run_dir,
        "seconds": result.seconds,
        "checkpoint": result.checkpoint,
        "stages": {name: asdict(summary) for name, summary in result.stages.items()},
        "dropped": result.dropped,
        "captions": [caption._asdict() for caption in shown.captions],
        "captions_held_out": shown.held_out,
        "evaluation": summarise(results),
        "n_failed": sum(result.num_failed for result in results),
    }
