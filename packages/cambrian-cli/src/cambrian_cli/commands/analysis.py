"""`cambrian analysis`: which benchmarks need pictures, which measure the same, and the paper's own numbers."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cambrian_cli.commands.compare import check_place
from cambrian_cli.commands.train import AsJson
from cambrian_cli.errors import CommandError
from cambrian_cli.output import Report, report

if TYPE_CHECKING:
    from cambrian_eval.analysis.clusters import Agreement, Clusters
    from cambrian_eval.analysis.components import Components
    from cambrian_eval.analysis.correlation import Correlation
    from cambrian_eval.analysis.gaps import Gap
    from cambrian_eval.analysis.published import Published
    from cambrian_eval.analysis.scores import ScoreTable

app = typer.Typer(
    name="analysis",
    help="Analyse benchmarks: what pictures add, what correlates, what the paper found.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw it: a PNG file.")]
WIDEST = 17  # columns of a table that is shown whole
GAP_COLUMNS = ["benchmark", "model", "with", "without", "gap", "95 % interval", "chance", "without above chance", "n"]
PARSED = "parsed %: with, without"


@app.command()
def gaps(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN...", help="Runs, or folders of runs, with pictures and blind (cambrian eval --blind)."
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A CSV file instead: benchmark, enabled, disabled and, if known, chance, model."
        ),
    ] = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Compare scores with and without pictures, benchmark by benchmark, beside chance."""
    from cambrian_eval.analysis.gaps import average, gaps_of_runs, read_gaps
    from cambrian_eval.analysis.plots import check_plot, plot_gaps

    if bool(runs) == (table is not None):
        raise CommandError(
            "give either runs or --table FILE; the paper's own gaps: cambrian analysis table blind-gaps."
        )
    check_plot(plot)
    with report(as_json) as out:
        found = read_gaps(table) if table is not None else gaps_of_runs(runs or [])
        parsed = [PARSED] if runs else []
        rows = [[*_gap_row(gap), *_parse_rates(gap)] for gap in found]
        out.table("What pictures add, smallest first", [*GAP_COLUMNS, *parsed], rows)
        models = {gap.model for gap in found}
        averaged = average(found) if runs and len(models) > 1 else []
        if averaged:
            out.table(f"Averaged over {len(models)} models", GAP_COLUMNS, [_gap_row(gap) for gap in averaged])
        if plot is not None:
            plot_gaps(plot, "What pictures add", averaged or found)
            out.line(f"plot: {plot}")
        out.result(
            {"gaps": [gap.to_dict() for gap in found], "averaged": [gap.to_dict() for gap in averaged], "plot": plot}
        )


