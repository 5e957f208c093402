"""Exact search for all pairs of hashes within a number of bits of each other.

The pigeonhole principle: cut the bits into m bands. Two hashes within t = m * r + a bits of each other (a < m) are
within r bits in one of the first a + 1 bands, or within r - 1 in one of the others; else they would differ in more than
t. So the hashes to be found are filed under all keys within that radius of theirs, a table a band, and a query looks up
its own key in each. What is found there is compared in full: nothing is missed, and nothing beyond t is given.

Source: Norouzi, Punjani and Fleet, Fast Exact Search in Hamming Space with Multi-Index Hashing (arXiv 1307.2982), with
the neighbouring keys on the side of the table instead of the query's, so that any number of queries streams by.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np

from cambrian_data.leakage.methods import WORD_BITS

KEY_BITS = (10, 14, 18, 22)  # of a table at most: it has a place for every key, 16 MiB for 22 bits
MAX_ENTRIES = 1 << 24  # of a table
MAX_CANDIDATES = 1 << 17  # compared at a time
QUERY_BLOCK = 1 << 16
EXPECTED_QUERIES = 1_000_000  # for which bands are chosen
LOOKUP_COST, CANDIDATE_COST, ENTRY_COST, KEY_COST = 5.0, 1.0, 10.0, 0.5  # relative to each other, as measured


class Band(NamedTuple):
    """A part of the bits by which hashes are filed.

    Attributes:
        bits: numbers of the bits that make the key, its lowest first.
        radius: bits in which a key may differ from that of the query.
    """

    bits: tuple[int, ...]
    radius: int


class Matches(NamedTuple):
    """Pairs within the threshold, by query and then by entry.

    Attributes:
        query: index of the query.
        entry: index of the hash that was found.
        distance: bits in which the two differ.
    """

    query: np.ndarray
    entry: np.ndarray
    distance: np.ndarray


class Table(NamedTuple):
    """The entries of a band: those filed under key k are `entries[starts[k] : starts[k + 1]]`."""

    band: Band
    starts: np.ndarray
    entries: np.ndarray


class HammingIndex:
    """Hashes to be found.

    Args:
        hashes: (n, words), unsigned 64-bit.
        num_bits: of a hash.
        threshold: largest distance in bits that counts.
    """

    def __init__(self, hashes: np.ndarray, num_bits: int, threshold: int) -> None:
        self._hashes, self._threshold = hashes, threshold
        self._columns = hashes.T.copy()
        self._tables = [to_table(hashes, band) for band in plan(len(hashes), num_bits, threshold)]

    def search(self, queries: np.ndarray) -> Matches:
        """All pairs of a query and a hash within the threshold, each once.

        Args:
            queries: (n, words), as the hashes.
        """
        blocks = [self._search_block(queries, start) for start in range(0, len(queries), QUERY_BLOCK)]
        return Matches(*map(np.concatenate, zip(*blocks, strict=True))) if blocks else self._found(0, [], [])

    def _search_block(self, queries: np.ndarray, start: int) -> Matches:
        block = queries[start : start + QUERY_BLOCK]
        rows, entries = [], []
        columns = block.T.copy()
        for table in self._tables:
            for row, entry in candidates(table, block):
                words = (column[row] ^ held[entry] for column, held in zip(columns, self._columns, strict=True))
                near = np.flatnonzero(sum_words(words) <= self._threshold)
                rows.append(row[near])
                entries.append(entry[near].astype(np.int64))
        matches = self._found(len(self._hashes), rows, entries)
        distance = hamming(block[matches.query], self._hashes[matches.entry])
        return Matches(matches.query + start, matches.entry, distance)

    @staticmethod
    def _found(num_hashes: int, rows: list[np.ndarray], entries: list[np.ndarray]) -> Matches:
        """The pairs, each once: several bands may have found the same."""
        none = np.zeros(0, np.int64)
        pairs = np.unique(np.concatenate([none, *rows]) * num_hashes + np.concatenate([none, *entries]))
        query, entry = np.divmod(pairs, max(num_hashes, 1))
        return Matches(query, entry, np.zeros(len(pairs), np.uint16))


def hamming(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Bits in which hashes differ, pair by pair: two arrays (n, words), or one of a single row, give n."""
    return sum_words(left[:, word] ^ right[:, word] for word in range(left.shape[1]))


