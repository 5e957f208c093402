"""The table of a result as plain text cells; how it is drawn is the caller's business."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cambrian_eval.report.markdown import markdown_cell, markdown_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cambrian_eval.metrics import MetricRow
    from cambrian_eval.types import Result


class TableRow(NamedTuple):
    """One line of a table, formatted; levels are percent, or say of what they are."""

    name: str
    accuracy: str
    interval: str
    chance: str
    best_constant: str
    parsed: str
    n: str


HEADER = TableRow("", "accuracy %", "95 % interval", "chance", "best constant", "parsed", "n")

_PICTURES = {"normal": "", "blind": "without pictures", "shuffled": "with pictures of other questions"}


def table_rows(result: Result) -> list[TableRow]:
    """The rows of a result, scores first, then tasks, then sources."""
    return [_format(row) for row in result.metrics.rows]


def markdown(result: Result) -> str:
    """A Markdown table with a heading that says what was run and how the score is made."""
    told = [*notes(result), *(f"warning: {warning}" for warning in result.checks.get("warnings", ()))]
    lines = [markdown_cell(heading(result)), "", markdown_table(HEADER, table_rows(result))]
    return "\n".join([*lines, *(f"{markdown_cell(note)}\n" for note in told)])


def heading(result: Result) -> str:
    """One line: task and version, model, and how it was asked if not the published way."""
    run = {**result.provenance.get("run", {}), "mode": result.mode}
    return ", ".join([f"{result.task} (version {result.task_version})", result.model, *asked(run)])


def asked(run: Mapping[str, Any]) -> list[str]:
    """What sets a run apart from the published way of asking and reading, from its `run.json`."""
    split, limit, ids = run.get("split"), run.get("limit"), run.get("ids")
    rules = rules_of(run)
    found = (
        _PICTURES.get(run.get("mode", "normal"), str(run.get("mode"))),
        f"prompt {run['prompt']}" if run.get("prompt", "direct") != "direct" else "",
        f"scoring {run['scoring']}" if run.get("scoring", "generate") != "generate" else "",
        f"prompt of {run['compat']}" if run.get("compat") else "",
        f"rules of {rules}" if rules else "",
        f"{run['permute']} orders of the options" if run.get("permute") else "",
        f"split {split}" if split is not None and not _is_first_split(run) else "",
        f"limited to {limit} (seed {run.get('seed', 0)})" if limit is not None else "",
        f"only ids {ids}" if ids is not None else "",
    )
    return [part for part in found if part]


def rules_of(run: Mapping[str, Any]) -> str | None:
    """The other tool by whose rules a run was scored, at first or again; None for the task's own."""
    rules: str | None = (run.get("rescored") or run).get("compat")
    return rules


def notes(result: Result) -> list[str]:
    """What a reader must know beside the numbers."""
    summary = result.metrics.summary
    found = []
    if "formula" in summary:
        kind = "the published score" if summary.get("published") else "means over the sources present"
        found.append(f"score = {summary['formula']} ({kind})")
    run = result.provenance.get("run", {})
    if run.get("max_new_tokens") is not None and run.get("scoring") != "logits":
        found.append(f"replies end after {run['max_new_tokens']} tokens at the latest")
    if result.checks.get("truncation_rate"):
        found.append(f"{result.checks['truncation_rate']:.1f} % of the replies ran out of tokens")
    if summary.get("n_unscored"):
        found.append(f"{summary['n_unscored']} replies have no known truth and are in no score")
    if run.get("limit") is not None:
        found.append(f"limited to {run['limit']} questions: compare it only with the same limit and seed")
    if result.num_failed:
        found.append(f"incomplete: {result.num_failed} questions were not answered and are not in any number")
    return found


def level(value: float | None) -> str:
    """One decimal; empty where there is no such level."""
    return "" if value is None else f"{value:.1f}"


def count(row: MetricRow) -> str:
    """Questions of a row, and independent units among them where these are fewer."""
    return str(row.n) if row.num_units == row.n else f"{row.n} ({row.num_units} unit{'s' * (row.num_units != 1)})"


def _is_first_split(run: Mapping[str, Any]) -> bool:
    from cambrian_eval.tasks import TASKS

    task = run.get("task")
    return task in TASKS.names() and TASKS.get(str(task)).splits[0] == run.get("split")


def _format(row: MetricRow) -> TableRow:
    of = "" if row.full == 100 else f" of {row.full:g}"
    return TableRow(
        row.label,
        f"{row.accuracy:.1f}{of}",
        f"{row.low:.1f} to {row.high:.1f}",
        level(row.chance),
        level(row.best_constant),
        f"{row.parse_rate:.1f}",
        count(row),
    )
