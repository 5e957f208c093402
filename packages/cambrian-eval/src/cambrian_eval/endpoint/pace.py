"""How fast a server is asked: as many requests at once as it answers without getting slower, and not while it rests.

Additive increase, multiplicative decrease. The number of requests under way doubles every round until the server first
complains, then grows by one a round; it halves when the server is overloaded and shrinks by a fifth when a round took
much longer than the quickest one. Failures of one round count once: they are one overload, seen many times.
"""

from __future__ import annotations

import email.utils
import statistics
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_LIMIT = 8
SLOWER = 3.0  # a round whose median reply took so many times longer than that of the quickest round
PATIENCE = 0.05  # the quickest round's time is forgotten by so much a round: servers and questions change


class Pace:
    """The number of requests that may be under way, and the moment before which none may start.

    Args:
        most: Never more requests at once than this.
        clock: Seconds that only grow.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._limit = float(min(FIRST_LIMIT, most))
        self._doubling = True
        self._changed_at = float("-inf")
        self._seconds: list[float] = []
        self._quickest = float("inf")
        self._resume_at = float("-inf")

    @property
    def limit(self) -> int:
        """How many requests may be under way now."""
        return max(1, int(self._limit))

    def rest(self) -> float:
        """Seconds that the server still wants to be left alone."""
        return max(0.0, self._resume_at - self._clock())

    def pause(self, seconds: float) -> None:
        """The server asked to be left alone for so long."""
        self._resume_at = max(self._resume_at, self._clock() + seconds)

    def answered(self, started: float) -> None:
        """A request that started then has been answered now."""
        self._seconds.append(self._clock() - started)
        if len(self._seconds) < self.limit:
            return
        took, self._seconds = statistics.median(self._seconds), []
        self._quickest = min(self._quickest * (1 + PATIENCE), took)
        if took > SLOWER * self._quickest:
            self._shrink(0.8)
        else:
            self._limit = min(self._most, 2 * self._limit if self._doubling else self._limit + 1)

    def overloaded(self, started: float) -> None:
        """A request that started then found the server overloaded, failing or silent."""
        if started > self._changed_at:
            self._shrink(0.5)

    def _shrink(self, factor: float) -> None:
        self._limit = max(1.0, self._limit * factor)
        self._doubling = False
        self._seconds = []
        self._changed_at = self._clock()


def read_retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds a number or a date; None if there is none that can be read."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
