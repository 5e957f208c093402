"""Comparisons of runs for people: tables of text cells, sentences, and one Markdown page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from cambrian_eval.report.markdown import markdown_cell, markdown_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cambrian_eval.compare import Comparison, Family, Flip

COLUMNS = (
    *("benchmark", "first", "second", "scores", "difference", "95 % interval", "n", "gained", "lost", "p", "Holm"),
    "parsed %",
)
FLIP_COLUMNS = ("question", "truth", "first says", "second says", "change", "comes with")
_SHOWN = 60


class Table(NamedTuple):
    """A title, names of columns, and rows of text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def overview(family: Family) -> Table:
    """One row for each comparison."""
    pairs = zip(family.comparisons, family.adjusted, strict=True)
    return Table("Second run minus first, on shared questions", COLUMNS, [_row(found, holm) for found, holm in pairs])


def heading(found: Comparison) -> str:
    """The benchmark, and what is compared."""
    first, second = names(found)
    return f"{found.task}: {first} against {second}"


def names(found: Comparison) -> tuple[str, str]:
    """The labels of both runs, with their folders where the labels are the same: two checkpoints of one name, say."""
    first, second = found.runs
    if first != second:
        return first, second
    return f"{first} [{found.folders[0]}]", f"{second} [{found.folders[1]}]"


def notes(found: Comparison) -> list[str]:
    """What the numbers are of, and why the runs differ, one sentence a line."""
    return [*_numbers(found), *_reasons(found), *_causes(found)]


def flips(found: Comparison, num_shown: int | None = None) -> Table:
    """Questions that score differently, losses first; as many losses as gains where not all are shown."""
    shown = _ends(found.flips, num_shown)
    title = f"{found.task}: {len(shown)} of {len(found.flips)} questions that score differently"
    return Table(title, FLIP_COLUMNS, [_flip_row(flip) for flip in shown])


def markdown(family: Family) -> str:
    """A page with everything: the overview, and for each comparison notes and all flips."""
    title, columns, rows = overview(family)
    parts = [f"# {title}\n", markdown_table(columns, rows)]
    for found in family.comparisons:
        parts.append(f"## {markdown_cell(heading(found))}\n")
        parts.append("".join(f"- {markdown_cell(note)}\n" for note in notes(found)))
        if found.flips:
            parts += [f"### {flips(found).title}\n", markdown_table(FLIP_COLUMNS, flips(found).rows)]
    return "\n".join(parts)


def _row(found: Comparison, holm: float) -> list[str]:
    scores = " to ".join(f"{score:.2f}" for score in found.scores)
    gained, lost = ("" if count is None else str(count) for count in (found.gained, found.lost))
    ends = f"{_level(found.difference.low)} to {_level(found.difference.high)}"
    tests = (_p(found.p), _p(holm))
    return [
        found.task,
        *names(found),
        scores,
        _level(found.difference.mean),
        ends,
        str(found.num_shared),
        gained,
        lost,
        *tests,
        " to ".join(f"{rate:.1f}" for rate in found.parse_rates),
    ]


def _numbers(found: Comparison) -> Iterator[str]:
    difference = found.difference
    unit = "percentage points" if found.full == 100 else f"points of {found.full:g}"
    yield f"the difference is that of {found.what}, in {unit}; the p-value is that of {found.test}"
    if 0 < difference.standard_error < math.inf:
        yield f"a true difference of {found.detectable:.2f} would show in four of five such comparisons"
    if found.mcnemar == found.p and found.sign_flip is not None:
        p = _p(found.sign_flip)
        yield f"McNemar counts questions alike, the score does not: signs of what enters it, flipped, give p {p}"
    if difference.design_effect != 1 and math.isfinite(difference.design_effect):
        yield (
            f"the score counts {difference.num_units} independent groups of the {found.num_shared} questions; design "
            f"effect {difference.design_effect:.2f}"
        )
    if any(found.num_only):
        yield (
            f"only the {found.num_shared} shared questions count: the first run answered {found.num_only[0]} others, "
            f"the second {found.num_only[1]}; these scores are not the benchmark's"
        )
    for folder in found.unfinished:
        yield f"{folder} is not finished; these scores are not the benchmark's"


def _reasons(found: Comparison) -> Iterator[str]:
    if not found.reasons:
        yield "no difference found in model, prompt, parser, decoding, data or software"
    for reason in found.reasons:
        example = ""
        if reason.example:
            first, second = _apart(reason.example["first"], reason.example["second"])
            example = f'; {reason.example["id"]}: "{first}" against "{second}"'
        yield f"{reason.kind}: {reason.text}{example}"


def _causes(found: Comparison) -> Iterator[str]:
    if found.flips:
        parts = ", ".join(f"{count} with {cause}" for cause, count in found.causes.items())
        yield f"{len(found.flips)} questions score differently: {parts}"


def _ends(found: Sequence[Flip], num_shown: int | None) -> Sequence[Flip]:
    if num_shown is None or num_shown >= len(found):
        return found
    return [*found[: (num_shown + 1) // 2], *found[len(found) - num_shown // 2 :]]


def _flip_row(flip: Flip) -> list[str]:
    said = [
        _shorten(reply) + (f" [{_shorten(read)}]" if read is not None and read != reply else "")
        for reply, read in zip(flip.replies, flip.extracted, strict=True)
    ]
    return [flip.id, _shorten(" | ".join(flip.truth)), *said, f"{flip.change:+.2g}", flip.cause]


def _apart(first: str, second: str) -> tuple[str, str]:
    """Two texts, shortened so that the place where they part is seen."""
    pairs = enumerate(zip(first, second, strict=False))
    shared = next((place for place, (here, there) in pairs if here != there), min(len(first), len(second)))
    start = max(0, shared - _SHOWN // 3) if max(len(first), len(second)) > _SHOWN else 0
    ahead = "…" if start else ""
    return ahead + _shorten(first[start:]), ahead + _shorten(second[start:])


def _level(level: float) -> str:
    return f"{level:+.2f}" if math.isfinite(level) else "unknown"


def _p(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def _shorten(text: str) -> str:
    line = " ".join(text.split()) or "(empty)"
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
