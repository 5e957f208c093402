"""Encoded pictures: hashed when the data is read, decoded only when a model looks."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cambrian_eval.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image


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
        """The decoded picture in RGB.

        Raises:
            DataError: The bytes are not a picture.
        """
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(io.BytesIO(self.read())) as image:
                return image.convert("RGB")
        except (UnidentifiedImageError, OSError) as error:
            raise DataError(f"{self.name}: cannot be decoded as a picture ({error}). Replace the file.") from error
