"""One self-contained HTML page a run: bars with intervals, the table, and wrong answers with the pictures shown.

Nothing is loaded from outside and there is no script; a content security policy in the page holds it to that. Every
text that comes from data or a model is escaped.
"""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

from cambrian_eval.atomic import write_atomically
from cambrian_eval.errors import DataError
from cambrian_eval.report.table import HEADER, heading, notes, table_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian_eval.metrics import MetricRow
    from cambrian_eval.picture import Picture
    from cambrian_eval.types import Result, ScoredAnswer

MAX_SHOWN = 60
THUMBNAIL_SIDE = 320
MAX_REPLY = 600

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --paper: #fff; --soft: #eef1f5; --line: #d5dbe3; --bar: #3d7ea6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dfe5ec; --paper: #14181d; --soft: #20262d; --line: #36404a; --bar: #5b9dc6; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
.bar { display: grid; grid-template-columns: 14rem 1fr 4rem; gap: .8rem; align-items: center; margin: .3rem 0; }
.track { position: relative; height: 1.2rem; background: var(--soft); border-radius: 3px; }
.track > * { position: absolute; top: 0; bottom: 0; }
.fill { left: 0; background: var(--bar); border-radius: 3px; opacity: .75; }
.whisker { top: 45%; bottom: 45%; background: var(--ink); }
.chance { border-left: 2px dotted var(--ink); } .constant { border-left: 2px solid #c4622d; }
.value { font-variant-numeric: tabular-nums; text-align: right; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); gap: 1rem; }
.card { border: 1px solid var(--line); border-radius: 6px; padding: .8rem; overflow-wrap: anywhere; }
.card img { max-width: 100%; border-radius: 3px; } .card pre { white-space: pre-wrap; background: var(--soft);
  padding: .5rem; margin: .4rem 0; }
small { opacity: .75; }
"""


def write_report(path: Path, result: Result, scored: Sequence[ScoredAnswer]) -> None:
    """Write the page. At most 60 wrong answers are shown, the unparsed ones first."""
    wrong = [answer for answer in scored if answer.score.value is not None and answer.score.value < 1]
    wrong.sort(key=lambda answer: answer.score.extracted is not None)
    body = "\n".join(
        [
            f"<h1>{escape(heading(result))}</h1>",
            *(f"<p>{escape(note)}</p>" for note in notes(result)),
            "<h2>Accuracy in percent, with 95 % intervals</h2>",
            "<p><small>Dotted line: chance. Orange line: the best single letter, always given.</small></p>",
            *(_bar(row) for row in result.metrics.rows),
            "<h2>Table</h2>",
            _table(result),
            f"<h2>Wrong answers: {len(wrong)} of {len(scored)}</h2>",
            f"<p><small>{min(len(wrong), MAX_SHOWN)} are shown, unparsed ones first.</small></p>",
            '<div class="cards">',
            *(_card(answer) for answer in wrong[:MAX_SHOWN]),
            "</div>",
        ]
    )
    write_atomically(path, _page(heading(result), body))


def _page(title: str, body: str) -> str:
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _bar(row: MetricRow) -> str:
    return (
        f'<div class="bar"><span>{escape(row.label)}</span><span class="track">'
        f'<span class="fill" style="width:{row.accuracy:.2f}%"></span>'
        f'<span class="whisker" style="left:{row.low:.2f}%;width:{row.high - row.low:.2f}%"></span>'
        f'<span class="chance" style="left:{row.chance:.2f}%"></span>'
        f'<span class="constant" style="left:{row.best_constant:.2f}%"></span>'
        f'</span><span class="value">{row.accuracy:.1f}</span></div>'
    )


def _table(result: Result) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in HEADER)
    rows = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in table_rows(result)]
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def _card(answer: ScoredAnswer) -> str:
    reply = answer.answer.text
    shown = reply if len(reply) <= MAX_REPLY else reply[:MAX_REPLY] + " ..."
    read = answer.score.extracted or "nothing"
    return (
        '<div class="card">'
        + "".join(_image(picture) for picture in answer.prompt.pictures)
        + f"<pre>{escape(answer.prompt.text)}</pre><pre>{escape(shown) or '(empty)'}</pre>"
        + f"<p>read <b>{escape(read)}</b>, right is <b>{escape(', '.join(answer.question.answers))}</b><br>"
        + f"<small>{escape(answer.score.rule)}; {escape(answer.question.id)}, {escape(answer.question.task)}, "
        + f"{escape(answer.question.source)}</small></p></div>"
    )


def _image(picture: Picture) -> str:
    try:
        image = picture.open()
    except DataError as error:
        return f"<p><small>{escape(str(error))}</small></p>"
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    encoded = io.BytesIO()
    image.save(encoded, format="JPEG", quality=85)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}">'
