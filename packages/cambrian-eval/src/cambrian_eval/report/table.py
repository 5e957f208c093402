"""The table of a result as plain text cells; how it is drawn is the caller's business."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian_eval.metrics import MetricRow
    from cambrian_eval.types import Result


class TableRow(NamedTuple):
    """One line of a table, formatted; levels are percent."""

    name: str
    accuracy: str
    interval: str
    chance: str
    best_constant: str
    parsed: str
    n: str


HEADER = TableRow("", "accuracy %", "95 % interval", "chance", "best constant", "parsed", "n")


def table_rows(result: Result) -> list[TableRow]:
    """The rows of a result, scores first, then tasks, then sources."""
    return [_format(row) for row in result.metrics.rows]


def markdown(result: Result) -> str:
    """A Markdown table with a heading that says what was run and how the score is made."""
    lines = [heading(result), "", _join(HEADER), _join(["---", *["---:"] * (len(HEADER) - 1)])]
    lines += [_join(row) for row in table_rows(result)]
    return "\n".join([*lines, "", *notes(result)]) + "\n"


def heading(result: Result) -> str:
    """One line: task and version, model, mode."""
    pictures = {"normal": "", "blind": ", without pictures", "shuffled": ", with pictures of other questions"}
    return f"{result.task} (version {result.task_version}), {result.model}{pictures[result.mode]}"


def notes(result: Result) -> list[str]:
    """What a reader must know beside the numbers."""
    summary = result.metrics.summary
    found = []
    if "formula" in summary:
        kind = "the published score" if summary.get("published") else "means over the sources present"
        found.append(f"score = {summary['formula']} ({kind})")
    run = result.provenance.get("run", {})
    if run.get("max_new_tokens") is not None:
        found.append(f"replies end after {run['max_new_tokens']} tokens at the latest")
    if run.get("limit") is not None:
        found.append(f"limited to {result.num_answered} questions: compare it only with the same limit and seed")
    if result.num_failed:
        found.append(f"incomplete: {result.num_failed} questions were not answered and are not in any number")
    return found


def _format(row: MetricRow) -> TableRow:
    return TableRow(
        row.label,
        f"{row.accuracy:.1f}",
        f"{row.low:.1f} to {row.high:.1f}",
        f"{row.chance:.1f}",
        f"{row.best_constant:.1f}",
        f"{row.parse_rate:.1f}",
        str(row.n),
    )


def _join(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
