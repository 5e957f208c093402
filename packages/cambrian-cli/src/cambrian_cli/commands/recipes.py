"""`cambrian recipes`: what can be trained, what a recipe says once everything is resolved, and what its run will be."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from cambrian_cli.commands.train import AsJson, Overrides, RecipeName
from cambrian_cli.errors import CommandError
from cambrian_cli.output import Report, report

if TYPE_CHECKING:
    from cambrian_model.training.feature_estimate import CacheEstimate
    from cambrian_model.training.index import Dataset
    from cambrian_model.training.plan import DataPlan, RecipePlan, StagePlan
    from cambrian_model.training.recipe import Recipe

HOURS_PER_DAY = 24
SECONDS_PER_DAY = 86_400

app = typer.Typer(
    name="recipes", help="List, show, check and plan recipes.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """List the recipes that come with cambrian-model."""
    from cambrian_model import training

    with report(as_json) as out:
        found = training.list_recipes()
        out.table("Recipes", ["name", "what it trains"], found)
        out.result({"recipes": [{"name": name, "summary": summary} for name, summary in found]})


@app.command()
def show(recipe: RecipeName, overrides: Overrides = None) -> None:
    """Print a recipe as YAML with everything resolved: what it extends, its defaults, and --set."""
    from cambrian_model import training

    with report() as out:
        out.line(training.load_recipe(recipe, overrides=overrides or ()).to_yaml().rstrip())


@app.command()
def validate(
    recipes: Annotated[
        list[str] | None,
        typer.Argument(metavar="RECIPE...", help="Names or files; all that come with it if not given."),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Check recipes: every key, whether the model's parts fit together, what every stage trains. Reads no weights."""
    from cambrian_model import training
    from cambrian_model.errors import CambrianModelError
    from cambrian_model.training.plan import check_recipe

    with report(as_json) as out:
        names = recipes or [name for name, _ in training.list_recipes()]
        rows, wrong = [], {}
        for name in names:
            try:
                recipe = training.load_recipe(name, overrides=overrides or ())
                check_recipe(recipe)
                rows.append((name, list(recipe.stages), recipe.unset()))
            except CambrianModelError as error:
                wrong[name] = str(error)
        if wrong:
            found = "; ".join(_named(name, message) for name, message in wrong.items())
            raise CommandError(found if len(names) == 1 else f"{len(wrong)} of {len(names)} recipes are wrong: {found}")
        shown = [[name, ", ".join(stages), ", ".join(unset)] for name, stages, unset in rows]
        out.table("Valid recipes", ["name", "stages", "left to you"], shown)
        out.result({"recipes": [{"name": name, "left_to_you": unset} for name, _, unset in rows]})