def sum_words(differences: Iterable[np.ndarray]) -> np.ndarray:
    """Bits set in any number of words: many times faster than a sum over an axis that is short."""
    first, *others = (np.bitwise_count(words) for words in differences)
    return sum(others, first.astype(np.uint16))


def plan(num_hashes: int, num_bits: int, threshold: int) -> list[Band]:
    """The bands that make search cheapest."""
    plans = [bands(num_bits, threshold, count, most) for count in range(1, threshold + 2) for most in KEY_BITS]
    feasible = [each for each in plans if all(num_hashes * num_keys(band) <= MAX_ENTRIES for band in each)]
    return min(feasible or plans[-1:], key=lambda each: cost(each, num_hashes))


def bands(num_bits: int, threshold: int, count: int, most: int) -> list[Band]:
    """The bits dealt to a number of bands; bands that need not be searched are left out.

    Neighbouring bits, which depend on each other, come into different bands, so that their keys are more evenly used.
    A band keeps a number of bits at most: hashes that are near in all its bits are near in some of them.
    """
    radius, left = divmod(threshold, count)
    radii = [radius] * (left + 1) + [radius - 1] * (count - left - 1)
    return [
        Band(tuple(range(number, num_bits, count))[:most], radius) for number, radius in enumerate(radii) if radius >= 0
    ]


def num_keys(band: Band) -> int:
    """Keys within the band's radius of one key."""
    return sum(math.comb(len(band.bits), flips) for flips in range(band.radius + 1))


def cost(plan: list[Band], num_hashes: int) -> float:
    """Of filing the hashes and of looking up queries, if keys are evenly used."""
    filed = [num_hashes * num_keys(band) for band in plan]
    per_query = sum(
        LOOKUP_COST + CANDIDATE_COST * entries / (1 << len(band.bits))
        for band, entries in zip(plan, filed, strict=True)
    )
    num_places = sum(1 << len(band.bits) for band in plan)
    return ENTRY_COST * sum(filed) + KEY_COST * num_places + EXPECTED_QUERIES * per_query


def to_table(hashes: np.ndarray, band: Band) -> Table:
    """Files the hashes under all keys within the band's radius of theirs."""
    flips = to_flips(band)
    filed = (keys(hashes, band)[:, None] ^ flips[None, :]).ravel()
    order = np.argsort(filed, kind="stable")
    counts = np.bincount(filed, minlength=1 << len(band.bits))
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return Table(band, starts, (order // len(flips)).astype(np.int32))


def keys(hashes: np.ndarray, band: Band) -> np.ndarray:
    """The key of each hash in a band."""
    found = np.zeros(len(hashes), np.uint32)
    for place, bit in enumerate(band.bits):
        word, shift = divmod(bit, WORD_BITS)
        found |= ((hashes[:, word] >> np.uint64(shift)) & np.uint64(1)).astype(np.uint32) << np.uint32(place)
    return found


def to_flips(band: Band) -> np.ndarray:
    """All differences that two keys within the band's radius may have."""
    places = range(len(band.bits))
    chosen = (some for flips in range(band.radius + 1) for some in combinations(places, flips))
    return np.array([sum(1 << place for place in some) for some in chosen], np.uint32)


def candidates(table: Table, queries: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (query, entry) that agree well enough in a band, some at a time."""
    found = keys(queries, table.band)
    counts = table.starts[found + 1] - table.starts[found]
    rows = np.flatnonzero(counts)
    first, counts = table.starts[found[rows]], counts[rows]
    ends = np.cumsum(counts, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.unique(np.searchsorted(ends, np.arange(MAX_CANDIDATES, total, MAX_CANDIDATES)))
    for start, end in pairwise([0, *cuts.tolist(), len(rows)]):
        some = counts[start:end]
        jumps = first[start:end] - (np.cumsum(some) - some)
        yield np.repeat(rows[start:end], some), table.entries[np.arange(some.sum()) + np.repeat(jumps, some)]
