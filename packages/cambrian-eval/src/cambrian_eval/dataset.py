"""Finds the files of one split in a hub snapshot or a user's folder, and reads their rows.

The same split may lie there in any of the forms below; the first one found is read:

    {config}/{split}-*.parquet   data/{split}-*.parquet        shards, as the hub stores them
    {config}/{split}.parquet     {config}/{split}.jsonl        one file
    {config}_{split}.parquet     {config}_{split}.jsonl        one file, folders flattened
    {config}/{split}/metadata.jsonl (or .csv)                  imagefolder: pictures beside the table that names them
    {config}/metadata.jsonl (or .csv)                          imagefolder without splits

Without a configuration its folder is the data's own. Pictures stand in the table as bytes, or as names of files in the
table's folder.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cambrian_eval.errors import DataError
from cambrian_eval.picture import Album
from cambrian_eval.rows import read_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cambrian_eval.metrics import Metrics
    from cambrian_eval.rows import Row
    from cambrian_eval.types import Question

PICTURE = "image"
"""The column that imagefolder's `file_name` stands for."""

_TABLES = (".parquet", ".jsonl")
_METADATA = ("metadata.jsonl", "metadata.csv")
_SHARD = re.compile(r"-(\d+)-of-(\d+)")
_MOST_NAMED = 12


def read_split(
    folder: Path,
    split: str,
    fields: Sequence[str],
    *,
    config: str = "",
    optional: Sequence[str] = (),
) -> Iterator[Row]:
    """Read the rows of a split, in order; of Parquet only the named columns.

    Args:
        folder: A hub snapshot or a user's folder.
        split: Such as `test`.
        fields: Fields that every row must have. `image` may be given by imagefolder's `file_name`.
        config: The hub's name of a part of the repository; empty for one without parts.
        optional: Further fields to read where they are there.

    Raises:
        DataError: The split is not there, a shard or a field is missing, a file cannot be read or has no rows.
    """
    files = find_split(folder, split, config)
    album = Album(files[0].parent)
    rows = 0
    for path in files:
        named = path.name in _METADATA
        required = ["file_name" if named and name == PICTURE else name for name in fields]
        for row in read_rows(path, required, optional, album):
            rows += 1
            yield row
    if not rows:
        raise DataError(f"{files[0]}: a file without questions; found 0 rows, expected at least one.")


def find_split(folder: Path, split: str, config: str = "") -> list[Path]:
    """The files of a split, in order.

    Raises:
        DataError: There is none, naming what was found and what was looked for; or a shard is missing.
    """
    for shards in _shards(folder, split, config):
        _check_shards(shards)
        return shards
    for path in _single_files(folder, split, config):
        if path.is_file():
            return [path]
    raise DataError(_nothing(folder, split, config))


def has_split(folder: Path, split: str, config: str = "") -> bool:
    """Whether the split is there in one of the forms."""
    return any(_shards(folder, split, config)) or any(path.is_file() for path in _single_files(folder, split, config))


def unique(folder: Path, questions: Iterable[Question]) -> list[Question]:
    """The questions, every id once.

    Raises:
        DataError: Two questions have one id.
    """
    found: dict[str, Question] = {}
    for question in questions:
        if question.id in found:
            raise DataError(f"{folder}: question id {question.id} occurs twice; every question needs its own.")
        found[question.id] = question
    return list(found.values())


def size_note(found: int, published: int | None) -> dict[str, Any]:
    """For a task's summary: whether all of the published questions, and no others, were scored."""
    return {"expected_n": published, "published": found == published}


def sized(metrics: Metrics, published: int | None) -> Metrics:
    """The metrics with that note, whose first row is the score over all scored questions."""
    scored = metrics.rows[0].n if metrics.rows else 0
    return dataclasses.replace(metrics, summary={**metrics.summary, **size_note(scored, published)})


def _shards(folder: Path, split: str, config: str) -> Iterator[list[Path]]:
    places = (folder / config,) if config else (folder, folder / "data")
    yield from filter(None, (sorted(place.glob(f"{split}-*.parquet")) for place in places))


def _single_files(folder: Path, split: str, config: str) -> Iterator[Path]:
    base = folder / config
    yield from (base / f"{split}{suffix}" for suffix in _TABLES)
    if config:
        yield from (folder / f"{config}_{split}{suffix}" for suffix in _TABLES)
    yield from (base / split / name for name in _METADATA)
    yield from (base / name for name in _METADATA)


def _check_shards(shards: Sequence[Path]) -> None:
    """A download that stopped half-way must not become a smaller benchmark."""
    numbered = [(path, _SHARD.search(path.name)) for path in shards]
    found = [(int(match[1]), int(match[2])) for _, match in numbered if match]
    if not found:
        return
    total = found[0][1]
    if sorted(found) != [(number, total) for number in range(total)] or len(found) != len(shards):
        names = ", ".join(path.name for path in shards[:_MOST_NAMED])
        raise DataError(
            f"{shards[0].parent}: found the shards {names}; expected each of {total} exactly once. Download the split "
            "again, or remove what belongs to another version."
        )


def _nothing(folder: Path, split: str, config: str) -> str:
    base = f"{config}/" if config else ""
    forms = (f"{base or 'data/'}{split}-*.parquet", f"{base}{split}.parquet", f"{base}{split}.jsonl")
    wanted = f"{', '.join(forms)} or {base}{split}/metadata.jsonl"
    part = f" of '{config}'" if config else ""
    found = _found_splits(folder, config)
    if found:
        shown = ", ".join(f"'{name}' ({file})" for name, file in found.items())
        return f"{folder}: found split {shown}; needed split '{split}'{part}: {wanted}."
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    shown = ", ".join(names[:_MOST_NAMED]) or "nothing"
    return f"{folder}: a folder without questions{part}; found {shown}; needed split '{split}': {wanted}."


def _found_splits(folder: Path, config: str) -> dict[str, str]:
    """The splits that are there, each with one of its files."""
    splits: dict[str, str] = {}
    others = folder.glob(f"{config}_*") if config else (folder / "data").glob("*")
    for path in sorted([*(folder / config).glob("*"), *others]):
        if path.suffix in _TABLES and path.name not in _METADATA:
            stem = path.stem.removeprefix(f"{config}_") if config else path.stem
            splits.setdefault(re.split(r"-\d", stem)[0], str(path.relative_to(folder)))
        elif any((path / name).is_file() for name in _METADATA):
            splits.setdefault(path.name, str(path.relative_to(folder)))
    return splits
