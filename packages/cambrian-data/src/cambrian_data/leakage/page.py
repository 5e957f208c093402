"""The page of an audit: one HTML file with thumbnails of the pairs side by side; it loads and runs nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from PIL import Image

from cambrian_data.errors import ImageError
from cambrian_data.images import load_image
from cambrian_data.leakage.auditor import Findings, Text
from cambrian_data.leakage.gallery import Pair
from cambrian_data.leakage.pictures import LeftOut, Picture, read_contents
from cambrian_data.leakage.summary import AuditSummary

THUMBNAIL_SIDE = 240
THUMBNAIL_QUALITY = 80
MAX_TEXTS = 50
MAX_COLUMNS = 6
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
.table { overflow-x: auto; margin: .5rem 0 1.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #8885; text-align: right; vertical-align: top; }
th.text, td.text { text-align: left; min-width: 9rem; overflow-wrap: anywhere; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(31rem, 100%), 1fr)); gap: 1rem; }
.pair { border: 1px solid #8885; border-radius: .4rem; padding: .6rem; }
.pair > p { margin: 0 0 .4rem; font-weight: 600; }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: .6rem; }
figure { margin: 0; }
figure img { display: block; max-width: 100%; max-height: 15rem; }
figcaption { font-size: 12px; overflow-wrap: anywhere; }
.lost { padding: 3rem 1rem; background: #8882; }
"""


def render(findings: Findings, pairs_shown: int) -> str:
    """The page.

    Args:
        findings: of the audit.
        pairs_shown: at each distance.
    """
    summary = findings.summary
    body = [
        "<h1>Leakage audit</h1>",
        f"<p>{escape(asked(summary))}</p>",
        "<h2>Pictures of the benchmark with a near-duplicate in training</h2>",
        picture_table(summary),
        *drawing_notes(summary),
        "<h2>Questions of the benchmark asked in training</h2>",
        question_table(summary),
        text_table(findings),
        "<h2>What was compared</h2>",
        set_table(summary),
        left_out_table(findings),
        "<h2>Pairs</h2>",
        "".join(pair_sections(findings, pairs_shown)) or "<p>No pair was found.</p>",
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>Leakage audit</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def asked(summary: AuditSummary) -> str:
    """What counted as found, in words."""
    request = summary.request
    return (
        f"Pictures: {request.hash} of {request.hash_size**2} bits, near-duplicates differ in at most "
        f"{request.threshold} bits; exact means the same file, byte by byte. Questions: at least "
        f"{request.text_threshold:.0%} of the word {request.ngram}-grams in one training question, or, of questions "
        f"with fewer than {request.ngram} words, all words in order. That a picture is in training does not say that "
        "its question is: questions are counted apart."
    )


def shown_bits(threshold: int) -> list[int]:
    """Some thresholds from 0 to the largest, for the columns of a table."""
    count = min(threshold, MAX_COLUMNS - 1)
    return sorted({round(threshold * step / count) for step in range(count + 1)}) if count else [0]


def picture_table(summary: AuditSummary) -> str:
    """Shares of pictures found, by benchmark, training set and threshold."""
    bits = shown_bits(summary.request.threshold)
    columns = ["benchmark", "training set", "pictures", "exact", *(f"≤ {bit} bits" for bit in bits)]
    rows = [
        [
            *(overlap.benchmark, overlap.training or "all", str(overlap.pictures)),
            *(counted(count, overlap.pictures) for count in (overlap.exact, *(overlap.found[bit] for bit in bits))),
        ]
        for overlap in summary.overlaps
        if overlap.training is not None or len(summary.training) > 1
    ]
    return table(columns, rows, num_texts=2)


def counted(count: int, total: int) -> str:
    """A count with its share."""
    return f"{count} ({count / total:.2%})" if total else "-"


def drawing_notes(summary: AuditSummary) -> Iterator[str]:
    """What the boxes drawn on pictures do to their hashes."""
    for drawing in summary.drawings:
        total = sum(drawing.bits.values())
        within = sum(count for bits, count in drawing.bits.items() if bits <= summary.request.threshold)
        parts = ", ".join(f"{bits}: {count}" for bits, count in drawing.bits.items())
        yield (
            f"<p>{escape(drawing.benchmark)}: {within} of {total} pictures differ from what their boxes were drawn on "
            f"in at most {summary.request.threshold} bits (bits: pictures; {parts}). Both were searched for.</p>"
        )


def question_table(summary: AuditSummary) -> str:
    """Counts of questions found."""
    columns = ["benchmark", "training set", "questions", "wording", "same words", "and picture", "and answer"]
    rows = [
        [
            *(each.benchmark, each.training, str(each.questions)),
            *(counted(count, each.questions) for count in (each.worded, each.same, each.with_picture)),
            counted(each.with_answer, each.questions),
        ]
        for each in summary.questions
    ]
    return table(columns, rows, num_texts=2) if rows else "<p>No questions on one of the sides.</p>"


def text_table(findings: Findings) -> str:
    """The questions that are most of a leak."""
    if not findings.texts:
        return ""
    columns = ["question", "training question", "picture", "answer", "n-grams"]
    rows = [text_row(findings, text) for text in findings.texts[:MAX_TEXTS]]
    return table(columns, rows, num_texts=2) + rest(len(findings.texts), MAX_TEXTS, "text.csv")


def text_row(findings: Findings, text: Text) -> list[str]:
    """A question and the training question that holds it."""
    exchange, answer = text.found.exchange, " | ".join(text.question.answers)
    return [
        f"{text.question.question} → {answer} ({text.question.location})",
        f"{exchange.question} → {' | '.join(exchange.answers)} ({exchange.location})",
        *(verdict(value) for value in (text.found.same_picture, text.found.same_answer)),
        f"{text.found.hit.containment:.2f}",
    ]


def verdict(same: bool | None) -> str:
    """Same, other, or unknown."""
    return "unknown" if same is None else "same" if same else "other"


def set_table(summary: AuditSummary) -> str:
    """What each set holds and what of it was left out."""
    rows = [
        [role, each.name, each.kind, number(each.pictures), number(each.questions), each.told or "nothing"]
        for role, sets in (("benchmark", summary.benchmarks), ("training", summary.training))
        for each in sets
    ]
    return table(["", "set", "kind", "pictures", "questions", "left out"], rows, num_texts=3)


def number(count: int | None) -> str:
    """A count, or that nobody counted."""
    return "not read" if count is None else str(count)


def left_out_table(findings: Findings) -> str:
    """The first of what was not compared."""
    if not findings.left_out:
        return ""
    summary = findings.summary
    sets = [*summary.benchmarks, *summary.training]
    total = sum(sum(each.left_out.values()) + sum(each.sources_left_out.values()) for each in sets)
    rows = [[side.name, it.name, it.reason, it.detail] for side, it in findings.left_out]
    return table(["set", "left out", "reason", "detail"], rows, num_texts=4) + rest(total, len(rows), "left_out.csv")


def rest(total: int, shown: int, file: str) -> str:
    """Says what a list does not show."""
    return f"<p>{total - shown} more stand in {file}.</p>" if total > shown else ""


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], num_texts: int) -> str:
    """A table whose first columns are texts and whose others are numbers."""
    lines = ["".join(cell("th", text, index < num_texts) for index, text in enumerate(columns))]
    lines += ["".join(cell("td", text, index < num_texts) for index, text in enumerate(row)) for row in rows]
    return '<div class="table"><table>' + "".join(f"<tr>{line}</tr>\n" for line in lines) + "</table></div>"