@app.command()
def plan(
    recipe: RecipeName,
    gpus: Annotated[int, typer.Option(min=1, help="How many there will be, on all machines together.")] = 8,
    gpu_name: Annotated[str, typer.Option(help="What they are, as H100, A100 or RTX 4090.")] = "H100",
    mfu: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Share of their peak that is taken to be reached.")
    ] = 0.4,
    has_data: Annotated[
        bool, typer.Option("--data/--no-data", help="Whether data that is at hand is measured, which reads all of it.")
    ] = True,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Tell what a run will be: parameters, memory, steps, operations, days, the first sample. Reads no weights."""
    from cambrian_model import training
    from cambrian_model.training.plan import plan_recipe

    with report(as_json) as out:
        loaded = training.load_recipe(recipe, overrides=overrides or ())
        datasets = _at_hand(loaded) if has_data else {}
        planned = plan_recipe(loaded, gpus, mfu=mfu, device=gpu_name, datasets=datasets)
        _show(out, planned)
        out.result(_machine_readable(planned))


def _at_hand(recipe: "Recipe") -> "dict[str, Dataset]":
    """Returns the sources that can be measured: all that name a file of records, or are made from scenes."""
    from cambrian_cli import datasets

    used = {name: recipe.data[name] for stage in recipe.stages.values() for name in stage.data}
    measured = {name: source for name, source in used.items() if source.records or source.made_from() is not None}
    read = {name: datasets.read(name, source, recipe.on_bad_sample) for name, source in measured.items()}
    return cast("dict[str, Dataset]", read)  # streams are not among them


def _show(out: Report, planned: "RecipePlan") -> None:
    machine = planned.machine
    known = [f"{machine.num_bytes / 1e9:.0f} GB"] if machine.num_bytes else []
    known += [f"{machine.peak / 1e12:,.0f} TFLOP/s"] if machine.peak else []
    each = f" ({', '.join(known)})" if known else ""
    out.line(
        f"{planned.recipe} on {machine.gpus} x {machine.device}{each} at {machine.mfu:.0%} MFU: "
        f"{_count(planned.parameters)} parameters, {_time(planned.days)} in all"
    )
    columns = [
        "stage",
        "data",
        "samples",
        "rows",
        "full",
        "rows a step",
        "tokens a step",
        "steps",
        "FLOPs a step",
        "time",
    ]
    out.table("Stages", columns, [_stage_row(stage) for stage in planned.stages])
    for stage in planned.stages:
        _show_parameters(out, stage)
    _show_operations(out, planned)
    _show_memory(out, planned)
    for stage in planned.stages:
        _show_data(out, stage)
    for note in dict.fromkeys([*planned.notes, *(note for stage in planned.stages for note in stage.notes)]):
        out.line(f"note: {note}")


def _stage_row(stage: "StagePlan") -> list[str]:
    data = stage.data
    return [
        stage.name,
        data.origin,
        f"{data.samples:,.0f}" if data.rows else "",
        f"{data.rows:,.0f}" if data.rows else "",
        f"{data.fill:.1%}" if data.rows else "",
        f"{stage.rows:,}, {_batches(stage.micro_batches)}",
        f"{stage.tokens_per_step:,}",
        f"{stage.steps:,}" if stage.steps is not None else "unknown",
        f"{stage.flops_per_step:.3g}",
        _time(stage.days),
    ]


def _batches(number: int) -> str:
    return f"{number} batch each" if number == 1 else f"{number} batches each"


def _show_parameters(out: Report, stage: "StagePlan") -> None:
    rows = [
        [row.part, f"{row.tensors:,}", f"{row.parameters:,}", *map(_value, (row.lr, row.weight_decay, row.warmup))]
        for row in stage.table
    ]
    columns = ["part", "tensors", "parameters", "learning rate", "weight decay", "warm-up"]
    out.table(f"Stage {stage.name}: parameters", columns, rows)
    out.line(f"{stage.trained_tensors:,} trained tensors, every one in exactly one of {stage.groups} optimizer groups")


def _value(value: float | None) -> str:
    return "frozen" if value is None else f"{value:g}"


def _show_operations(out: Report, planned: "RecipePlan") -> None:
    stages = planned.stages
    parts = dict.fromkeys(part for stage in stages for part in stage.flops_by_part)
    rows = []
    for part in parts:
        found = [stage.flops_by_part.get(part, (0.0, 0.0)) for stage in stages]
        rows.append([part, *(f"{forward:.3g} + {backward:.3g}" for forward, backward in found)])
    rows.append(["all, as MFU counts", *(f"{stage.flops_per_step:.3g}" for stage in stages)])
    rows.append(["all, as computed", *(f"{stage.hardware_flops_per_step:.3g}" for stage in stages)])
    out.table("FLOPs a step, forward + backward", ["part", *(stage.name for stage in stages)], rows)


def _show_memory(out: Report, planned: "RecipePlan") -> None:
    stages = planned.stages
    names = dict.fromkeys(component.name for stage in stages for component in stage.memory.components)
    unit, size = ("GB", 1e9) if max(stage.memory.total for stage in stages) >= 1e9 else ("MB", 1e6)

    def row(name: str, sizes: Iterable[float]) -> list[str]:
        return [name, *(f"{num_bytes / size:.2f}" if num_bytes else "" for num_bytes in sizes)]

    rows = [row(name, (stage.memory[name] for stage in stages)) for name in names]
    rows.append(row("at the worst moment", (stage.memory.total for stage in stages)))
    columns = ["component", *(f"{stage.name} ({stage.strategy})" for stage in stages)]
    out.table(f"Memory of one device in {unit}", columns, rows)
    room = planned.machine.num_bytes
    for stage in stages:
        if room is not None and stage.memory.total > room:
            out.line(
                f"stage {stage.name} does not fit into {room / 1e9:.0f} GB; lower batch.micro_rows, add "
                "activation_checkpointing, or take more devices"
            )


def _show_data(out: Report, stage: "StagePlan") -> None:
    data = stage.data
    if data.token_share:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in data.token_share.items())
        out.line(f"stage {stage.name}: share of the tokens: {shares}")
    for reason, count in _left_out(data).items():
        out.line(f"stage {stage.name}: {count:,} samples {reason}")
    if stage.cache is not None:
        out.line(f"stage {stage.name}: {_cache(stage.cache)}")
    if stage.first_sample is not None:
        out.line(f"stage {stage.name}: {stage.first_sample}")


def _left_out(data: "DataPlan") -> dict[str, int]:
    counts = {f"left out: {reason}": count for reason, count in data.dropped.items()}
    counts |= {"have their text cut at the end of a row": data.truncated, "cannot be read": data.bad}
    return {reason: count for reason, count in counts.items() if count}


def _cache(cache: "CacheEstimate") -> str:
    size = f"saved features of {cache.num_images:,} pictures would take {cache.bytes / 1e9:,.1f} GB at most"
    if cache.break_even_epochs is None:
        return size
    if math.isinf(cache.break_even_epochs):
        return f"{size}, and take longer to read than to make again"
    return f"{size}, and pay after {cache.break_even_epochs:.1f} epochs"


def _count(number: int) -> str:
    return f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number / 1e6:.2f} M"


def _time(days: float | None) -> str:
    if days is None:
        return "unknown time"
    if days >= 2:
        return f"{days:.1f} days"
    hours = days * HOURS_PER_DAY
    if hours >= 1:
        return f"{hours:.1f} hours"
    return f"{hours * 60:.1f} minutes" if hours * 60 >= 1 else f"{days * SECONDS_PER_DAY:.2g} seconds"


def _machine_readable(planned: "RecipePlan") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "recipe": planned.recipe,
        "machine": asdict(planned.machine),
        "parameters": planned.parameters,
        "days": planned.days,
        "stages": {stage.name: _stage_fields(stage) for stage in planned.stages},
        "notes": planned.notes,
    }


def _stage_fields(stage: "StagePlan") -> dict[str, Any]:
    from dataclasses import asdict

    fields = asdict(stage)
    fields["parts"] = [row._asdict() for row in stage.table]
    fields["memory"] = {component.name: component.num_bytes for component in stage.memory.components}
    fields["memory_total"] = stage.memory.total
    if stage.cache is not None and stage.cache.break_even_epochs == math.inf:
        fields["cache"]["break_even_epochs"] = "never"
    return {key: value for key, value in fields.items() if key not in ("name", "table")}


def _named(name: str, message: str) -> str:
    """Returns what is wrong with a recipe, its name in front where the message does not begin with its file."""
    file = Path(name).name
    return message if message.startswith((f"{file}:", f"{name}:")) else f"{name}: {message}"
