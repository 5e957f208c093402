"""What an audit leaves behind: pairs.csv, text.csv, summary.csv, index.html and, last, leakage.json."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from cambrian_data.leakage import page
from cambrian_data.leakage.auditor import Findings
from cambrian_data.leakage.summary import AuditSummary
from cambrian_data.leakage.tables import TableFile, Value
from cambrian_data.scenes.generate import write_atomically

PAIRS, TEXTS, SHARES, PAGE, MANIFEST = "pairs.csv", "text.csv", "summary.csv", "index.html", "leakage.json"

PAIR_COLUMNS = (
    *("benchmark", "benchmark_picture", "benchmark_size", "training", "training_picture", "training_size"),
    *("distance", "exact", "distance_shown", "distance_source"),
)
TEXT_COLUMNS = (
    *("benchmark", "question_location", "question", "answer", "training", "training_location", "training_question"),
    *("training_answer", "containment", "own_containment", "same_words", "same_picture", "same_answer"),
)
SHARE_COLUMNS = ("benchmark", "training", "within_bits", "pictures", "found", "share")
ALL, EXACT = "all", "exact"
BETWEEN_ANSWERS = " | "

Values = tuple[Value, ...]


def write_report(output: Path, findings: Findings, pairs_shown: int) -> None:
    """Writes everything, each file whole or not at all.

    Args:
        output: folder that exists.
        findings: of the audit.
        pairs_shown: on the page, at each distance.
    """
    write_table(output / PAIRS, PAIR_COLUMNS, pair_rows(findings))
    write_table(output / TEXTS, TEXT_COLUMNS, text_rows(findings))
    write_table(output / SHARES, SHARE_COLUMNS, share_rows(findings.summary))
    content = page.render(findings, pairs_shown)
    write_atomically(output / PAGE, content.encode("utf-8", "backslashreplace"))
    numbers = msgspec.json.format(msgspec.json.encode(findings.summary), indent=2)
    write_atomically(output / MANIFEST, numbers + b"\n")


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Values]) -> None:
    """Writes a CSV file."""
    with TableFile(path, columns) as table:
        for row in rows:
            table.write(row)


def pair_rows(findings: Findings) -> Iterator[Values]:
    """A row for each pair, the nearest first."""
    benchmarks, training = findings.summary.benchmarks, findings.summary.training
    for pair in findings.pairs:
        shown = findings.shown[pair.number]
        yield (
            *(benchmarks[shown.benchmark].name, shown.picture.name, size_text(shown.size)),
            *(training[pair.training].name, pair.picture.name, size_text(pair.size)),
            *(pair.distance, pair.exact, pair.distance_shown, pair.distance_source),
        )


def text_rows(findings: Findings) -> Iterator[Values]:
    """A row for each question found and the training question, those that are most of a leak first."""
    benchmarks, training = findings.summary.benchmarks, findings.summary.training
    for text in findings.texts:
        question, exchange, hit = text.question, text.found.exchange, text.found.hit
        yield (
            *(benchmarks[text.benchmark].name, question.location, one_line(question.question)),
            one_line(BETWEEN_ANSWERS.join(question.answers)),
            *(training[text.training].name, exchange.location, one_line(exchange.question)),
            one_line(BETWEEN_ANSWERS.join(exchange.answers)),
            *(hit.containment, hit.own, hit.same, text.found.same_picture, text.found.same_answer),
        )


def share_rows(summary: AuditSummary) -> Iterator[Values]:
    """The shares of pictures found, a row for each benchmark, training set and number of bits."""
    for overlap in summary.overlaps:
        counts: list[tuple[str | int, int]] = [(EXACT, overlap.exact), *enumerate(overlap.found)]
        for bits, count in counts:
            share = count / overlap.pictures if overlap.pictures else 0.0
            yield overlap.benchmark, overlap.training or ALL, bits, overlap.pictures, count, share


def one_line(text: str) -> str:
    """A text with every stretch of white space as one space."""
    return " ".join(text.split())


def size_text(size: tuple[int, int]) -> str:
    """Width and height in pixels, for people."""
    return f"{size[0]}x{size[1]}"
