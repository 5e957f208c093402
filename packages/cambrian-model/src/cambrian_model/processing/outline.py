"""A chat template rendered once for all conversations of one shape, to be filled with what is said in each.

This gives what rendering gives only where a template writes contents as they are and asks of them no more than whether
they are empty: so it is used for our own templates that do, and for no other.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

# Noncharacters: no text has them.
_OPEN, _CLOSE = "\ufdd1", "\ufdd2"

Span = tuple[int, int]
Piece = tuple[str, bool]
"""A text, and whether the assistant writes it."""


class Rendered(NamedTuple):
    """A conversation as text, and the (start, end) of each part of it that the assistant writes."""

    text: str
    supervised: list[Span]

    def pieces(self) -> Iterator[Piece]:
        """Yields the text cut where the assistant begins and ends to write."""
        edges = {0, len(self.text), *(edge for span in self.supervised for edge in span)}
        for start, end in pairwise(sorted(edges)):
            yield self.text[start:end], any(first <= start and end <= last for first, last in self.supervised)


class Outline(NamedTuple):
    """Literal texts with contents between them.

    Attributes:
        literals: What the template writes; one more than there are contents.
        contents: Which message's content stands behind each literal but the last.
        spans: Start and end of what the assistant writes, each as (a literal, characters from its start).
        parts: The same cut where the assistant begins and ends to write: literal texts and numbers of contents in
            turn, and whether the assistant writes them.
    """

    literals: list[str]
    contents: list[int]
    spans: list[tuple[Span, Span]]
    parts: list[tuple[list[str | int], bool]]

    @classmethod
    def of(cls, rendered: Rendered) -> "Outline":
        """Takes apart what a template makes of `placeholders`."""
        literals, contents, starts = [""], list[int](), [0]
        for number, piece in enumerate(rendered.text.split(_OPEN)):
            name, _, literal = piece.rpartition(_CLOSE)
            if number:
                contents.append(int(name))
                starts.append(starts[-1] + len(literals[-1]) + len(_OPEN + name + _CLOSE))
                literals.append(literal)
            else:
                literals[0] = piece
        places = [tuple(_place(edge, starts) for edge in span) for span in rendered.supervised]
        parts = [(_take_apart(text), is_supervised) for text, is_supervised in rendered.pieces()]
        return cls(literals, contents, [(start, end) for start, end in places], parts)

    def fill(self, contents: Sequence[str]) -> Rendered:
        """Returns what the template makes of messages with these contents."""
        pieces = [
            text for i, literal in zip(self.contents, self.literals, strict=False) for text in (literal, contents[i])
        ]
        pieces.append(self.literals[-1])
        if not self.spans:
            return Rendered("".join(pieces), [])
        starts = list(accumulate(map(len, pieces), initial=0))[::2]
        spans = [(starts[first] + after, starts[last] + behind) for (first, after), (last, behind) in self.spans]
        return Rendered("".join(pieces), spans)

    def pieces(self, contents: Sequence[str]) -> list[Piece]:
        """Returns what `fill` does, cut where the assistant begins and ends to write."""
        return [
            ("".join([contents[part] if isinstance(part, int) else part for part in parts]), is_supervised)
            for parts, is_supervised in self.parts
        ]


def placeholders(contents: Sequence[str]) -> list[str]:
    """Returns what stands in an outline for these contents; nothing for an empty one."""
    return [f"{_OPEN}{i}{_CLOSE}" if content else "" for i, content in enumerate(contents)]


def _take_apart(text: str) -> list[str | int]:
    """Returns literal texts and numbers of contents in the order in which they stand in a text with placeholders."""
    parts: list[str | int] = []
    for i, piece in enumerate(text.split(_OPEN)):
        name, _, literal = piece.rpartition(_CLOSE)
        parts += [int(name), literal] if i else [piece]
    return [part for part in parts if part != ""]


def _place(edge: int, starts: Sequence[int]) -> Span:
    literal = max(i for i, start in enumerate(starts) if start <= edge)
    return literal, edge - starts[literal]
