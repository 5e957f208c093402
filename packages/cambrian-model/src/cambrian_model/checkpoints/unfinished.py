"""A folder that appears under its name only when it is whole, and can be continued until then.

It is written beside its place, with a note of what is being made and what of it is finished, then renamed. One process
writes it at a time.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cambrian_model.checkpoints.foreign import reading
from cambrian_model.errors import CheckpointError

PREFIX = ".unfinished-"
NOTE = "unfinished.json"


class UnfinishedFolder:
    """What is being written.

    Attributes:
        path: Where it lies until it is whole.
        hashes: Hash of every finished file, by name.
    """

    def __init__(self, path: Path, arguments: Mapping[str, Any], hashes: Mapping[str, str]) -> None:
        self.path = path
        self.hashes = dict(hashes)
        self._arguments = arguments

    def record(self, name: str, data_hash: str) -> None:
        """Notes that a file is finished."""
        self.hashes[name] = data_hash
        self.write_note()

    def write_note(self) -> None:
        """Writes the note, at once."""
        text = json.dumps({"arguments": self._arguments, "hashes": self.hashes}, indent=2) + "\n"
        fresh = self.path / f"{NOTE}.new"
        fresh.write_text(text, encoding="utf-8")
        _sync(fresh)
        fresh.replace(self.path / NOTE)


def check_free(destination: Path) -> None:
    """Refuses a place that already holds something.

    Raises:
        CheckpointError: Says what it holds.
    """
    if destination.is_dir() and (found := sorted(path.name for path in destination.iterdir())):
        raise CheckpointError(
            f"{destination}: is not empty, it holds {', '.join(found[:5])}; choose a new folder, or delete it"
        )
    if destination.exists() and not destination.is_dir():
        raise CheckpointError(f"{destination}: is a file; choose a new folder")


@contextmanager
def unfinished_folder(destination: Path, arguments: Mapping[str, Any]) -> Iterator[UnfinishedFolder]:
    """Gives the folder to write into, new or as an interrupted run left it, and puts it in its place at the end.

    A run that fails before it has finished a single file leaves nothing.

    Args:
        destination: Its place.
        arguments: What is being made, as JSON; whoever continues it must want the same.

    Raises:
        CheckpointError: The place is taken, or something else is being made there, or another process makes it.
    """
    check_free(destination)
    path = destination.with_name(PREFIX + destination.name)
    with reading(destination, "a place for a new folder"):
        path.mkdir(parents=True, exist_ok=True)
    with _only_process(path, destination):
        folder = UnfinishedFolder(path, arguments, _known_hashes(path, arguments, destination))
        folder.write_note()
        try:
            yield folder
        except BaseException:
            if not folder.hashes:
                shutil.rmtree(path, ignore_errors=True)
            raise
        _publish(path, destination)


@contextmanager
def _only_process(path: Path, destination: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(f"{destination}: another process is writing it; wait for that, or stop it") from error
        yield
    finally:
        os.close(descriptor)  # which unlocks it


def _known_hashes(path: Path, arguments: Mapping[str, Any], destination: Path) -> dict[str, str]:
    note = path / NOTE
    if not note.is_file():
        if found := sorted(file.name for file in path.iterdir() if file.name != f"{NOTE}.new"):
            raise CheckpointError(
                f"{path}: holds {', '.join(found[:5])} and no note of a conversion; it is somebody else's, or damaged: "
                "move or delete it"
            )
        return {}
    with reading(note, f"the note of a conversion (delete {path} to begin anew)"):
        known = json.loads(note.read_text(encoding="utf-8"))
        hashes: dict[str, str] = dict(known["hashes"])
        wanted: dict[str, Any] = dict(known["arguments"])
    if odd := [key for key in arguments if wanted.get(key) != arguments[key]]:
        raise CheckpointError(
            f"{destination}: an interrupted run left {path}, with {odd[0]} {wanted.get(odd[0])}, not "
            f"{arguments[odd[0]]}; repeat its command to continue it, or delete that folder"
        )
    return hashes


def _publish(path: Path, destination: Path) -> None:
    for file in [*path.rglob("*"), path]:
        _sync(file)
    path.rename(destination)  # over an empty folder, if need be
    with suppress(FileNotFoundError):
        (destination / NOTE).unlink()
    _sync(destination.parent)


def _sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
