"""`cambrian train`, `pretrain` and `finetune`: one recipe, all of its stages or one of them."""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cambrian_cli.output import AdvancePart, Report, is_first_process, progress_of_parts, report, silence_libraries

if TYPE_CHECKING:
    from cambrian_cli.captions import Captions
    from cambrian_eval import Result
    from cambrian_model.training import Progress, TrainResult

DEFAULT_RECIPE = "tiny"
PHASES = {"index": "measuring", "encode": "encoding pictures of", "train": "training", "export": "saving"}
LOOKS = {"validate": "validation", "evaluate": "evaluation"}  # what is said once, and has no progress

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


OnBadSample = Annotated[
    Literal["error", "skip"] | None,
    typer.Option(help="What to do with a record or picture that cannot be read; the recipe's own if not given."),
]
Full = Annotated[
    bool, typer.Option("--full", help="Store frozen weights in checkpoints too, not only where they came from.")
]
PrintLaunch = Annotated[
    Literal["torchrun", "slurm", "accelerate"] | None,
    typer.Option(help="Print what starts this command on many GPUs, and do nothing else."),
]
Nodes = Annotated[int, typer.Option(min=1, help="Machines, for --print-launch.")]
GPUsPerNode = Annotated[int, typer.Option(min=1, help="GPUs of each machine, for --print-launch.")]


def train(
    recipe: RecipeName = DEFAULT_RECIPE,
    output: Output = None,
    resume: Resume = False,
    overrides: Overrides = None,
    on_bad_sample: OnBadSample = None,
    full: Full = False,
    as_json: AsJson = False,
    print_launch: PrintLaunch = None,
    nodes: Nodes = 1,
    gpus_per_node: GPUsPerNode = 8,
) -> None:
    """Train a recipe through all of its stages, then caption three pictures and evaluate as the recipe says."""
    if print_launch is not None:
        return _print_launch(print_launch, recipe, output, nodes, gpus_per_node)
    return _train(recipe, output, resume, _with_options(overrides, on_bad_sample, full), as_json)


def pretrain(
    recipe: RecipeName,
    output: Output = None,
    resume: Resume = False,
    overrides: Overrides = None,
    on_bad_sample: OnBadSample = None,
    full: Full = False,
    as_json: AsJson = False,
    print_launch: PrintLaunch = None,
    nodes: Nodes = 1,
    gpus_per_node: GPUsPerNode = 8,
) -> None:
    """Train the align stage of a recipe: the connector learns to speak to the language model."""
    if print_launch is not None:
        return _print_launch(print_launch, recipe, output, nodes, gpus_per_node)
    return _train(recipe, output, resume, _with_options(overrides, on_bad_sample, full), as_json, stages=["align"])


def finetune(
    recipe: RecipeName,
    start_from: StartFrom,
    output: Output = None,
    resume: Resume = False,
    overrides: Overrides = None,
    on_bad_sample: OnBadSample = None,
    full: Full = False,
    as_json: AsJson = False,
    print_launch: PrintLaunch = None,
    nodes: Nodes = 1,
    gpus_per_node: GPUsPerNode = 8,
) -> None:
    """Train the finetune stage of a recipe from an aligned checkpoint."""
    if print_launch is not None:
        return _print_launch(print_launch, recipe, output, nodes, gpus_per_node)
    changes = _with_options(overrides, on_bad_sample, full)
    return _train(recipe, output, resume, changes, as_json, stages=["finetune"], start_from=start_from)


def _with_options(overrides: Sequence[str] | None, on_bad_sample: str | None, full: bool) -> list[str]:
    """Returns the overrides, with the options that stand for one."""
    options = {"on_bad_sample": on_bad_sample, "checkpoint.full": "true" if full else None}
    return [*(overrides or ()), *(f"{key}={value}" for key, value in options.items() if value is not None)]


def _print_launch(kind: str, recipe_name: str, output: Path | None, nodes: int, gpus_per_node: int) -> None:
    """Prints what starts this very command in many processes."""
    from datetime import datetime

    from cambrian_cli import launch
    from cambrian_model import training

    name = training.load_recipe(recipe_name).name
    shared = launch.output_for_all(output, name, datetime.now().strftime("%Y%m%d-%H%M%S"))
    with report() as out:
        out.line(launch.build_launch(kind, sys.argv[1:], nodes, gpus_per_node, shared).rstrip("\n"))


def _train(
    recipe_name: str,
    output: Path | None,
    resume: bool,
    overrides: Sequence[str] | None,
    as_json: bool,
    stages: Sequence[str] | None = None,
    start_from: Path | None = None,
) -> None:
    from cambrian_model import training
    from cambrian_model.training.launch_environment import export_launch
    from cambrian_model.training.run import find_finished

    launch = export_launch(os.environ)
    from cambrian_cli import captions, datasets, page, runs, streams, training_evaluation

    runs.check_options(output, resume)
    silence_libraries()
    with report(as_json) as out:
        recipe = training.load_recipe(recipe_name, overrides=overrides or ())
        source = start_from and runs.model_in(start_from)
        # Several processes ask together, in `train`: one alone might see what another has just written.
        is_alone = launch.world_size == 1
        result = find_finished(recipe, output, stages, source, resume) if output and is_alone else None
        shown = captions.stored(result.run_dir) if result else None
        if result is None or shown is None:
            sources = datasets.build(recipe, stages, on_bad=recipe.on_bad_sample)
            with runs.folder_of_run(output, recipe.name) as folder, progress_of_parts() as advance:
                result = training.train(
                    recipe,
                    datasets=sources,
                    output=folder,
                    stages=stages,
                    start_from=source,
                    resume=resume,
                    progress=lambda now: _show(now, advance, out),
                    evaluate=training_evaluation.during_training(recipe, folder),
                )
            if not is_first_process():
                return  # what follows is for one process
            numbered = {
                name: source for name, source in sources.items() if not isinstance(source, streams.ShardedSource)
            }
            shown = captions.make(recipe, numbered, result.checkpoint, result.run_dir)
        captions.show(out, shown)
        results: list[Result] = []
        if list(recipe.stages)[-1] in result.stages:
            with progress_of_parts() as advance:
                results = training_evaluation.after_training(recipe, result.run_dir, advance)
        for stage, reasons in result.dropped.items():
            for reason, count in reasons.items():
                out.line(f"stage {stage} left out {count} samples: {reason} (named in run.json)")
        if result.bad:
            out.line(f"{result.bad} samples could not be read and were left out (named in bad_samples.jsonl)")
        if results:
            out.table(*training_evaluation.compare(results))
            out.line(f"report:     {page.write(result.run_dir, results)}")
        out.line(f"run:        {result.run_dir}")
        out.line(f"checkpoint: {result.checkpoint}")
        out.result(_summary(result, shown, results))


def _show(now: "Progress", advance: AdvancePart, out: Report) -> None:
    if now.phase in LOOKS:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in now.numbers.items())
        out.line(f"{LOOKS[now.phase]} after step {now.done} of {now.stage}: {numbers}")
    elif now.phase == "skip":
        out.line(f"step {now.done} of {now.stage} {now.note}")
    else:
        advance(f"{PHASES[now.phase]} {now.stage}", now.done, now.total, **now.numbers)


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
        "bad_samples": result.bad,
        "n_failed": sum(result.num_failed for result in results),
    }
