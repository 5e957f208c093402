"""Lots: seeded draws that depend on what is drawn for, not on when.

A lot is a hash of seed and key, so adding a picture does not change the draw for another, and no order of reading,
process or version of Python matters.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import TypeVar

Drawn = TypeVar("Drawn")


def lot(seed: int, *key: object) -> int:
    """A number that looks random, 0 to 2**64 - 1."""
    return int.from_bytes(blake2b(repr((seed, *key)).encode(), digest_size=8).digest(), "big")


def shuffled(items: Iterable[Drawn], seed: int, *key: object) -> list[Drawn]:
    """The items in a drawn order, which does not depend on the order given if their reprs differ.

    The lot of an item is `lot(seed, *key, item)`; what all items share is hashed once.
    """
    shared = blake2b("".join(("(", *(f"{part!r}, " for part in (seed, *key)))).encode(), digest_size=8)

    def drawn(item: Drawn) -> bytes:
        digest = shared.copy()
        digest.update(f"{item!r})".encode())
        return digest.digest()

    return sorted(items, key=drawn)
