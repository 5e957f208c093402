"""One audit at work: benchmarks are read first, then training sets stream by."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from cambrian_data.errors import DataError
from cambrian_data.leakage.cache import HashCache
from cambrian_data.leakage.gallery import Gallery, Pair, Shown
from cambrian_data.leakage.hashing import Submit, hash_pictures
from cambrian_data.leakage.left_out import Account, Role, Side
from cambrian_data.leakage.ngrams import WordingIndex
from cambrian_data.leakage.pictures import Exchange, LeftOut, Picture, Reason, found_in
from cambrian_data.leakage.prints import Batch, has_information
from cambrian_data.leakage.questions import Found, QuestionSearch, Shared
from cambrian_data.leakage.sets import PictureSet
from cambrian_data.leakage.summary import (
    AuditSummary,
    QuestionOverlap,
    Request,
    SetSummary,
    drawings,
    overlaps,
)

PROGRESS_STEP = 64
LOST = frozenset({Reason.MISSING, Reason.BROKEN, Reason.UNREADABLE})
"""Reasons for which a picture that a set names was not seen; it counts as one of the set's all the same."""

Progress = Callable[[str, int, int], None]
Item = TypeVar("Item")


class Text(NamedTuple):
    """A question of a benchmark that a training set asks too.

    Attributes:
        benchmark: number of its set.
        training: number of the training set.
        question: of the benchmark.
        found: the training question.
    """

    benchmark: int
    training: int
    question: Exchange
    found: Found


class Findings(NamedTuple):
    """What an audit found.

    Attributes:
        summary: in numbers.
        shown: the benchmarks' pictures.
        pairs: the nearest first.
        texts: those that are most of a leak first.
        left_out: the first of what was not compared.
    """

    summary: AuditSummary
    shown: Sequence[Shown]
    pairs: Sequence[Pair]
    texts: Sequence[Text]
    left_out: Sequence[tuple[Side, LeftOut]]


