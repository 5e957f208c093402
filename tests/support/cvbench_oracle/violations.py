"""What the judge finds fault with."""

from collections.abc import Iterable
from typing import NamedTuple


class Violation(NamedTuple):
    """One rule that one question, or the benchmark as a whole, breaks.

    Attributes:
        idx: of the question; None for the benchmark.
        rule: short name of what was checked.
        text: what was found and what was expected.
    """

    idx: int | None
    rule: str
    text: str


def kinds(violations: Iterable[Violation]) -> set[str]:
    """The names of the rules that were broken."""
    return {violation.rule for violation in violations}