@app.command()
def benchmarks(
    scores: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TABLE",
            help="backbones or final-models of the paper, a CSV file (models by benchmarks), or folders of runs; "
            "backbones if not given.",
        ),
    ] = None,
    setting: Annotated[
        str | None,
        typer.Option(
            help="Of backbones: 0M, 0.5M, 1.2M, '1.2M unfrozen' or '1.2M combined'; all together if not given."
        ),
    ] = None,
    method: Annotated[
        Literal["pearson", "spearman"], typer.Option(help="Correlation of scores or of ranks.")
    ] = "pearson",
    groups: Annotated[int, typer.Option(min=1, help="Number of clusters.")] = 4,
    linkage: Annotated[Literal["ward", "average", "complete"], typer.Option(help="How clusters are joined.")] = "ward",
    keep_general: Annotated[
        bool,
        typer.Option("--keep-general", help="Cluster plain correlations, the first principal component left in them."),
    ] = False,
    missing: Annotated[
        Literal["models", "benchmarks", "pairwise"] | None,
        typer.Option(help="Leave out models or benchmarks with missing scores, or compare pairwise what is there."),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(metavar="BENCHMARK", help="Leave a benchmark out. May be given again.")
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the correlations as CSV.")] = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Correlate benchmarks over models, find principal components and clusters; beside them the paper's groups."""
    from cambrian_eval.analysis import clusters as library
    from cambrian_eval.analysis.components import components
    from cambrian_eval.analysis.correlation import correlate
    from cambrian_eval.analysis.plots import check_plot, plot_benchmarks
    from cambrian_eval.analysis.scores import complete
    from cambrian_eval.groups import CATEGORIES

    check_place(csv)
    check_plot(plot)
    with report(as_json) as out:
        table, notes = complete(_table(scores or ["backbones"], setting).without(without or []), missing)
        correlation = correlate(table, method)
        found = library.find_groups(table, groups, method=method, linkage=linkage, keep_general=keep_general)
        parts = None if table.num_missing else components(table)
        agreement = library.agree(table, found, CATEGORIES, method=method, linkage=linkage, keep_general=keep_general)
        how = f"{linkage} linkage, " + ("first component kept" if keep_general else "first component taken out")
        _tell_benchmarks(out, table, notes, correlation, parts, found, agreement, how)
        if csv is not None:
            csv.write_text(_correlations_csv(correlation), encoding="utf-8")
            out.line(f"correlations: {csv}")
        if plot is not None:
            title = f"{table.title[:1].upper()}{table.title[1:]}: {len(table.models)} models"
            plot_benchmarks(plot, title, correlation, found, parts, CATEGORIES, f"clusters: {how}")
            out.line(f"plot: {plot}")
        out.result(
            {
                "table": table.title,
                "models": table.models,
                "benchmarks": table.benchmarks,
                "notes": notes,
                "method": method,
                "correlations": correlation.matrix.tolist(),
                "num_models": correlation.num_models.tolist(),
                "explained": None if parts is None else parts.explained.tolist(),
                "loadings": None if parts is None else parts.loadings.tolist(),
                "clusters": found.groups,
                "agreement": None if agreement is None else _agreement_fields(agreement),
                "plot": plot,
            }
        )


@app.command("table")
def show_table(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="A table of the paper (backbones, final-models, categories, correlations, blind-gaps) or folders of "
            "runs; a list of the tables if not given.",
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write it as CSV.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print a published table with its source, or the table of your own runs."""
    from cambrian_eval.analysis.published import PUBLISHED, find
    from cambrian_eval.report.csv import write_csv

    check_place(csv)
    with report(as_json) as out:
        if not names:
            out.table("Published tables", ["name", "what", "source"], [_described(each) for each in PUBLISHED.values()])
            out.result({"tables": [_published_fields(each) for each in PUBLISHED.values()]})
            return
        if names[0] in PUBLISHED or not Path(names[0]).exists():
            for other in names[1:]:
                raise CommandError(f"found {other} after {names[0]}; one published table at a time.")
            columns, rows, about = _published(find(names[0]))
        else:
            columns, rows, about = _runs_table(names)
        for title, some, cells in _narrow(about["title"], columns, rows):
            out.table(title, some, cells)
        for line in filter(None, (about.get("source"), about.get("note"))):
            out.line(line)
        if csv is not None:
            csv.write_text(write_csv(columns, rows), encoding="utf-8")
            out.line(f"table: {csv}")
        out.result({**about, "rows": [dict(zip(columns, row, strict=True)) for row in rows], "csv": csv})


def _table(names: list[str], setting: str | None) -> "ScoreTable":
    """The scores that are named: published, in a file, or of runs."""
    from cambrian_eval.analysis.published import SCORE_TABLES, score_table
    from cambrian_eval.analysis.scores import read_csv, read_runs

    if setting is not None and names != ["backbones"]:
        raise CommandError(f"--setting is of the published backbones, not of {', '.join(names)}; leave it out.")
    if names[0] in SCORE_TABLES or not Path(names[0]).exists():
        for other in names[1:]:
            raise CommandError(f"found {other} after {names[0]}; one published table at a time.")
        return score_table(names[0], setting)
    paths = [Path(name) for name in names]
    if len(paths) == 1 and paths[0].is_file():
        return read_csv(paths[0])
    return read_runs(paths)


def _tell_benchmarks(
    out: Report,
    table: "ScoreTable",
    notes: list[str],
    correlation: "Correlation",
    parts: "Components | None",
    found: "Clusters",
    agreement: "Agreement | None",
    how: str,
) -> None:
    from cambrian_eval.analysis.correlation import interval

    columns = ["benchmark", "closest", "farthest", "mean r", *(["PC1", "PC2", "PC3"] if parts else []), "cluster"]
    columns += ["group of the paper", "support"] if agreement else []
    rows = [
        [
            *_neighbours(correlation, place),
            *(f"{loading:+.2f}" for loading in (parts.loadings[place][:3] if parts else [])),
            str(found.labels[place] + 1),
            *(_agreement_cells(agreement, name) if agreement else []),
        ]
        for place, name in enumerate(table.benchmarks)
    ]
    out.table(f"{table.title}: {len(table.benchmarks)} benchmarks over {len(table.models)} models", columns, rows)
    for note in notes:
        out.line(note)
    low, high = interval(0.5, len(table.models))
    out.line(f"over {len(table.models)} models a correlation of 0.50 has the 95 % interval {low:.2f} to {high:.2f}")
    if parts is not None:
        shares = ", ".join(f"{100 * share:.1f} %" for share in parts.explained[:4])
        out.line(f"variance of the first principal components: {shares}")
    else:
        out.line("no principal components: they need a table without missing scores")
    out.line(f"clusters ({how}): {'; '.join(', '.join(group) for group in found.groups)}")
    if agreement is not None:
        _tell_agreement(out, agreement)


def _tell_agreement(out: Report, agreement: "Agreement") -> None:
    num = len(agreement.expected)
    placed = num - len(agreement.misplaced)
    out.line(
        f"{placed} of {num} benchmarks lie where the paper puts them; {100 * agreement.chance:.2f} % of random "
        "regroupings of these sizes place as many, the way of clustering taken as given"
    )
    for name, elsewhere in agreement.misplaced.items():
        out.line(f"  {name}: {agreement.expected[name]} in the paper, here with {elsewhere or 'none of its groups'}")
    if "mmmu" in agreement.expected:
        out.line("  mmmu: the paper places it by the content of its questions, for it correlates little with the rest")


def _neighbours(correlation: "Correlation", place: int) -> list[str]:
    others = [other for other in range(len(correlation.benchmarks)) if other != place]
    row = correlation.matrix[place]
    closest, farthest = max(others, key=lambda other: row[other]), min(others, key=lambda other: row[other])
    mean = math.fsum(row[other] for other in others) / len(others)
    named = [f"{correlation.benchmarks[other]} {row[other]:.2f}" for other in (closest, farthest)]
    return [correlation.benchmarks[place], *named, f"{mean:.2f}"]


def _agreement_cells(agreement: "Agreement", name: str) -> list[str]:
    support = f"{100 * agreement.support[name]:.0f} %" if agreement.support else ""
    wrong = name in agreement.misplaced
    return [agreement.expected[name] + (f" (here: {agreement.named[name] or 'none'})" if wrong else ""), support]


def _agreement_fields(agreement: "Agreement") -> dict[str, Any]:
    return {
        "expected": agreement.expected,
        "found": agreement.named,
        "misplaced": agreement.misplaced,
        "chance": agreement.chance,
        "support": agreement.support,
    }


def _correlations_csv(correlation: "Correlation") -> str:
    from cambrian_eval.report.csv import write_csv

    rows = zip(correlation.benchmarks, correlation.matrix.tolist(), strict=True)
    return write_csv(
        ["benchmark", *correlation.benchmarks], [[name, *(round(value, 6) for value in row)] for name, row in rows]
    )


def _gap_row(gap: "Gap") -> list[str]:
    ends = "unknown" if gap.interval is None else f"{gap.interval[0]:+.1f} to {gap.interval[1]:+.1f}"
    chance = "" if gap.chance is None else f"{gap.chance:.1f}"
    above = "" if gap.above_chance is None else f"{gap.above_chance:+.1f}"
    levels = (f"{gap.enabled:.1f}", f"{gap.disabled:.1f}", f"{gap.gap:+.1f}")
    basis = gap.basis if gap.num != 1 else gap.basis.removesuffix("s")
    return [gap.benchmark, gap.model, *levels, ends, chance, above, f"{gap.num} {basis}"]


def _parse_rates(gap: "Gap") -> list[str]:
    return [] if gap.parse_rates is None else [", ".join(f"{rate:.1f}" for rate in gap.parse_rates)]


def _described(table: "Published") -> list[str]:
    return [table.name, table.title, table.source]


def _published_fields(table: "Published") -> dict[str, Any]:
    return {"name": table.name, "title": table.title, "source": table.source, "note": table.note}


def _published(table: "Published") -> tuple[list[str], list[list[str]], dict[str, Any]]:
    """A published table as printed; beside the final models, their averages made of the scores."""
    from cambrian_eval.analysis.published import published_models, recomputed

    rows = table.rows()
    if table.name == "final-models":
        models = published_models()
        for row in rows:
            levels = recomputed(models[row["model"]]).items()
            row |= {f"{name}, recomputed": "" if level is None else f"{level:.2f}" for name, level in levels}
    about = {**_published_fields(table), "source": f"source: {table.source}"}
    if table.name == "backbones":  # a backbone has several rows
        rows = [{"backbone": f"{row['backbone']}, {row['setting']}", **_others(row)} for row in rows]
    return list(rows[0]), [list(row.values()) for row in rows], about


def _others(row: dict[str, str]) -> dict[str, str]:
    return {name: cell for name, cell in row.items() if name not in ("backbone", "setting")}


def _narrow(title: str, columns: list[str], rows: list[list[str]]) -> list[tuple[str, list[str], list[list[str]]]]:
    """A table of many benchmarks as one for each category, so that it fits a terminal; a narrow one as it is."""
    from cambrian_eval.groups import CATEGORIES

    if len(columns) <= WIDEST:
        return [(title, columns, rows)]
    benchmarks = {task for tasks in CATEGORIES.values() for task in tasks}
    averages = [place for place, name in enumerate(columns) if name.partition(",")[0] in CATEGORIES]
    heads = [place for place, name in enumerate(columns) if name not in benchmarks and place not in averages]
    parts = [(title, heads)]
    for category, tasks in CATEGORIES.items():
        own = [place for place in averages if columns[place].partition(",")[0] == category]
        parts.append((f"{title}: {category}", [heads[0], *(columns.index(task) for task in tasks), *own]))
    return [
        (name, [columns[place] for place in places], [[row[place] for place in places] for row in rows])
        for name, places in parts
    ]


def _runs_table(names: list[str]) -> tuple[list[str], list[list[str]], dict[str, Any]]:
    from cambrian_eval.analysis.scores import read_runs

    table = read_runs([Path(name) for name in names])
    rows = [
        [model, *("" if score is None else f"{score:.2f}" for score in row)]
        for model, row in zip(table.models, table.scores, strict=True)
    ]
    return ["model", *table.benchmarks], rows, {"title": f"{len(table.models)} models of your runs"}
