"""What can be wrong with somebody's data, each error naming the file, what was found and what to do."""

from __future__ import annotations

from pathlib import Path


class DataError(Exception):
    """Base of every error of this package that the user's data or arguments cause."""


class RecordError(DataError):
    """A record that cannot be used.

    Attributes:
        problem: what is wrong and what to do, without the place.
        file: the file it was read from, or None.
        line: its line in that file, from 1, or None.
    """

    def __init__(self, problem: str, file: Path | None = None, line: int | None = None) -> None:
        self.problem = problem
        self.file = file
        self.line = line
        super().__init__(problem if file is None else f"{file}:{line}: {problem}" if line else f"{file}: {problem}")

    def __reduce__(self) -> tuple[type[RecordError], tuple[str, Path | None, int | None]]:
        return type(self), (self.problem, self.file, self.line)

    def at(self, file: Path, line: int) -> RecordError:
        """The same problem, with its place."""
        return RecordError(self.problem, file, line)


class ImageError(DataError):
    """An image that is missing, broken, too large, or outside its folder."""
