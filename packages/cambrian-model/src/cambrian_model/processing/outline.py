"""A chat template rendered once for all conversations of one shape, to be filled with what is said in each.

This gives what rendering gives only where a template writes contents as they are and asks of them no more than whether
they are empty: so it is used for our own templates that do, and for no other.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

# Noncharacters: no text has them.
_OPEN, _CLOSE = "\ufdd1", "\ufdd2"

Span = tuple[int, int]


class Rendered(NamedTuple):
    """A conversation as text, and the (start, end) of each part of it that the assistant writes."""

    text: str
    supervised: list[Span]


class Outline(NamedTuple):
    """Literal texts with contents between them.

    Attributes:
        literals: What the template writes; one more than there are contents.
        contents: Which message's content stands behind each literal but the last.
        spans: Start and end of what the assistant writes, each as (a literal, characters from its start).
    """

    literals: list[str]
    contents: list[int]
    spans: list[tuple[Span, Span]]

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
        return cls(literals, contents, [(start, end) for start, end in places])

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


def placeholders(contents: Sequence[str]) -> list[str]:
    """Returns what stands in an outline for these contents; nothing for an empty one."""
    return [f"{_OPEN}{i}{_CLOSE}" if content else "" for i, content in enumerate(contents)]


def _place(edge: int, starts: Sequence[int]) -> Span:
    literal = max(i for i, start in enumerate(starts) if start <= edge)
    return literal, edge - starts[literal]
