"""`cambrian tiny-parts`: the pretrained parts of the recipe `tiny`, made anew."""

from pathlib import Path
from typing import Annotated

import typer

from cambrian_cli.commands.train import AsJson
from cambrian_cli.output import progress_of_parts, report


def tiny_parts(
    output: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder of the parts; those that it holds are kept."),
    ],
    as_json: AsJson = False,
) -> None:
    """Pretrain the language model and the encoders of the recipe `tiny`: under an hour on two CPU cores."""
    from cambrian_cli import datasets
    from cambrian_cli.tiny_parts.build import build_parts, missing_parts
    from cambrian_cli.tiny_parts.recipe import TinyPartsRecipe

    recipe = TinyPartsRecipe()
    with report(as_json) as out:
        missing_parts(output, recipe)  # a mistake shows before scenes are rendered
        scenes = datasets.cached_scenes(recipe.scene_count, recipe.scene_seed, recipe.side)
        with progress_of_parts() as advance:
            parts = build_parts(output, recipe, scenes, advance)
        rows = [
            [
                part.name,
                f"{part.num_bytes:,}",
                ", ".join(f"{name} {level:.3f}" for name, level in part.measured.items()),
            ]
            for part in parts
        ]
        out.table("Parts, measured on scenes that they were not trained on", ["part", "bytes", "right"], rows)
        out.result({"output": output, "parts": [part._asdict() for part in parts]})
