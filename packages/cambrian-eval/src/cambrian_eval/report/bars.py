"""Bars: scores with their intervals and the levels they have to beat, and counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian_eval.report.page import NUM_COLOURS, own, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian_eval.groups import Level
    from cambrian_eval.metrics import MetricRow


def row_bar(row: MetricRow) -> str:
    """One row of a result, with chance and the best constant reply where there are any."""
    marks = [
        f'<span class="{kind}" style="left:{_percent(value, row.full)}"></span>'
        for kind, value in (("chance", row.chance), ("constant", row.best_constant))
        if value is not None
    ]
    return _bar(row.label, row.accuracy, row.low, row.high, row.full, "".join(marks), colour=0)


def level_bar(label: str, level: Level, colour: int) -> str:
    """A score with its interval, if it is known, in one of the page's colours."""
    return _bar(label, level.score, level.low, level.high, level.full, "", colour)


def count_bars(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Histograms over the same bins, one for each of `counts`, as shares of their own sums."""
    totals = [max(1, sum(one)) for one in counts]
    largest = max((100 * count / total for one, total in zip(counts, totals, strict=True) for count in one), default=0)
    lines = []
    for place, label in enumerate(labels):
        for colour, (one, total) in enumerate(zip(counts, totals, strict=True)):
            share = 100 * one[place] / total
            lines.append(
                _line(
                    label if colour == 0 else "",
                    _fill(share / max(largest, 1e-9), colour),
                    f"{share:.1f} %",
                    kind="thin first" if colour == 0 else "thin",
                )
            )
    return "".join(lines)


def _bar(label: str, score: float, low: float | None, high: float | None, full: float, marks: str, colour: int) -> str:
    told = f"{label}: {score:.1f}"
    whisker = ""
    if low is not None and high is not None:
        told += f", 95 % interval {low:.1f} to {high:.1f}"
        width = _percent(high - low, full)
        whisker = f'<span class="whisker" style="left:{_percent(low, full)};width:{width}"></span>'
    return _line(label, f"{_fill(score / full, colour)}{whisker}{marks}", f"{score:.1f}", told=told)


def _line(label: str, inside: str, value: str, *, told: str = "", kind: str = "") -> str:
    """One bar; `told` is what it says to those who hear the page."""
    track = (
        f'track scale" role="img" aria-label="{text(told)}" title="{text(told)}' if told else 'track" aria-hidden="true'
    )
    return (
        f'<div class="bar {kind}"><span>{own(label)}</span><span class="{track}">{inside}</span>'
        f'<span class="value">{text(value)}</span></div>'
    )


def _fill(share: float, colour: int) -> str:
    return f'<span class="fill c{colour % NUM_COLOURS}" style="width:{_percent(share, 1.0)}"></span>'


def _percent(value: float, full: float) -> str:
    return f"{min(max(100 * value / full, 0.0), 100.0):.2f}%"
