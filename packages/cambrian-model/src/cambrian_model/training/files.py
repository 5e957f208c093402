"""Files and folders that are there whole or not at all, whatever kills the process that writes them.

What is being written lies beside its place under a name that begins with `UNFINISHED`, is waited for until it is on the
disk, and is then renamed. A folder that must be whole to be of use also gets a marker, last, which lists its files.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import xxhash
from safetensors import SafetensorError

from cambrian_model.errors import TrainingError

MARKER = "COMPLETE"
UNFINISHED = ".unfinished-"  # prefix of what is being written, or being deleted
CONDEMNED = "-removed"  # suffix, beside the prefix, of what is being deleted
CHUNK = 1 << 22  # bytes read at once


class FileFacts(NamedTuple):
    """What tells one content of a file from another: its size in bytes, and its hash (xxh3)."""

    size: int
    xxh3: str


@contextmanager
def atomic_folder(path: Path, what: str) -> Iterator[Path]:
    """Gives a folder to write into that takes its place at `path` only when it is whole.

    Raises:
        TrainingError: The disk is full, or a file cannot be written; says `what` was being written.
    """
    unfinished = unfinished_path(path)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        yield unfinished
        sync_folder(unfinished)
        publish(unfinished, path)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise TrainingError(
            f"could not write {what} {path}: {error}; what was written before is untouched: "
            "free disk space, or mend that; then repeat the command (a training run: with --resume)"
        ) from error


def unfinished_path(path: Path) -> Path:
    """Returns where a file or folder lies while it is written."""
    return path.with_name(UNFINISHED + path.name)


def publish(unfinished: Path, path: Path) -> None:
    """Gives a finished folder its name; one that has the name already is deleted."""
    if path.exists():
        _condemn(path)
    unfinished.rename(path)
    sync(path.parent)
    shutil.rmtree(_condemned(path), ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Deletes a folder such that no half of it is ever seen under its name."""
    shutil.rmtree(_condemn(path), ignore_errors=True)


def sweep_folders(parent: Path) -> None:
    """Ends what a killed process left in `parent`: a marked folder that was only not yet renamed, is; all else goes."""
    for left in sorted(parent.glob(f"{UNFINISHED}*")):
        path = left.with_name(left.name.removeprefix(UNFINISHED))
        if is_complete(left) and not path.exists() and not left.name.endswith(CONDEMNED):
            publish(left, path)
        elif left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def write_marker(folder: Path, files: Mapping[str, FileFacts]) -> None:
    """Declares a folder whole: it holds these files.

    Raises:
        OSError: A file is missing, or the disk is full.
    """
    for name, facts in files.items():
        if (size := (folder / name).stat().st_size) != facts.size:
            raise OSError(f"{folder / name} has {size} bytes, {facts.size} were written")
    write_json(folder / MARKER, {name: facts._asdict() for name, facts in files.items()})


def read_marker(folder: Path) -> dict[str, FileFacts]:
    """Returns the files that a folder holds; none if it has no marker."""
    try:
        listed = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return {name: FileFacts(**facts) for name, facts in listed.items()}
    except (OSError, ValueError, TypeError, AttributeError):  # absent, or itself damaged
        return {}


def is_complete(folder: Path) -> bool:
    """Tells whether a folder was written to its end: it has the marker, and every file has its size."""
    files = read_marker(folder)
    return bool(files) and not any(_size(folder / name) != facts.size for name, facts in files.items())


def check_files(folder: Path, files: Mapping[str, FileFacts]) -> None:
    """Reads files and compares them with what was written.

    Raises:
        OSError: One has another size or content; names it.
    """
    for name, facts in files.items():
        if (size := _size(folder / name)) != facts.size:
            raise OSError(
                f"{name} {'is missing' if size is None else f'has {size} bytes'}, expected {facts.size} bytes"
            )
        if file_facts(folder / name) != facts:
            raise OSError(f"{name} has another content than was written")


def file_facts(path: Path) -> FileFacts:
    """Reads a file, a piece at a time."""
    digest = xxhash.xxh3_64()
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return FileFacts(size, digest.hexdigest())


def write_text(path: Path, text: str) -> None:
    """Writes a small file at once: it is there whole, or as it was.

    Raises:
        TrainingError: The disk is full, or the file cannot be written.
    """
    unfinished = unfinished_path(path)
    try:
        unfinished.write_text(text, encoding="utf-8")
        sync(unfinished)
        unfinished.replace(path)
    except OSError as error:
        raise TrainingError(f"could not write {path}: {error}; free disk space, then continue with --resume") from error


def write_json(path: Path, value: Any) -> None:
    """Writes JSON at once, see `write_text`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Waits until a folder and everything in it is on the disk."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def _condemned(path: Path) -> Path:
    return path.with_name(UNFINISHED + path.name + CONDEMNED)


def _condemn(path: Path) -> Path:
    condemned = _condemned(path)
    shutil.rmtree(condemned, ignore_errors=True)
    return path.rename(condemned)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):  # also when it is deleted while one looks
        return None
