"""A folder that is made once: marked while it is made, finished by its manifest, never touched again.

The same request on a finished folder only reads the manifest; on an unfinished one it starts anew, which gives the same
bytes; another request is refused, unless nothing was written yet. While one process makes a folder, others are refused.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Generic, NamedTuple, TypeVar

import msgspec

from cambrian_data.errors import DataError
from cambrian_data.records import shown
from cambrian_data.scenes.generate import write_atomically, writing


class Kind(NamedTuple):
    """What a folder holds, in a word, and the names of its two files."""

    what: str
    manifest: str
    marker: str


CANNOT_LOCK = (errno.ENOLCK, errno.ENOTSUP, errno.EBADF, errno.EINVAL)  # of file systems that lock no folders
CHUNK = 1 << 20  # bytes read at once

QUESTIONS = Kind("questions", "cvbench.json", "cvbench.unfinished")

Request = TypeVar("Request", bound=msgspec.Struct)
Summary = TypeVar("Summary", bound=msgspec.Struct)


class Manifest(msgspec.Struct, Generic[Request, Summary], frozen=True):
    """What a finished folder was asked for and what it holds."""

    request: Request
    summary: Summary


class Writer:
    """Writes files into the folder and keeps account of them."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._digest = hashlib.sha256()
        self._made: set[Path] = set()
        self.num_pictures = 0

    def picture(self, name: str, content: bytes) -> None:
        """Writes a picture."""
        path = self._output / name
        if path.parent not in self._made:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(path.parent)
        path.write_bytes(content)
        self.num_pictures += 1
        self._digest.update(content)

    def table(self, name: str, content: bytes) -> None:
        """Writes a table that is either whole or not there."""
        write_atomically(self._output / name, content)
        self._digest.update(content)

    @contextmanager
    def stream(self, name: str) -> Iterator[BinaryIO]:
        """A file that is written piece by piece, and has its name only when it is whole."""
        path = self._output / name
        temporary = path.with_name(path.name + ".tmp")
        with temporary.open("wb") as file:
            yield file
        with temporary.open("rb") as file:
            while chunk := file.read(CHUNK):
                self._digest.update(chunk)
        temporary.replace(path)

    @property
    def content_hash(self) -> str:
        """SHA-256 over the bytes of everything written, in order."""
        return self._digest.hexdigest()


def make_once(
    output: Path,
    request: Request,
    form: type[Summary],
    make: Callable[[Writer], Summary],
    missing: Callable[[Summary], str | None],
    kind: Kind = QUESTIONS,
) -> Summary:
    """Makes the folder, or gives the summary of one that is finished.

    Args:
        output: made if missing; must be empty, or made for the same request, finished or not.
        request: everything that determines the bytes.
        form: of the summary.
        make: writes the files.
        missing: what a finished folder with this summary lacks, in words; None if it is whole.
        kind: what the folder holds.

    Raises:
        DataError: if the folder holds something else or cannot be written.
    """
    with writing(output), alone_in(output, kind):
        finished = claim(output, request, form, missing, kind)
        if finished is not None:
            return finished
        summary = make(Writer(output))
        content = msgspec.json.format(msgspec.json.encode(Manifest(request, summary)), indent=2)
        write_atomically(output / kind.manifest, content + b"\n")
        (output / kind.marker).unlink()
    return summary


@contextmanager
def alone_in(output: Path, kind: Kind) -> Iterator[None]:
    """Keeps other processes from making the same folder; the lock ends with the process and leaves no file behind.

    Some network file systems cannot lock a folder; there it keeps nobody out.

    Raises:
        DataError: if the folder is a file, or another process is making it.
    """
    if output.exists() and not output.is_dir():
        raise DataError(f"{output} is a file; expected a folder to write {kind.what} to.")
    output.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(output, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise DataError(f"another process writes to {output}; wait until it ends, or choose another folder.") from error
    except OSError as error:
        if error.errno not in CANNOT_LOCK:
            os.close(descriptor)
            raise
    try:
        yield
    finally:
        os.close(descriptor)


def claim(
    output: Path, request: Request, form: type[Summary], missing: Callable[[Summary], str | None], kind: Kind
) -> Summary | None:
    """Marks the folder as this request's, or gives the summary if it is finished; refuses one of something else."""
    marker, wanted = output / kind.marker, msgspec.json.encode(request)
    if (output / kind.manifest).exists():
        return finished_summary(output, request, form, missing, kind)
    if marker.exists():
        is_begun = any(path != marker for path in output.iterdir())
        if is_begun and marker.read_bytes() != wanted:
            raise DataError(f"{output} holds unfinished {kind.what} of another request; choose another folder.")
    elif any(output.iterdir()):
        raise DataError(f"{output} is not empty and holds no {kind.what}; choose an empty or a new folder.")
    write_atomically(marker, wanted)
    return None


def finished_summary(
    output: Path, request: Request, form: type[Summary], missing: Callable[[Summary], str | None], kind: Kind
) -> Summary:
    """The manifest's content, if it is this request's and its files are there."""
    path = output / kind.manifest
    try:
        document = msgspec.json.decode(path.read_bytes())
        held, wanted = document["request"], msgspec.to_builtins(request)
        if held != wanted:
            raise DataError(f"{output} holds other {kind.what}: {differences(held, wanted)}; choose another folder.")
        summary = msgspec.convert(document["summary"], form)
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not a manifest of {kind.what} ({error}); choose another folder.") from error
    lack = missing(summary)
    if lack is not None:
        raise DataError(f"{lack} missing from finished {kind.what}; delete {output} and make it again.")
    return summary


def differences(held: dict[str, object], wanted: dict[str, object]) -> str:
    """The first few keys in which two requests differ, with both values."""
    keys = [key for key in {**held, **wanted} if held.get(key) != wanted.get(key)]
    return ", ".join(f"{key} {shown(held.get(key))}, not {shown(wanted.get(key))}" for key in keys[:3])


def lack(output: Path, tables: Sequence[str], num_pictures: int) -> str | None:
    """What a finished folder of questions lacks, in words; None if nothing."""
    for name in tables:
        if not (output / name).is_file():
            return f"{output / name} is"
    lost = num_pictures - sum(1 for _ in (output / "img").rglob("*.png"))
    return f"{lost} of the {num_pictures} pictures in {output / 'img'} are" if lost > 0 else None
