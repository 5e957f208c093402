"""`cambrian report`: finished evaluations as tables and a page, one alone or several side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cambrian_cli.commands.train import AsJson
from cambrian_cli.errors import CommandError
from cambrian_cli.output import Report
from cambrian_cli.output import report as open_report

if TYPE_CHECKING:
    from cambrian_eval.report.recorded import Recorded
    from cambrian_eval.report.side_by_side import SideBySide

NAMES = {".md": "report.md", ".csv": "report.csv", ".html": "report.html"}


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN [RUN...]", help="Folders of evaluations, or folders of such folders."),
    ],
    published: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Set the paper's scores beside: a model, such as cambrian-1-8b, or all."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The benchmark's folder, to show pictures in the page of a run."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE", help="Write report.md, report.csv and report.html there, or one file by its ending."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show evaluations as one table, and write it as Markdown, CSV and one HTML page."""
    from cambrian_eval.report import side_by_side

    with open_report(as_json) as out:
        files = _files(output)
        found = side_by_side.read_runs(runs, data)
        if len(found) == 1 and published is None:
            texts, fields = _one(out, found[0])
        else:
            if data is not None:
                raise CommandError(f"--data shows pictures in the page of one run, and {len(found)} are asked for.")
            texts, fields = _several(out, side_by_side.arrange(found, published))
        _write(out, files, texts)
        out.result({**fields, "files": list(files.values())})


def _one(out: Report, run: "Recorded") -> tuple[dict[str, str], dict[str, Any]]:
    """Shows one run; returns the texts of its files and what machines get."""
    from cambrian_cli import evaluation
    from cambrian_eval.report import csv, html, table

    result = run.result
    evaluation.show(out, result)
    page = result.output / evaluation.REPORT
    if page.is_file():
        out.line(f"page: {page}")
    texts = {
        ".md": table.markdown(result),
        ".csv": csv.write_csv(csv.ROW_COLUMNS, map(csv.row_cells, result.metrics.rows)),
        ".html": html.run_page(result, run.answers),
    }
    return texts, {"result": result.to_dict(), "run_dir": result.output}


def _several(out: Report, found: "SideBySide") -> tuple[dict[str, str], dict[str, Any]]:
    """Shows runs side by side; returns the texts of their files and what machines get."""
    from cambrian_eval.report import side_by_side
    from cambrian_eval.report.side_by_side_page import side_by_side_page

    out.table("scores, with 95 % intervals", found.head, side_by_side.table(found.headlines))
    if found.averages:
        out.table("averages of groups", found.head, side_by_side.table(found.averages))
    for note in found.notes:
        out.line(note)
    texts = {
        ".md": side_by_side.markdown(found),
        ".csv": side_by_side.csv_text(found),
        ".html": side_by_side_page(found),
    }
    return texts, found.to_dict()


def _files(output: Path | None) -> dict[str, Path]:
    """Returns what is written, by the ending of its name.

    Raises:
        CommandError: Another ending, no place for a file, or a run's own file.
    """
    if output is None:
        return {}
    if output.suffix not in NAMES and output.is_file():
        raise CommandError(f"{output}: found a file, expected a folder, or a file named {', '.join(NAMES)}.")
    is_file = output.suffix in NAMES and not output.is_dir()
    files = {output.suffix: output} if is_file else {ending: output / name for ending, name in NAMES.items()}
    folder = output.parent if is_file else output
    if (folder / "run.json").is_file():
        raise CommandError(f"{folder}: found an evaluation's own folder, whose files stay. Choose another output.")
    return files


def _write(out: Report, files: dict[str, Path], texts: dict[str, str]) -> None:
    from cambrian_eval.atomic import write_atomically

    for ending, path in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, texts[ending])
        out.line(f"{path} ({path.stat().st_size:,} bytes)")
