"""Hashing with processes: the same batches, in the same order and with the same result, for any number of them."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cambrian_data.errors import DataError
from cambrian_data.leakage.cache import HashCache, save
from cambrian_data.leakage.methods import Method
from cambrian_data.leakage.pictures import Picture
from cambrian_data.leakage.prints import Batch, make_prints

BATCH = 256
MAX_CELLS = 1024  # of one row group of a Parquet file, which otherwise is read once
AHEAD = 2  # batches a process has before it

Submit = Callable[[list[Picture]], "Future[Batch]"]


class Waiting(NamedTuple):
    """A batch of which some pictures are being hashed."""

    batch: Batch
    unknown: list[int]
    future: Future[Batch] | None


def hash_pictures(pictures: Iterable[Picture], cache: HashCache, submit: Submit, ahead: int) -> Iterator[Batch]:
    """Fingerprints of pictures in their order, from the cache or newly made.

    Args:
        pictures: that exist.
        cache: of their fingerprints.
        submit: what `hashers` gives.
        ahead: batches that may be waited for.

    Raises:
        DataError: if a process is killed, or a batch cannot be kept.
    """
    waiting: deque[Waiting] = deque()
    for batch in in_batches(pictures):
        known, unknown = cache.find(batch)
        with surviving():
            future = submit([batch[index] for index in unknown]) if unknown else None
        waiting.append(Waiting(known, unknown, future))
        while len(waiting) > ahead:
            yield finished(waiting.popleft())
    yield from map(finished, waiting)


@contextmanager
def surviving() -> Iterator[None]:
    """Turns the death of a process into a DataError."""
    try:
        yield
    except BrokenProcessPool as error:
        raise DataError(
            "a process that hashed pictures was killed, perhaps for want of memory; run the same command again with "
            "fewer --processes: what was hashed before is kept."
        ) from error


def finished(waiting: Waiting) -> Batch:
    """The whole batch, once its pictures are hashed."""
    batch, unknown, future = waiting
    if future is None:
        return batch
    with surviving():
        made = future.result()
    batch.prints[unknown] = made.prints
    return batch._replace(problems=batch.problems | {unknown[index]: it for index, it in made.problems.items()})


def in_batches(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    """Batches of 256; up to 1024 pictures of one row group stay together, for it is read as a whole."""
    batch: list[Picture] = []
    for picture in pictures:
        if len(batch) >= MAX_CELLS or (len(batch) >= BATCH and not same_row_group(batch[-1], picture)):
            yield batch
            batch = []
        batch.append(picture)
    if batch:
        yield batch


def same_row_group(left: Picture, right: Picture) -> bool:
    """Whether two pictures lie in the same row group of the same column."""
    if left.cell is None or right.cell is None or left.file != right.file:
        return False
    return left.cell[:2] == right.cell[:2]


def hash_batch(pictures: list[Picture], method: Method, folder: Path) -> Batch:
    """Hashes pictures and keeps their fingerprints: what a process does. The pictures are not sent back."""
    batch = make_prints(pictures, method)
    save(folder, batch)
    return batch._replace(pictures=())


@contextmanager
def hashers(cache: HashCache, processes: int) -> Iterator[tuple[Submit, int]]:
    """Gives what hashes a batch, and how many batches to hand it ahead."""
    method, folder = cache.method, cache.folder
    if processes == 1:

        def submit(pictures: list[Picture]) -> Future[Batch]:
            done: Future[Batch] = Future()
            done.set_result(hash_batch(pictures, method, folder))
            return done

        yield submit, 0
        return
    # "spawn": a forked worker would inherit the locks of the caller's threads.
    pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield lambda pictures: pool.submit(hash_batch, pictures, method, folder), AHEAD * processes
    finally:
        pool.shutdown(cancel_futures=True)
