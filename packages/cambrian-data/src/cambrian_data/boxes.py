"""Boxes in a picture, by their edges."""

from __future__ import annotations

from typing import NamedTuple


class Box(NamedTuple):
    """Pixel edges: a pixel in column i covers [i, i + 1)."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """In pixels."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """In pixels."""
        return self.bottom - self.top

    @property
    def area(self) -> float:
        """In square pixels."""
        return max(0.0, self.width) * max(0.0, self.height)

    @property
    def centre(self) -> tuple[float, float]:
        """Column and row of the middle."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def gap(self, width: float, height: float) -> float:
        """Pixels to the nearest edge of a picture of this size; negative for a box that reaches beyond it."""
        return min(self.left, self.top, width - self.right, height - self.bottom)

    def overlap(self, other: Box) -> float:
        """The part of the smaller box that the other covers, 0..1."""
        shared = Box(
            max(self.left, other.left),
            max(self.top, other.top),
            min(self.right, other.right),
            min(self.bottom, other.bottom),
        )
        smaller = min(self.area, other.area)
        return shared.area / smaller if smaller > 0 and shared.width > 0 and shared.height > 0 else 0.0
