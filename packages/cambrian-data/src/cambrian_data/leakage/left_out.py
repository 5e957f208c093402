"""The account of what is not compared: written down as it is met, and counted by reason."""

from __future__ import annotations

from collections import Counter, defaultdict
from enum import StrEnum
from typing import NamedTuple

from cambrian_data.leakage.pictures import LeftOut, Reason
from cambrian_data.leakage.tables import TableFile

COLUMNS = ("role", "set", "name", "reason", "detail")
MAX_EXAMPLES = 50


class Role(StrEnum):
    """On which side of the audit a picture or question stands."""

    BENCHMARK = "benchmark"
    SOURCE = "source"  # what a benchmark's pictures were drawn on
    TRAINING = "training"


class Side(NamedTuple):
    """A set in its role.

    Attributes:
        role: of the set.
        number: of the set among those of its side.
        name: of the set.
    """

    role: Role
    number: int
    name: str


class Account:
    """Writes down what is left out.

    Args:
        table: to write to.

    Attributes:
        examples: the first ones.
    """

    def __init__(self, table: TableFile) -> None:
        self._table = table
        self._counts: dict[Side, Counter[Reason]] = defaultdict(Counter)
        self._firsts: dict[tuple[Side, Reason], LeftOut] = {}
        self.examples: list[tuple[Side, LeftOut]] = []

    def add(self, side: Side, left_out: LeftOut) -> None:
        """Takes one."""
        self._counts[side][left_out.reason] += 1
        self._firsts.setdefault((side, left_out.reason), left_out)
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append((side, left_out))
        self._table.write((side.role, side.name, left_out.name, left_out.reason, left_out.detail))

    def counts(self, side: Side) -> dict[Reason, int]:
        """How many were left out of a set, by reason."""
        return dict(self._counts.get(side, {}))

    def first(self, side: Side, reasons: frozenset[Reason]) -> LeftOut:
        """One that was left out for one of the reasons."""
        return next(self._firsts[side, reason] for reason in Reason if reason in reasons & self._counts[side].keys())
