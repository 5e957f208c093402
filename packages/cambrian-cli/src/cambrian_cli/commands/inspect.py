"""`cambrian inspect`: what a folder or file of weights is."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cambrian_cli.commands.train import AsJson
from cambrian_cli.output import report


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", help="A checkpoint, a training run, an encoder, a language model, a file of weights."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Say what a folder or file is: its parts, their parameters, types and sizes, and what of it was trained."""
    from cambrian_model.checkpoints import inspect as library

    with report(as_json) as out:
        found = library.inspect(path)
        out.line(f"{found.path}: {found.kind}")
        for name, value in found.facts.items():
            out.line(f"  {name}: {value}")
        rows = [
            [
                part.name,
                f"{part.tensors:,}",
                f"{part.parameters:,}",
                ", ".join(part.dtypes),
                f"{part.num_bytes:,}",
                part.training or "",
                part.detail,
            ]
            for part in found.parts
        ]
        if len(rows) > 1:
            totals = [
                sum(getattr(part, name) for part in found.parts) for name in ("tensors", "parameters", "num_bytes")
            ]
            tensors, parameters, num_bytes = (f"{total:,}" for total in totals)
            rows.append(["all", tensors, parameters, "", num_bytes, "", ""])
        if rows:
            columns = ["part", "tensors", "parameters", "types", "bytes", "training", ""]
            out.table("Parts", columns, rows)
        out.result(asdict(found))
