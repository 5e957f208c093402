"""Encoded pictures: hashed when the data is read, decoded only when a model looks."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from cambrian_eval.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

_READ_ERRORS = (
    *(OSError, SyntaxError, ValueError, RuntimeError, EOFError, LookupError, struct.error, zlib.error),
    *(TypeError, AttributeError),  # for EXIF fields of a wrong type
)
"""What Pillow's readers raise for a damaged file."""

_LONGEST_SHOWN = 200


@dataclass(frozen=True)
class Picture:
    """One encoded picture, in memory (Parquet) or in a file (JSONL and a folder).

    Attributes:
        name: What to call it in messages and reports.
        sha256: Hash of the encoded bytes; two pictures are the same when it is the same.
        data: The encoded bytes, if they are held in memory.
        path: The file, if they are not.
    """

    name: str
    sha256: str
    data: bytes | None = None
    path: Path | None = None

    @classmethod
    def from_bytes(cls, name: str, data: bytes) -> Picture:
        """A picture held in memory."""
        return cls(name, hashlib.sha256(data).hexdigest(), data=data)

    @classmethod
    def from_file(cls, name: str, path: Path) -> Picture:
        """A picture that stays in its file."""
        with path.open("rb") as file:
            return cls(name, hashlib.file_digest(file, "sha256").hexdigest(), path=path)

    def read(self) -> bytes:
        """The encoded bytes."""
        if self.data is not None:
            return self.data
        assert self.path is not None
        return self.path.read_bytes()

    def open(self) -> Image.Image:
        """The decoded picture in RGB, upright as its EXIF orientation says.

        Raises:
            DataError: The bytes are not a picture, or one too large to be honest.
        """
        from PIL import Image, ImageOps

        try:
            with Image.open(io.BytesIO(self.read())) as image:
                ImageOps.exif_transpose(image, in_place=True)
                return image.convert("RGB")
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise DataError(f"{self.name}: more than {Image.MAX_IMAGE_PIXELS} pixels. Scale it down.") from error
        except _READ_ERRORS as error:
            raise DataError(f"{self.name}: cannot be decoded as a picture ({error}). Replace the file.") from error


def is_file(path: Path) -> bool:
    """Whether a file is there; of a name that is too long for any, none is."""
    try:
        return path.is_file()
    except OSError:
        return False


class Album:
    """The pictures of one data set: equal ones share their bytes, and a file's is read and hashed once.

    A benchmark that asks eighteen questions on each of 500 pictures holds 500 pictures.
    """

    def __init__(self, folder: Path) -> None:
        """Files are looked up in `folder`, or under its `img`, and never outside of it."""
        self.folder = folder
        self._bytes: dict[str, bytes] = {}
        self._files: dict[str, Picture] = {}

    def embedded(self, name: str, data: bytes) -> Picture:
        """A picture whose bytes stand in the table."""
        picture = Picture.from_bytes(name, data)
        return Picture(name, picture.sha256, data=self._bytes.setdefault(picture.sha256, data))

    def file(self, name: str, place: str) -> Picture:
        """A picture that the table names.

        Raises:
            DataError: The name leads out of the folder, or to no file.
        """
        if name not in self._files:
            self._files[name] = Picture.from_file(name, self._locate(name, place))
        return self._files[name]

    def _locate(self, name: str, place: str) -> Path:
        inside, windows = PurePosixPath(name), PureWindowsPath(name)
        if not name or "\0" in name or inside.is_absolute() or windows.anchor or ".." in windows.parts or "\\" in name:
            raise DataError(f"{place}: found picture {name!r}, expected bytes or a path inside the data's folder.")
        for file in (self.folder / inside, self.folder / "img" / inside):
            if is_file(file):
                return self._check_confined(file, name, place)
        shown = name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}..."
        raise DataError(f"{place}: picture {shown} is missing in {self.folder}; expected it there or under img.")

    def _check_confined(self, file: Path, name: str, place: str) -> Path:
        """A hub snapshot is a folder of links into the same repository's blobs; no other link leads out."""
        folder, target = self.folder.resolve(), file.resolve()
        repository = next((parent for parent in folder.parents if parent.name.startswith("datasets--")), folder)
        if not target.is_relative_to(repository):
            raise DataError(
                f"{place}: picture {name} is a link to {target}, outside of {self.folder}. Put the file itself there."
            )
        return file
