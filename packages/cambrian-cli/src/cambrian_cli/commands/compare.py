"""`cambrian compare`: how far two runs of a benchmark are apart, whether that is luck, and why."""

from pathlib import Path
from typing import Annotated

import typer

from cambrian_cli.commands.train import AsJson
from cambrian_cli.errors import CommandError
from cambrian_cli.output import report


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN RUN [RUN...]",
            help="Folders of evaluations, or folders of such folders; the first is what the others are compared with.",
        ),
    ],
    shared: Annotated[
        bool,
        typer.Option(
            "--shared", help="Compare on shared questions though a run answered others too, or is unfinished."
        ),
    ] = False,
    flips: Annotated[
        int, typer.Option(min=0, metavar="N", help="Questions that score differently, shown for each pair of runs.")
    ] = 10,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write everything as Markdown, all flips included.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare runs on the questions that both answered: difference with interval, test, flips, and reasons."""
    from cambrian_eval.compare import compare_all
    from cambrian_eval.report import comparison

    check_place(output)
    with report(as_json) as out:
        family = compare_all(runs, shared=shared)
        out.table(*comparison.overview(family))
        for found in family.comparisons:
            out.line(comparison.heading(found))
            for note in comparison.notes(found):
                out.line(f"  {note}")
            if flips and found.flips:
                out.table(*comparison.flips(found, flips))
        if output is not None:
            output.write_text(comparison.markdown(family), encoding="utf-8")
            out.line(f"everything: {output}")
        pairs = zip(family.comparisons, family.adjusted, strict=True)
        out.result({"comparisons": [{**found.to_dict(), "p_holm": holm} for found, holm in pairs], "output": output})


def check_place(file: Path | None) -> None:
    """Makes sure, before the work, that a file can be written.

    Raises:
        CommandError: There is no folder for it, or a folder has its name.
    """
    if file is not None and (file.is_dir() or not file.parent.is_dir()):
        found = "a folder" if file.is_dir() else "no folder to put it into"
        raise CommandError(f"{file}: found {found}, expected a place for a file. Choose another name.")