class Auditor:
    """One audit.

    Args:
        request: what is asked.
        cache: of fingerprints.
        submit: hashes a batch.
        ahead: batches that may be waited for.
        account: of what is left out.
        progress: called with what is being read, how much of it is done, and how much there is.
    """

    def __init__(
        self,
        request: Request,
        cache: HashCache,
        submit: Submit,
        ahead: int,
        account: Account,
        progress: Progress | None,
    ) -> None:
        self._request, self._cache, self._submit, self._ahead = request, cache, submit, ahead
        self._account, self._progress = account, progress
        self._gallery = Gallery(cache.method, request.threshold)
        self._named: Counter[Side] = Counter()
        self._asked: Counter[Side] = Counter()

    def compare(
        self, benchmarks: Sequence[PictureSet], training: Sequence[PictureSet], source_images: Sequence[Path]
    ) -> Findings:
        """Reads everything and finds what is shared.

        Raises:
            DataError: if a set holds no usable picture, or the pairs are too many to be read.
        """
        ours = [Side(Role.BENCHMARK, number, each.name) for number, each in enumerate(benchmarks)]
        theirs = [Side(Role.TRAINING, number, each.name) for number, each in enumerate(training)]
        for side, benchmark in zip(ours, benchmarks, strict=True):
            self._collect(side, benchmark, source_images)
        self._gallery.index()
        self._tell_uninformed(ours)
        pairs = [pair for side, each in zip(theirs, training, strict=True) for pair in self._find_pictures(side, each)]
        pairs.sort(key=lambda pair: (pair.distance, not pair.exact, pair.number, pair.training, pair.picture.name))
        questions, texts = self._compare_questions(ours, benchmarks, theirs, training, pairs)
        texts.sort(key=lambda text: text.found.rank, reverse=True)
        held = [self._held(side, each) for side, each in zip(ours, benchmarks, strict=True)]
        seen = [self._held(side, each) for side, each in zip(theirs, training, strict=True)]
        summary = AuditSummary(
            request=self._request,
            benchmarks=held,
            training=seen,
            overlaps=list(overlaps(self._gallery.shown, pairs, held, seen, self._request.threshold)),
            questions=questions,
            drawings=drawings(self._gallery, held),
            num_pairs=len(pairs),
            num_texts=len(texts),
        )
        return Findings(summary, self._gallery.shown, pairs, texts, self._account.examples)

    # Pictures.

    def _collect(self, side: Side, benchmark: PictureSet, source_images: Sequence[Path]) -> None:
        """Takes the pictures of a benchmark, and what they were drawn on."""
        drawn_on: dict[str, list[int]] = defaultdict(list)
        for batch in self._hash_set(side, benchmark):
            for index, picture in enumerate(batch.pictures):
                number = self._gallery.add(side.number, picture, usable_row(batch, index))
                if picture.source:
                    drawn_on[picture.source].append(number)
        if not source_images:
            return
        source = side._replace(role=Role.SOURCE)
        files = enumerate((found_in(source_images, name) for name in drawn_on), start=1)
        for batch in self._hash(source, self._listing(source, f"sources of {side.name}", len(drawn_on), files)):
            for index, picture in enumerate(batch.pictures):
                row = usable_row(batch, index)
                for number in drawn_on[picture.name] if len(row) else ():
                    self._gallery.add_view(number, row, is_source=True)

    def _tell_uninformed(self, ours: Sequence[Side]) -> None:
        for view in self._gallery.uninformed():
            shown = self._gallery.shown[view.number]
            side = ours[shown.benchmark]._replace(role=Role.SOURCE if view.is_source else Role.BENCHMARK)
            self._account.add(side, no_information(shown.picture))

    def _find_pictures(self, side: Side, training: PictureSet) -> Iterator[Pair]:
        """Finds the near-duplicates in a training set."""
        if not self._gallery.shown:
            self._tell_unreadable(side, training)
            return
        uninformed: list[LeftOut] = []
        for batch in self._hash_set(side, training):
            yield from self._gallery.pairs(side.number, batch)
            informed = has_information(batch.prints, self._cache.method, self._request.threshold)
            silent = np.flatnonzero(batch.prints["usable"] & ~informed).tolist()
            uninformed.extend(no_information(batch.pictures[index]) for index in silent)
        for left_out in uninformed:
            self._account.add(side, left_out)

    def _tell_unreadable(self, side: Side, training: PictureSet) -> None:
        """Tells what is left out of a set whose pictures nobody asks about: bad records and foreign files."""
        for item in self._watched(f"records of {side.name}", training.size(), training.pictures()):
            if isinstance(item, LeftOut) and item.reason not in LOST:
                self._account.add(side, item)

    def _hash_set(self, side: Side, each: PictureSet) -> Iterator[Batch]:
        """The fingerprints of a set.

        Raises:
            DataError: if it names pictures and none of them can be read.
        """
        self._named[side] = 0
        yield from self._hash(side, self._listing(side, f"pictures of {side.name}", each.size(), each.pictures()))
        lost = sum(count for reason, count in self._account.counts(side).items() if reason in LOST)
        if lost and lost == self._named[side]:
            first = self._account.first(side, LOST)
            raise DataError(
                f"{side.name}: none of its {lost} pictures can be read; the first: {first.name}: {first.detail} "
                "Check the set, and --images if it names files."
            )

    def _hash(self, side: Side, listing: Iterator[Picture]) -> Iterator[Batch]:
        """Hashes; what is wrong with pictures is told at the end, so that its order does not depend on processes."""
        problems: list[LeftOut] = []
        for batch in hash_pictures(listing, self._cache, self._submit, self._ahead):
            problems.extend(batch.problems[index] for index in sorted(batch.problems))
            yield batch
        for problem in problems:
            self._account.add(side, problem)

    def _listing(
        self, side: Side, label: str, total: int, listed: Iterator[tuple[int, Picture | LeftOut]]
    ) -> Iterator[Picture]:
        """The pictures that are there; those that are not are told."""
        for picture in self._watched(label, total, listed):
            if isinstance(picture, LeftOut):
                self._named[side] += picture.reason in LOST
                self._account.add(side, picture)
            else:
                self._named[side] += 1
                yield picture

    # Questions.

    def _compare_questions(
        self,
        ours: Sequence[Side],
        benchmarks: Sequence[PictureSet],
        theirs: Sequence[Side],
        training: Sequence[PictureSet],
        pairs: Sequence[Pair],
    ) -> tuple[list[QuestionOverlap], list[Text]]:
        """Finds the benchmarks' questions in each training set."""
        asked = [list(self._exchanges(side, each)) for side, each in zip(ours, benchmarks, strict=True)]
        if not any(asked):
            return [], []
        n, least = self._request.ngram, self._request.text_threshold
        indexes = [WordingIndex((each.question for each in some), n, least) for some in asked]
        counted, texts = list[QuestionOverlap](), list[Text]()
        for side, each in zip(theirs, training, strict=True):
            shared = self._shared(side, pairs)
            searches = [
                QuestionSearch(some, index, shared[number])
                for number, (some, index) in enumerate(zip(asked, indexes, strict=True))
            ]
            for exchange in self._exchanges(side, each):
                for search in searches:
                    search.look_at(exchange)
            for benchmark, search in zip(ours, searches, strict=True):
                if self._asked[side] and self._asked[benchmark]:
                    counted.append(search.overlap(benchmark.name, side.name))
                    texts.extend(
                        Text(benchmark.number, side.number, asked[benchmark.number][found.question], found)
                        for found in search.found()
                    )
        return counted, texts

    def _exchanges(self, side: Side, each: PictureSet) -> Iterator[Exchange]:
        self._asked[side] = 0
        for exchange in self._watched(f"questions of {side.name}", each.size(), each.exchanges()):
            if isinstance(exchange, LeftOut):
                self._account.add(side, exchange)
            else:
                self._asked[side] += 1
                yield exchange

    def _shared(self, side: Side, pairs: Sequence[Pair]) -> dict[int, Shared]:
        """By benchmark and link of a training picture: the benchmark's pictures that it is a near-duplicate of."""
        links: dict[int, Shared] = defaultdict(lambda: defaultdict(set))
        for pair in pairs:
            if pair.training == side.number:
                shown = self._gallery.shown[pair.number]
                links[shown.benchmark][pair.picture.link].add(shown.picture.link)
        return links

    # Both.

    def _watched(self, label: str, total: int, items: Iterator[tuple[int, Item]]) -> Iterator[Item]:
        """The items, with progress told."""
        for count, (done, item) in enumerate(items):
            if count % PROGRESS_STEP == 0:
                self._tell(label, min(done, total), total)
            yield item
        self._tell(label, total, total)

    def _tell(self, label: str, done: int, total: int) -> None:
        if self._progress is not None and total:
            self._progress(label, done, total)

    def _held(self, side: Side, each: PictureSet) -> SetSummary:
        counts = self._account.counts
        return SetSummary(
            name=each.name,
            kind=each.kind,
            pictures=self._named.get(side),
            questions=self._asked.get(side),
            left_out=dict(sorted(counts(side).items())),
            sources_left_out=dict(sorted(counts(side._replace(role=Role.SOURCE)).items())),
        )


def usable_row(batch: Batch, index: int) -> np.ndarray:
    """The picture's fingerprint as a table of one row, or of none if it cannot be read."""
    row = batch.prints[index : index + 1]
    return row[row["usable"]]


def no_information(picture: Picture) -> LeftOut:
    """A picture of which a near-duplicate would say nothing."""
    detail = "flat, or nearly so: its hash is near that of any flat picture; only the very same file counts as found."
    return LeftOut(picture.name, Reason.NO_INFORMATION, detail)
