"""`cambrian check-model`: whether a model can be evaluated at all, before an evaluation of hours."""

from typing import Annotated

import typer

from cambrian_cli.commands.train import AsJson
from cambrian_cli.output import progress, report, silence_libraries


def check_model(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="As for `cambrian eval`: a run, a checkpoint folder, huggingface:PATH_OR_ID, openai:URL#MODEL, "
            "random[:SEED], constant[:TEXT] or canned:FILE.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Try a model on the questions that every model must cope with: batches, order, budgets, pictures, texts."""
    from cambrian_cli import evaluation
    from cambrian_cli.errors import CommandError
    from cambrian_eval.conformance import check_model as check

    with report(as_json) as out:
        silence_libraries()
        with progress("checking the model") as advance:
            found = check(lambda: evaluation.load_model(model), advance)
        rows = [[one.name, one.outcome, " ".join(one.detail.split())] for one in found.checks]
        out.table(f"{found.model}: {len(found.checks)} checks", ["check", "outcome", "found"], rows)
        out.result(found.to_dict())
        if found.failed:
            names = ", ".join(f'"{one.name}"' for one in found.failed)
            raise CommandError(
                f"{found.model} fails {len(found.failed)} of {len(found.checks)} checks: {names}; its scores cannot be "
                "relied on. What was found stands in the table."
            )
