"""The mean over parts of a benchmark, each weighing the same whatever its size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian_eval.metrics import weighted_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian_eval.metrics import MetricRow


def macro_mean(name: str, label: str, rows: Sequence[MetricRow]) -> list[MetricRow]:
    """One row of the table of scores, the mean of `rows`; none where there are none."""
    return [weighted_row("scores", name, label, [(1 / len(rows), row) for row in rows])] if rows else []
