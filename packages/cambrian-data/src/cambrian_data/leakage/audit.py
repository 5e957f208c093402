"""The audit: which pictures and questions of benchmarks occur in training sets, near enough to be known by heart.

Reading order: contents, sets, pictures and parquet (what is read), methods and prints (what is compared), cache and
hashing, search and gallery (pictures), dialogues, ngrams and questions (texts), auditor, then summary, report and page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cambrian_data.errors import DataError
from cambrian_data.leakage import left_out
from cambrian_data.leakage.auditor import Auditor, Progress
from cambrian_data.leakage.cache import HashCache
from cambrian_data.leakage.hashing import hashers
from cambrian_data.leakage.methods import check_threshold, imagehash, to_method
from cambrian_data.leakage.report import write_report
from cambrian_data.leakage.sets import open_set
from cambrian_data.leakage.summary import AuditSummary, Request
from cambrian_data.leakage.tables import TableFile

HASHES, LEFT_OUT = "hashes", "left_out.csv"


def audit(
    benchmarks: Sequence[Path],
    training: Sequence[Path],
    output: Path,
    *,
    images: Sequence[Path] = (),
    source_images: Sequence[Path] = (),
    hash: str = "dhash",
    hash_size: int = 8,
    threshold: int | None = None,
    ngram: int = 8,
    text_threshold: float = 0.7,
    processes: int = 1,
    pairs_shown: int = 30,
    progress: Progress | None = None,
) -> AuditSummary:
    """Compares benchmarks with training sets and writes tables and a page of what they share.

    Args:
        benchmarks: each a folder in CV-Bench's layout, a folder of pictures or of Parquet files, a Parquet file,
            records in LLaVA's or chat form, or CV-Bench's rows.
        training: the same.
        output: folder for tables, page and hashes; made if missing; empty, or of an earlier audit, finished or not.
        images: folders in which image paths of records begin, tried in order; beside the records if none are given.
        source_images: folders of what CV-Bench's pictures were drawn on, as `source_filename` names it: these are
            compared beside the pictures as they are shown.
        hash: perceptual hash: dhash (the paper's), phash, ahash or whash.
        hash_size: side of the hash's square of bits.
        threshold: largest distance in bits of a near-duplicate; a sixteenth of the bits if None.
        ngram: words of an n-gram of questions.
        text_threshold: smallest share of a question's n-grams that must occur in one training question.
        processes: that hash pictures; the result does not depend on it.
        pairs_shown: on the page, at each distance.
        progress: called with what is being read, how much of it is done, and how much there is.

    Raises:
        DataError: if an argument is out of range, a set is given twice on the same side, cannot be read or holds no
            usable picture, ImageHash is not installed, or the folder holds something else or cannot be written.
    """
    method = to_method(hash, hash_size)
    threshold = method.default_threshold if threshold is None else threshold
    check_threshold(method, threshold)
    check_arguments(benchmarks, training, ngram, text_threshold, processes, pairs_shown)
    for role, paths in (("benchmark", benchmarks), ("training set", training)):
        refuse_repeated(role, paths)
    imagehash()  # before anything is read or written
    roots, sources = [Path(root) for root in images], [Path(root) for root in source_images]
    ours, theirs = ([open_set(Path(path), roots) for path in paths] for paths in (benchmarks, training))
    request = Request(
        benchmarks=[each.name for each in ours],
        training=[each.name for each in theirs],
        images=[str(root) for root in roots],
        source_images=[str(root) for root in sources],
        hash=method.name,
        hash_size=method.side,
        threshold=threshold,
        ngram=ngram,
        text_threshold=text_threshold,
    )
    output = Path(output)
    with keeping(output):
        claim(output)
        cache = HashCache(output / HASHES / f"{method.name}-{method.side}", method)
        with TableFile(output / LEFT_OUT, left_out.COLUMNS) as table, hashers(cache, processes) as (submit, ahead):
            auditor = Auditor(request, cache, submit, ahead, left_out.Account(table), progress)
            findings = auditor.compare(ours, theirs, sources)
        cache.join()
        write_report(output, findings, pairs_shown)
    return findings.summary


def check_arguments(
    benchmarks: Sequence[Path],
    training: Sequence[Path],
    ngram: int,
    text_threshold: float,
    processes: int,
    pairs_shown: int,
) -> None:
    """Raises DataError for an argument that is out of range."""
    if not benchmarks or not training:
        raise DataError(f"found {len(benchmarks)} benchmarks and {len(training)} training sets; name one of each.")
    if ngram < 1:
        raise DataError(f"ngram is {ngram}; expected at least 1 word.")
    if not 0 < text_threshold <= 1:
        raise DataError(f"text threshold is {text_threshold}; expected more than 0 and at most 1.")
    if processes < 1:
        raise DataError(f"processes is {processes}; expected at least 1.")
    if pairs_shown < 0:
        raise DataError(f"pairs shown is {pairs_shown}; expected 0 or more.")


def refuse_repeated(role: str, paths: Sequence[Path]) -> None:
    """Raises DataError for a set that is given twice on one side: all of its pairs would be counted twice."""
    seen: dict[Path, Path] = {}
    for path in map(Path, paths):
        place = path.resolve()
        if place in seen:
            also = "" if seen[place] == path else f", once as {seen[place]}"
            raise DataError(f"{role} {path} is given twice{also}; once will do.")
        seen[place] = path


@contextmanager
def keeping(output: Path) -> Iterator[None]:
    """Turns a full disk, a folder out of reach and the like into a DataError that names the file."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot use {error.filename or output}: {error.strerror or error}. Mend this and run the same command "
            "again: what was hashed before is kept."
        ) from error


def claim(output: Path) -> None:
    """Makes the folder, or refuses one that holds something else."""
    if output.exists() and not output.is_dir():
        raise DataError(f"{output} is a file; expected a folder for the audit.")
    if output.is_dir() and any(output.iterdir()) and not (output / HASHES).is_dir():
        raise DataError(f"{output} is not empty and holds no audit; choose an empty or a new folder.")
    output.mkdir(parents=True, exist_ok=True)
