"""`cambrian rescore`: the logged replies of a run, scored again without model, data or GPU."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cambrian_cli.commands.train import AsJson
from cambrian_cli.output import Report, progress, report

if TYPE_CHECKING:
    from cambrian_eval.rescore import Change, Rescored
    from cambrian_eval.types import Score

COLUMNS = ("question", "reply", "was read by", "as", "worth", "is read by", "as", "worth")
MAX_TEXT = 48


def rescore(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of an evaluation.")],
    compat: Annotated[
        str | None,
        typer.Option(metavar="TOOL", help="Score by the rules of reference, lmms-eval or vlmevalkit instead."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(metavar="URL#MODEL", help="Ask a language model too, beside the rule; the key: OPENAI_API_KEY."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The benchmark's folder, to show pictures in the report again.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A new folder for the result; the run itself, if not given and no TOOL is."),
    ] = None,
    changes: Annotated[
        int, typer.Option(min=0, metavar="N", help="Replies that are read otherwise, shown; all are in --json.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """Score a run's replies again by today's rules, and list what is read otherwise; no model is loaded."""
    from cambrian_cli import evaluation
    from cambrian_eval.rescore import rescore as score_again

    with report(as_json) as out:
        client = None
        if judge is not None:
            from cambrian_eval.endpoint.address import Address
            from cambrian_eval.endpoint.client import ChatClient

            client = ChatClient(Address.parse(judge))
        with progress("judging") as advance:
            found = score_again(run, compat=compat, data=data, output=output, client=client, progress=advance)
        evaluation.show(out, found.result)
        _show_judge(out, found)
        _show_changes(out, found, changes)
        _conclude(out, run, found, has_data=data is not None)
        out.result(found.to_dict())


def _show_changes(out: Report, found: "Rescored", most: int) -> None:
    apart = [change for change in found.changes if change.is_read_otherwise]
    if apart and most:
        title = f"{min(most, len(apart))} of {len(apart)} replies that are read otherwise"
        out.table(title, COLUMNS, [*map(_row, apart[:most])])
    if len(apart) < len(found.changes):
        out.line(f"{len(found.changes) - len(apart)} replies are read as before, by a rule of another name")


def _conclude(out: Report, run: Path, found: "Rescored", has_data: bool) -> None:
    scores = [found.old_score, found.result.metrics.summary.get("score")]
    before, after = ("none" if score is None else f"{score:.2f}" for score in scores)
    out.line(
        f"score {before} before, {after} now; {found.num_read_otherwise} of {found.result.num_answered} replies are "
        f"read otherwise: {found.num_gained} are worth more, {found.num_lost} less"
    )
    if found.written is None:
        out.line(f"nothing is written: {found.why}")
        return
    out.line(f"written: {found.written} ({found.why})")
    if found.written == run and found.changes:
        out.line(f"what they were before: {found.written / 'rescored.jsonl'}")
    if not has_data:
        out.line("the page of this result shows no pictures; --data DIR, the benchmark's folder, has them shown")


def _show_judge(out: Report, found: "Rescored") -> None:
    judged = found.result.checks.get("judge")
    if judged is None:
        return
    agreed = judged["agreement"]
    if agreed is None:
        out.line(f"judge {judged['judge']}: score {judged['score']}, {judged['n']} verdicts; the rule has no score")
        return
    kappa = "undefined" if agreed["kappa"] is None else f"{agreed['kappa']:.3f}"
    out.line(
        f"judge {judged['judge']} ({judged['rubric']}): {agreed['judge_score']:.1f} % against the rule's "
        f"{agreed['rule_score']:.1f} % on {agreed['n']} replies; they agree on {agreed['rate']:.1f} % "
        f"({agreed['low']:.1f} to {agreed['high']:.1f}), kappa {kappa}; {judged['n_unread']} verdicts were not read"
    )


def _row(change: "Change") -> list[str]:
    return [_shorten(change.id), _shorten(change.reply), *_reading(change.old), *_reading(change.new)]


def _reading(score: "Score") -> tuple[str, str, str]:
    value = "" if score.value is None else f"{score.value:.2g}"
    return score.rule, "nothing" if score.extracted is None else _shorten(score.extracted), value


def _shorten(text: str) -> str:
    shown = "".join(letter if letter.isprintable() else " " for letter in text)  # a reply must not steer the terminal
    line = " ".join(shown.split()) or "(empty)"
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1] + "…"