def cell(tag: str, text: str, is_text: bool) -> str:
    """A cell, escaped."""
    kind = ' class="text"' if is_text else ""
    return f"<{tag}{kind}>{escape(text)}</{tag}>"


def pair_sections(findings: Findings, pairs_shown: int) -> Iterator[str]:
    """The pairs, the nearest first: of each distance the first ones, and how many more there are."""
    for (distance, is_far), group in groupby(findings.pairs, key=lambda pair: (pair.distance, not pair.exact)):
        pairs = list(group)
        title = f"{distance} bits" if is_far else "The same file"
        figures = "".join(figure(findings, pair) for pair in pairs[:pairs_shown])
        yield f'<h3>{title}: {len(pairs)}</h3>\n<div class="pairs">{figures}</div>\n'
        yield rest(len(pairs), pairs_shown, "pairs.csv")


def figure(findings: Findings, pair: Pair) -> str:
    """Two pictures side by side."""
    shown = findings.shown[pair.number]
    benchmark = findings.summary.benchmarks[shown.benchmark].name
    training = findings.summary.training[pair.training].name
    told = ["the same file" if pair.exact else f"{pair.distance} of {findings.summary.request.hash_size**2} bits"]
    if pair.distance_source is not None and pair.distance_shown is not None:
        told.append(f"{pair.distance_shown} as shown, {pair.distance_source} without boxes")
    sides = side(shown.picture, benchmark, shown.size) + side(pair.picture, training, pair.size)
    return f'<div class="pair"><p>{escape("; ".join(told))}</p><div class="sides">{sides}</div></div>\n'


def side(picture: Picture, set_name: str, size: tuple[int, int]) -> str:
    """A picture with its name, its set and its size."""
    source = thumbnail(picture)
    image = f'<img alt="" src="{source}">' if source else '<div class="lost">cannot be read any more</div>'
    caption = f"{picture.name} · {size[0]}x{size[1]} · {set_name}"
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def thumbnail(picture: Picture) -> str | None:
    """A small JPEG as a data URI; None if the picture has gone since it was hashed."""
    (content,) = read_contents([picture])
    if isinstance(content, LeftOut):
        return None
    try:
        small = load_image(Path("picture"), content)
    except ImageError:
        return None
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=THUMBNAIL_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
