"""The frame of every page of this package, and the pieces that they are made of. Everything from outside is escaped.

A page is one file that loads nothing and runs nothing: there is no script, and its content security policy forbids
whatever is not in the page itself.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
NUM_COLOURS = 6

Kind = Literal["numbers", "loose", "texts"]

_CONTROLS = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {127: 0x2421}
# Marks that reorder the text around them would let a reply rewrite what stands beside it; those without a width, and
# tags, would let it hold what nobody sees. Joiners stay: Persian words and emoji are made with them.
_CONTROLS |= dict.fromkeys(
    (
        *(*range(0x80, 0xA0), 0xAD, 0x61C, 0x180E, 0x200B, 0x200E, 0x200F, *range(0x2028, 0x202F)),
        *(*range(0x2060, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080)),
    ),
    0xFFFD,
)

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2530; --faint: #596674; --paper: #fff; --soft: #f1f4f7; --line: #d8dee5;
  --c0: #2f76a8; --c1: #b8541c; --c2: #3f7f4c; --c3: #8250a8; --c4: #8a6d00; --c5: #b03a62;
  --good: #2c7a3f; --bad: #b3261e; --warn: #fff4dc; --warn-line: #d9a520; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e2e8ee; --faint: #9fabb8; --paper: #12161b; --soft: #1c232a; --line: #343e48;
    --c0: #62a8d8; --c1: #e38a52; --c2: #74b883; --c3: #b58ad8; --c4: #cdb04a; --c5: #e07a9c;
    --good: #7cc68d; --bad: #f28b82; --warn: #2d2612; --warn-line: #a8801c; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 68rem;
  margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: .95rem; margin: 1.4rem 0 .4rem; }
p { margin: .4rem 0; max-width: 50rem; overflow-wrap: anywhere; }
a { color: var(--c0); } a:focus-visible, summary:focus-visible { outline: 2px solid var(--c1); outline-offset: 2px; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 1rem 0; }
.faint { color: var(--faint); font-size: .88rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .7rem; margin: 1rem 0; }
.figures div { background: var(--soft); border-radius: 8px; padding: .6rem .8rem; }
.figures b { display: block; font-size: 1.2rem; font-variant-numeric: tabular-nums; line-height: 1.35; }
.figures span { color: var(--faint); font-size: .85rem; }
.warning { background: var(--warn); border-left: 4px solid var(--warn-line); padding: .5rem .8rem; border-radius: 4px; }
.bar { display: grid; grid-template-columns: minmax(6rem, 15rem) 1fr 4.6rem; gap: .8rem; align-items: center;
  margin: .28rem 0; }
.bar > :first-child { overflow-wrap: anywhere; line-height: 1.25; }
.bar .value { font-variant-numeric: tabular-nums; text-align: right; }
.track { position: relative; height: 1.15rem; background: var(--soft); border-radius: 3px; }
.track > * { position: absolute; top: 0; bottom: 0; }
.fill { left: 0; border-radius: 3px; opacity: .8; }
.whisker { top: 25%; bottom: 25%; border: solid var(--ink); border-width: 0 1.5px; }
.whisker::after { content: ""; position: absolute; left: 0; right: 0; top: calc(50% - .75px); height: 1.5px;
  background: var(--ink); }
.scale { background-image: linear-gradient(to right, var(--line) 1px, transparent 1px); background-size: 25% 100%; }
.track > .chance { border-left: 2px dotted var(--ink); top: -6px; bottom: -6px; }
.track > .constant { border-left: 3px solid var(--c1); top: -1px; bottom: -1px; }
.thin { margin: .12rem 0; } .thin.first { margin-top: .5rem; } .thin .track { height: .8rem; }
.c0 { background: var(--c0); } .c1 { background: var(--c1); } .c2 { background: var(--c2); }
.c3 { background: var(--c3); } .c4 { background: var(--c4); } .c5 { background: var(--c5); }
.key { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; margin-right: .35rem; opacity: .85; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: .4rem 0 .8rem; font-size: .9rem; }
.wide { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; min-width: 30rem; width: 100%; }
caption { text-align: left; color: var(--faint); font-size: .88rem; padding-bottom: .3rem; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th:first-child, td:first-child, .texts td, .texts th { text-align: left; } tbody th { font-weight: normal; }
thead th { color: var(--faint); font-weight: 600; font-size: .88rem; }
td { white-space: nowrap; } .texts td { white-space: normal; } .loose td { white-space: pre; }
tbody th { min-width: 9rem; max-width: 24rem; overflow-wrap: anywhere; } thead th { overflow-wrap: break-word; }
.texts { min-width: 0; table-layout: fixed; } .texts th:first-child { width: 13rem; }
.texts th, .texts td { overflow-wrap: anywhere; min-width: 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); gap: 1rem; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: .8rem; overflow-wrap: anywhere; min-width: 0; }
.card img { display: block; max-width: 100%; border-radius: 4px; margin: 0 auto .4rem; background: var(--soft); }
pre { font: 13px/1.45 ui-monospace, monospace; white-space: pre-wrap; background: var(--soft); padding: .5rem;
  margin: .4rem 0; border-radius: 4px; max-height: 16rem; overflow: auto; unicode-bidi: plaintext; }
.reply { border-left: 3px solid var(--c0); }
.good { color: var(--good); } .bad { color: var(--bad); }
.badge { display: inline-block; border: 1px solid var(--bad); color: var(--bad); border-radius: 4px; padding: 0 .4rem;
  font-size: .8rem; }
details { margin: .6rem 0; } summary { cursor: pointer; }
@media (max-width: 34rem) { .bar { grid-template-columns: 1fr 4.2rem; gap: .1rem .6rem; margin: .6rem 0; }
  .bar > :first-child { grid-column: 1 / -1; }
  .bar.thin { margin: .1rem 0; } .bar.thin.first { margin-top: .5rem; } .texts th:first-child { width: 8rem; } }
@media print { .card { break-inside: avoid; } pre { max-height: none; } }
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole page; the title is escaped, the body is HTML already."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def text(value: str) -> str:
    """A text as HTML shows it: markup is escaped, and what cannot be seen or reorders the page is made visible."""
    return escape(value.translate(_CONTROLS))


def own(value: str) -> str:
    """A text from data or a model inside a line: whatever its direction, it does not move what stands around it."""
    return f"<bdi>{text(value)}</bdi>"


class Section(NamedTuple):
    """A part of the page that can be linked to.

    Attributes:
        anchor: Its name in links.
        title: Its heading.
        content: HTML; empty where there is nothing to show.
    """

    anchor: str
    title: str
    content: str


def section(anchor: str, title: str, *parts: str) -> Section:
    """A part of the page, of pieces of HTML."""
    return Section(anchor, title, "\n".join(filter(None, parts)))


def with_navigation(sections: Iterable[Section]) -> list[str]:
    """Links to the parts that have content, and these parts."""
    shown = [one for one in sections if one.content]
    links = "".join(f'<a href="#{one.anchor}">{text(one.title)}</a>' for one in shown)
    return [
        f'<nav aria-label="Parts of this page">{links}</nav>',
        *(f'<section id="{one.anchor}"><h2>{text(one.title)}</h2>\n{one.content}\n</section>' for one in shown),
    ]


def paragraph(value: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{text(value)}</p>' if kind else f"<p>{text(value)}</p>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str = "", kind: Kind = "numbers") -> str:
    """A table of plain texts, the first cell of each row its heading.

    Args:
        columns: Their heads.
        rows: Their cells.
        caption: What stands above.
        kind: `numbers` stand to the right in one line, `loose` ones in several, `texts` stand to the left.
    """
    head = "".join(f'<th scope="col">{own(column)}</th>' for column in columns)
    lines = (
        f'<tr><th scope="row">{own(first)}</th>{"".join(f"<td>{own(cell)}</td>" for cell in others)}</tr>'
        for first, *others in rows
    )
    return (
        f'<div class="wide" tabindex="0"><table class="{kind}">'
        + (f"<caption>{text(caption)}</caption>" if caption else "")
        + f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def figures(values: Iterable[tuple[str, str]]) -> str:
    """A few large numbers, each with what it is."""
    return (
        f'<div class="figures">{"".join(f"<div><b>{text(v)}</b><span>{text(k)}</span></div>" for v, k in values)}</div>'
    )


def legend(labels: Sequence[str]) -> str:
    """Which colour is which; of more labels than colours they repeat, in the order of the bars."""
    keys = (f'<span><span class="key c{n % NUM_COLOURS}"></span>{own(label)}</span>' for n, label in enumerate(labels))
    return f'<div class="legend">{"".join(keys)}</div>'
