"""One HTML page of several runs: their scores side by side, and what sets their replies apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian_eval.report import image_tokens, lengths
from cambrian_eval.report.bars import level_bar
from cambrian_eval.report.html import lengths_parts
from cambrian_eval.report.page import legend, page, paragraph, section, table, text, with_navigation
from cambrian_eval.report.side_by_side import table as cells_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cambrian_eval.report.recorded import Recorded
    from cambrian_eval.report.side_by_side import Column, Line, SideBySide

TITLE = "Runs side by side"
IDENTITY = ("model_fingerprint", "task_version", "split", "data_sha256", "prompts_sha256", "seed")


def side_by_side_page(found: SideBySide) -> str:
    """The page."""
    sections = [
        section("scores", "Scores, with 95 % intervals", *_bars(found, found.headlines)),
        section("averages", "Averages of groups", *_bars(found, found.averages)),
        section("parts", "Parts of each benchmark", *_parts(found)),
        section("format", "Replies with and without the format prompt", *_format_effect(found)),
        section("replies", "Length of replies", *_lengths(found)),
        section("tokens", "Image tokens for a picture", _tokens(found)),
        section("identity", "What was run", _identity(found)),
    ]
    head = [
        f"<h1>{text(TITLE)}</h1>",
        *(paragraph(note, "warning" if note.startswith("INCOMPLETE") else "faint") for note in found.notes),
    ]
    return page(TITLE, [*head, *with_navigation(sections)])


def _bars(found: SideBySide, lines: Sequence[Line]) -> Iterator[str]:
    if not lines:
        return
    yield legend([column.label for column in found.columns])
    for line in lines:
        yield f"<h3>{text(line.label)}</h3>"
        for colour, (column, cell) in enumerate(zip(found.columns, line.cells, strict=True)):
            if cell is not None:
                yield level_bar(column.label, cell.level, colour)
    yield table(found.head, _broken(lines), kind="loose")


def _broken(lines: Sequence[Line]) -> list[list[str]]:
    """Cells with a line for the score, one for how it was read."""
    return [[cell.replace("; ", "\n") for cell in row] for row in cells_of(lines)]


def _parts(found: SideBySide) -> Iterator[str]:
    for label, lines in found.parts.items():
        rows = table(found.head, _broken(lines), kind="loose")
        yield f"<details open><summary>{text(label)}</summary>{rows}</details>"


def _format_effect(found: SideBySide) -> Iterator[str]:
    """Runs that differ in nothing but the format instruction, on the questions that both answered."""
    for run, bare in _pairs(found.columns):
        ids = {answer.question.id for answer in run.answers} & {answer.question.id for answer in bare.answers}
        yield f"<h3>{text(f'{run.result.task}, {run.result.model}: {len(ids)} questions asked both ways')}</h3>"
        yield from lengths_parts(
            [
                lengths.measure_lengths(label, [answer for answer in one.answers if answer.question.id in ids])
                for label, one in (("with the format prompt", run), ("without it", bare))
            ]
        )


def _pairs(columns: Sequence[Column]) -> Iterator[tuple[Recorded, Recorded]]:
    runs = [run for column in columns for run in column.runs.values()]
    for run in runs:
        if run.identity.get("prompt", "direct") == "direct":
            yield from ((run, bare) for bare in runs if _is_bare_twin(run, bare))


def _is_bare_twin(run: Recorded, bare: Recorded) -> bool:
    """Whether the second run is the first one without a format instruction."""
    other = {**run.identity, "prompt": "bare", "prompts_sha256": None}
    return {**bare.identity, "prompts_sha256": None} == other


def _lengths(found: SideBySide) -> Iterator[str]:
    measured = [
        lengths.measure_lengths(f"{run.result.task}: {column.label}", run.answers)
        for column in found.columns
        for run in column.runs.values()
    ]
    yield table(
        lengths.COLUMNS,
        [one.row() for one in measured],
        caption="Open questions neither offer options nor are answered by yes or no.",
    )


def _tokens(found: SideBySide) -> str:
    measured = [
        image_tokens.measure_image_tokens(f"{run.result.task}: {column.label}", run.answers)
        for column in found.columns
        for run in column.runs.values()
    ]
    rows = [one.row() for one in measured if one is not None]
    rows += [
        [f"{column.label}: as published", "", str(column.published.visual_tokens), "", "", "", ""]
        for column in found.columns
        if column.published is not None and column.published.visual_tokens is not None
    ]
    return table(image_tokens.COLUMNS, rows) if rows else ""


def _identity(found: SideBySide) -> str:
    rows = [
        [f"{run.result.task}: {column.label}", *(str(run.identity.get(name)) for name in IDENTITY)]
        for column in found.columns
        for run in column.runs.values()
    ]
    return table(("", *IDENTITY), rows, kind="texts")
