"""`cambrian encoders`: the vision encoders that a recipe can name, and what is known of one without its weights."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cambrian_cli.commands.train import AsJson
from cambrian_cli.output import report

if TYPE_CHECKING:
    from cambrian_model.vision.backbones import Backbone, Study
    from cambrian_model.vision.source import EncoderFacts

app = typer.Typer(name="encoders", help="List and show vision encoders.", no_args_is_help=True, rich_markup_mode=None)

EncoderName = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A name of the list, timm:MODEL, hf:MODEL (transformers, of the hub or a folder) or diffusers:MODEL.",
    ),
]

COLUMNS = ["name", "group", "resolution", "patch", "grid", "tokens", "width", "parameters", "licence"]


@app.command("list")
def list_encoders(as_json: AsJson = False) -> None:
    """List the backbones of the paper and of its released models."""
    from cambrian_model.vision.backbones import BACKBONES

    with report(as_json) as out:
        out.table("Vision encoders", COLUMNS, [_row(backbone) for backbone in BACKBONES])
        out.line("Any other: timm:MODEL, hf:MODEL. Grids are those of the paper; grid_side changes them.")
        out.result({"encoders": [_fields(backbone) for backbone in BACKBONES]})


@app.command()
def show(name: EncoderName, as_json: AsJson = False) -> None:
    """Print what is known of a vision encoder. Builds it without weights, and downloads none."""
    from cambrian_model.vision import find_facts

    with report(as_json) as out:
        facts = find_facts({"name": name})
        described = _described(name, facts)
        for key, value in described.items():
            out.line(f"{key:<15}{value}")
        out.result({"name": name, **_machine_readable(facts)})


def _row(backbone: "Backbone") -> list[str]:
    side = backbone.grid_side
    numbers = (backbone.image_side, backbone.patch, f"{side} x {side}", side**2, backbone.width)
    return [backbone.name, backbone.group, *map(str, numbers), _millions(backbone.parameters), backbone.licence]


def _fields(backbone: "Backbone") -> dict[str, Any]:
    return {
        "name": backbone.name,
        "group": backbone.group,
        "image_side": backbone.image_side,
        "patch": backbone.patch,
        "grid_side": backbone.grid_side,
        "tokens": backbone.grid_side**2,
        "width": backbone.width,
        "parameters": backbone.parameters,
        "licence": backbone.licence,
        "checkpoint": backbone.hub_id,
    }


def _described(name: str, facts: "EncoderFacts") -> dict[str, str]:
    config, backbone = facts.config, facts.backbone
    native, asked = facts.native_grid_side, config.grid_side
    interpolated = "" if native == asked else f", interpolated from {native} x {native}"
    lines = {
        "name": name,
        "resolution": f"{config.image_side} x {config.image_side}",
        "grid": f"{asked} x {asked} = {config.num_tokens} tokens{interpolated}",
        "width": str(config.width),
        "feature layer": _levels(config.feature_layer),
        "parameters": f"{facts.parameters:,}",
        "normalisation": f"mean {_numbers(config.mean)}, std {_numbers(config.std)}, {config.interpolation}",
        "licence": facts.published.licence or "not known here; see the model's page",
        "library": config.library,
        "model": config.name,
        "weights": facts.published.hub_id or facts.published.elsewhere or "none published",
    }
    if backbone is None:
        return lines
    paper = {"paper's row": f"{backbone.title} ({backbone.group})"}
    if backbone.study:
        paper["paper's score"] = _scores(backbone.study)
    if backbone.note:
        paper["note"] = backbone.note
    return lines | paper


def _machine_readable(facts: "EncoderFacts") -> dict[str, Any]:
    from dataclasses import asdict

    backbone = facts.backbone
    return {
        "config": asdict(facts.config),
        "native_grid_side": facts.native_grid_side,
        "tokens": facts.config.num_tokens,
        "parameters": facts.parameters,
        "licence": facts.published.licence,
        "checkpoint": facts.published.hub_id,
        "paper": None
        if backbone is None
        else {
            "title": backbone.title,
            "group": backbone.group,
            "average": asdict(backbone.study) if backbone.study else None,
        },
    }


def _scores(study: "Study") -> str:
    named = {
        "no alignment": study.without,
        "0.5M": study.half,
        "1.2M": study.full,
        "1.2M, unfrozen": study.unfrozen,
    }
    scores = ", ".join(f"{score:.2f} ({setting})" for setting, score in named.items() if score is not None)
    return f"average of 16 benchmarks by samples of alignment: {scores}"


def _levels(feature_layer: int | tuple[int, ...]) -> str:
    if isinstance(feature_layer, int):
        return f"{feature_layer} (the last)" if feature_layer == -1 else str(feature_layer)
    return f"{', '.join(map(str, feature_layer))} (concatenated)"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.0f} M"
