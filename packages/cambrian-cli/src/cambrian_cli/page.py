"""The page of a run: `report.html`, with the comparison of all modes, the curve, the captions, and links to each part.

Everything shown is in the page itself; the links lead to files beside it.
"""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from cambrian_cli import evaluation, training_evaluation

if TYPE_CHECKING:
    from cambrian_eval import Result

PICTURES = {"curve.png": "Training", "captions.png": "Captions"}

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #8885; text-align: right; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; }
"""


def write(run_dir: Path, results: "Sequence[Result]") -> Path:
    """Writes the page of an evaluated run and returns its path."""
    from cambrian_eval.atomic import write_atomically
    from cambrian_eval.report.table import heading, notes

    compared = training_evaluation.compare(results)
    links = [(result.output.relative_to(run_dir) / evaluation.REPORT, heading(result)) for result in results]
    found = [(title, run_dir / name) for name, title in PICTURES.items() if (run_dir / name).is_file()]
    body = [
        f"<h1>{escape(run_dir.resolve().name)}</h1>",
        f"<h2>{escape(compared.title)}</h2>",
        _table(compared.columns, compared.rows),
        *(f"<p>{escape(note)}</p>" for note in notes(results[0])),
        "<ul>",
        *(f'<li><a href="{escape(path.as_posix())}">{escape(text)}</a></li>' for path, text in links),
        "</ul>",
        *(f"<h2>{title}</h2>\n{_picture(path)}" for title, path in found),
    ]
    path = run_dir / evaluation.REPORT
    write_atomically(path, _page(run_dir.resolve().name, "\n".join(body)))
    return path


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _picture(path: Path) -> str:
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'


def _page(title: str, body: str) -> str:
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
