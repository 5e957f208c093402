"""`cambrian cvbench review`: a page on which a person accepts, modifies or rejects every question of a benchmark."""

import os
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cambrian_cli.commands.train import AsJson
from cambrian_cli.errors import CommandError
from cambrian_cli.output import Report, report

if TYPE_CHECKING:
    from cambrian_data.cvbench.review import AgreementSummary, Benchmark, Review

LISTED = 20  # disagreements printed; --json has them all


def review(
    benchmark: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder that `cambrian cvbench build` has written, or as on the hub.")
    ],
    reviewer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Who decides; your user name if not given. Everybody has a log of their own."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; other machines reach any but the loopback's.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any that is free.")] = 0,
    open_page: Annotated[
        bool | None,
        typer.Option("--open/--no-open", help="Open the page in a browser; done if not given where there is a screen."),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Write the reviewed set here, by the decisions of all reviewers, and stop."),
    ] = None,
    rule: Annotated[
        Literal["unanimous", "majority"],
        typer.Option(help="With --export: how several reviewers come to one verdict; the rest is left out."),
    ] = "unanimous",
    include_undecided: Annotated[
        bool, typer.Option("--include-undecided", help="With --export: keep questions that nobody decided, too.")
    ] = False,
    agreement: Annotated[
        bool, typer.Option("--agreement", help="Print how far the reviewers agree, and stop.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Review a benchmark on a local page; the same command goes on where it was left.

    Every decision is appended to DIR/review/NAME.jsonl at once. Nothing else in the folder is changed.
    """
    from cambrian_data.cvbench.review import read_benchmark

    if export is None and (include_undecided or rule != "unanimous"):
        raise CommandError("--rule and --include-undecided say what --export writes; give --export OUT, or leave them.")
    with report(as_json) as out:
        found = read_benchmark(benchmark)
        if export is None and not agreement:
            out.result(_serve(out, found, reviewer, host, port, open_page))
            return
        _tell_cut_lines(out, found)
        if agreement:
            measured = _show_agreement(out, found)
        written = None if export is None else _export(out, found, export, rule, include_undecided)
        out.result({"agreement": measured if agreement else None, "export": written})


def _serve(
    out: Report, benchmark: "Benchmark", reviewer: str | None, host: str, port: int, open_page: bool | None
) -> dict[str, Any]:
    """Shows the page until the command is interrupted, and returns how far the reviewer came."""
    from cambrian_data.cvbench.review import Review, default_reviewer, open_server

    mine = Review(benchmark, default_reviewer() if reviewer is None else reviewer)
    server = open_server(mine, host=host, port=port)
    for notice in mine.overview().notices:
        out.line(f"note: {notice}")
    _show_progress(out, mine)
    if not server.is_local:
        out.line(f"warning: whoever reaches this machine on {host} can see the pictures and decide as {mine.reviewer}")
    out.line(f"page: {server.url} (Ctrl-C ends it)")
    sys.stdout.flush()  # a pipe, too, is told the address before the page is served
    if open_page or (open_page is None and _has_screen()):
        webbrowser.open(server.url)
    server.run()
    return _show_progress(out, mine)


def _tell_cut_lines(out: Report, benchmark: "Benchmark") -> None:
    """Prints which lines of the logs count for nothing, as a crash has cut them."""
    from cambrian_data.cvbench.review import cut_lines, cut_notices

    for name, cut in cut_lines(benchmark.folder).items():
        for notice in cut_notices(f"{name}.jsonl", cut):
            out.line(f"note: {notice}")


def _show_progress(out: Report, mine: "Review") -> dict[str, Any]:
    decided, count = len(mine.decisions()), len(mine.benchmark.items)
    out.line(f"{mine.reviewer} has decided {decided} of {count} questions: {mine.log}")
    return {"reviewer": mine.reviewer, "decided": decided, "questions": count, "log": mine.log}


def _has_screen() -> bool:
    """Tells whether a browser would open in a window; one that takes over the terminal would be in the way."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _show_agreement(out: Report, benchmark: "Benchmark") -> dict[str, Any]:
    """Prints how far the reviewers agree, and returns it."""
    import msgspec

    from cambrian_data.cvbench.review import measure_agreement, read_reviews

    decisions = read_reviews(benchmark)
    if len(decisions) < 2:
        raise CommandError(f"{benchmark.folder} has one reviewer, {', '.join(decisions)}; agreement needs two.")
    found = measure_agreement(benchmark, decisions)
    _table_of_agreement(out, found)
    for one in found.disagreements[:LISTED]:
        told = ", ".join(f"{name}: {decision}" for name, decision in one.decisions.items())
        out.line(_on_one_line(f"question {one.idx} ({one.task}) is disputed: {told}"))
    if len(found.disagreements) > LISTED:
        out.line(f"... and {len(found.disagreements) - LISTED} more (--json has all)")
    if found.changed_differently:
        out.line(f"changed, but not in the same way: {', '.join(map(str, found.changed_differently))}")
    return dict(msgspec.to_builtins(found))


def _table_of_agreement(out: Report, found: "AgreementSummary") -> None:
    rows = [(task, of_task) for task, of_task in found.tasks.items()]
    out.table(
        f"Agreement of {', '.join(found.reviewers)} on questions that two or more decided",
        ["task", "questions", "all agree", "raw agreement", found.coefficient],
        [
            [name, str(one.questions), str(one.unanimous), _shown(one.raw), _shown(one.coefficient)]
            for name, one in [*rows, ("all", found.overall)]
        ],
    )


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _on_one_line(text: str) -> str:
    """Escapes line breaks and other control characters that a log or a table may hold."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _export(out: Report, benchmark: "Benchmark", output: Path, rule: str, include_undecided: bool) -> dict[str, Any]:
    """Writes the reviewed set, prints what became of the questions, and returns it."""
    import msgspec

    from cambrian_data.cvbench.review import Rule, export_reviewed

    summary = export_reviewed(benchmark, output, rule=Rule(rule), include_undecided=include_undecided)
    outcomes = list(next(iter(summary.outcomes.values())))
    rows = [[task, *(str(counts[outcome]) for outcome in outcomes)] for task, counts in summary.outcomes.items()]
    out.table(f"Verdicts ({rule}) of {', '.join(summary.reviewers)}", ["task", *outcomes], rows)
    for one in summary.left_out[:LISTED]:
        votes = [
            f"{vote.reviewer}: {vote.decision}" + (f" ({vote.reason})" if vote.reason else "") for vote in one.votes
        ]
        out.line(_on_one_line(f"question {one.idx} ({one.task}) is left out, {one.outcome}; {', '.join(votes)}"))
    if len(summary.left_out) > LISTED:
        out.line(f"... and {len(summary.left_out) - LISTED} more ({output / 'review.json'} has all)")
    out.line(f"{summary.num_questions} questions: {output}")
    return {"output": output, **msgspec.to_builtins(summary)}
