"""Fingerprints that were made before, so that a second audit reads no picture again, and a killed one loses a batch.

Each batch is a file of numpy arrays, written whole or not at all by the process that hashed it; at the end of an audit
they are joined into one. A file whose size or time has changed is hashed anew. One audit at a time may use a folder.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cambrian_data.errors import DataError
from cambrian_data.leakage.methods import Method
from cambrian_data.leakage.pictures import LeftOut, Picture, Reason
from cambrian_data.leakage.prints import Batch, fill_keys, identity_of, print_type

LASTING = frozenset({Reason.BROKEN})
"""Problems that lie in the bytes; those of paths and permissions may be gone next time."""


class HashCache:
    """The fingerprints in a folder.

    Args:
        folder: made if missing.
        method: of the hashes.

    Raises:
        DataError: if a file in it is damaged.
    """

    def __init__(self, folder: Path, method: Method) -> None:
        self.folder, self.method = folder, method
        folder.mkdir(parents=True, exist_ok=True)
        self._identity = identity_of(method)
        self._load(list_files(folder))

    def _load(self, files: Sequence[Path]) -> None:
        loaded = [read_prints(file, self.method) for file in files]
        texts = [text for _, problems in loaded for text in problems]
        prints = [prints for prints, _ in loaded] or [np.zeros(0, print_type(self.method))]
        rows = prints[0] if len(prints) == 1 else np.concatenate(prints)
        broken = rows["key"][~rows["usable"]].tolist()
        self._texts = dict(zip(broken, texts, strict=True))
        if (rows["key"][1:] <= rows["key"][:-1]).any():  # one file that was joined is in order, and need not be copied
            rows = rows[np.unique(rows["key"], return_index=True)[1]]
        self._rows, self._keys = rows, rows["key"].copy()

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, pictures: Sequence[Picture]) -> tuple[Batch, list[int]]:
        """What is known of pictures, and the indexes of those of which nothing is."""
        prints = np.zeros(len(pictures), print_type(self.method))
        fill_keys(prints, pictures, self._identity)
        place = np.searchsorted(self._keys, prints["key"])
        place[place == len(self._keys)] = 0
        held = self._rows[place] if len(self._keys) else prints[:0]
        known = np.zeros(len(pictures), bool)
        if len(held):
            known = (held["key"] == prints["key"]) & (held["check"] == prints["check"])
            prints[known] = held[known]
        problems = {
            index: LeftOut(pictures[index].name, Reason.BROKEN, self._texts[int(prints["key"][index])])
            for index in np.flatnonzero(known & ~prints["usable"]).tolist()
        }
        return Batch(pictures, prints, problems), np.flatnonzero(~known).tolist()

    def join(self) -> None:
        """Makes one file of all, which the next audit reads at once."""
        for unfinished in self.folder.glob("*.tmp"):
            unfinished.unlink()
        files = list_files(self.folder)
        if len(files) < 2:
            return
        self._load([])  # make room
        self._load(files)
        broken = self._rows["key"][~self._rows["usable"]].tolist()
        written = write_prints(self.folder, self._rows, [self._texts[key] for key in broken])
        for file in files:
            if file != written:
                file.unlink()


def list_files(folder: Path) -> list[Path]:
    """The files of fingerprints, in a fixed order."""
    return sorted(folder.glob("*.npz"))


def save(folder: Path, batch: Batch) -> None:
    """Keeps a batch, but for what may be otherwise next time."""
    keep = np.ones(len(batch.prints), bool)
    keep[[index for index, problem in batch.problems.items() if problem.reason not in LASTING]] = False
    if keep.any():
        texts = [batch.problems[index].detail for index in sorted(batch.problems) if keep[index]]
        write_prints(folder, batch.prints[keep], texts)


def write_prints(folder: Path, prints: np.ndarray, texts: Sequence[str]) -> Path:
    """Writes a file, named by what it holds.

    Args:
        folder: that exists.
        prints: fingerprints.
        texts: what is wrong with each that is not usable, in order.

    Raises:
        DataError: if it cannot be written.
    """
    path = folder / f"{hashlib.blake2b(prints['key'].tobytes(), digest_size=12).hexdigest()}.npz"
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as stream:
            np.savez(stream, prints=prints, problems=np.array(texts, np.str_))
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}. Make room and run the same command again: "
            "what was hashed before is kept."
        ) from error
    return path


def read_prints(file: Path, method: Method) -> tuple[np.ndarray, list[str]]:
    """The fingerprints of a file and what is wrong with those that are not usable.

    Raises:
        DataError: if it is damaged or of another method.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            prints, texts = arrays["prints"], arrays["problems"].tolist()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: cannot be read ({error}); delete it, and its pictures are hashed again.") from error
    if prints.dtype != print_type(method) or len(texts) != np.count_nonzero(~prints["usable"]):
        raise DataError(f"{file} holds no fingerprints of {method.name} {method.side}; delete it.")
    return prints, texts
