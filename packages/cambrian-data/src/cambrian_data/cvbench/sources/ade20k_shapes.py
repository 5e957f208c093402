"""What of an ADE20K thing can be seen: its box, its pixels, and its whole outline, from the best evidence there is.

First its own mask, where what is seen is 255 and what is hidden 128. Without one, its region of the picture's
`_seg.png`, whose blue channel numbers the things in an order of its own: a region belongs to the thing of its class
whose polygon it fills best. Without that, the polygon, which says nothing of what is hidden.

Source: README.md and utils/utils_ade20k.py (github CSAILVision/ADE20K); the values of the masks and the order of the
regions were read off the scenes there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cambrian_data.boxes import Box
from cambrian_data.cvbench.sources.dataset_file import checked_box
from cambrian_data.cvbench.sources.outlines import polygon_area
from cambrian_data.errors import DataError
from cambrian_data.images import ImageSize, locate, opened

SEEN, HIDDEN = 255, 128
MAX_REGIONS = 255  # more things than the blue channel can number cannot be told apart by it
MIN_FILLED = 0.5  # part of a region that lies in its thing's polygon, at least; the rest is slack of drawing

ONLY_SEEN = [0] * SEEN + [1]
NO_CLASS = -1

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]


class Outline(Protocol):
    """What is known of a thing beside pictures."""

    id: int
    name_ndx: int

    @property
    def instance_mask(self) -> object:
        """The path of its own mask in the scene's folder, if it is a string."""

    @property
    def corners(self) -> Sequence[tuple[float, float]]:
        """Of its polygon, pixels."""


class Shape(NamedTuple):
    """What is seen of a thing.

    Attributes:
        box: of what is seen.
        area: of what is seen, pixels.
        whole: pixels of its outline, hidden ones too; None where it is not known what is hidden.
    """

    box: Box
    area: float
    whole: float | None

    @property
    def visibility(self) -> float | None:
        """The part of its outline that is seen, 0..1; None where it is not known."""
        return min(1.0, self.area / self.whole) if self.whole else None


class Window(NamedTuple):
    """A polygon's pixels, in the part of the picture around it."""

    rows: slice
    columns: slice
    mask: Mask


def find_shapes(folder: Path, stem: str, size: ImageSize, things: Sequence[Outline]) -> dict[int, Shape | None]:
    """The shapes of a picture's whole things by their ids, None for one of which nothing is seen.

    Args:
        folder: of the scene.
        stem: of its files' names.
        size: of the picture.
        things: that are no parts of others.

    Raises:
        DataError: if a mask is broken, of another size, or holds what no mask does.
    """
    files = {thing.id: locate(folder, thing.instance_mask) for thing in things if isinstance(thing.instance_mask, str)}
    masked = {thing: file for thing, file in files.items() if file.is_file()}
    shapes = {thing: of_mask(file, size) for thing, file in masked.items()}
    rest = [thing for thing in things if thing.id not in masked]
    segmentation = folder / f"{stem}_seg.png"
    if rest and segmentation.is_file() and len(things) <= MAX_REGIONS:
        of_regions = segmented(segmentation, size, things)
        return shapes | {thing.id: of_regions[thing.id] for thing in rest}
    return shapes | {thing.id: of_polygon(thing, size) for thing in rest}


def of_mask(file: Path, size: ImageSize) -> Shape | None:
    """The shape in a thing's own mask."""
    mask = load(file, size, mode="L")
    counts = mask.histogram()
    unknown = [value for value, count in enumerate(counts) if count and value not in (0, HIDDEN, SEEN)]
    if unknown:
        raise DataError(f"{file}: holds the value {unknown[0]}; expected 0, {HIDDEN} (hidden) and {SEEN} (seen).")
    edges = mask.point(ONLY_SEEN).getbbox()
    if edges is None:
        return None
    return Shape(Box(*map(float, edges)), float(counts[SEEN]), float(counts[SEEN] + counts[HIDDEN]))


def segmented(file: Path, size: ImageSize, things: Sequence[Outline]) -> dict[int, Shape | None]:
    """The shapes in the picture of all regions."""
    red, green, blue = np.moveaxis(np.asarray(load(file, size, mode="RGB")), 2, 0)
    classes = np.zeros(256, np.int64)
    classes[blue] = red.astype(np.int64) // 10 * 256 + green  # every pixel of a region has the same class
    classes[0] = NO_CLASS  # what was not outlined
    windows = {thing.id: window(thing.corners, size) for thing in things}
    regions = assign(blue, classes, windows, things)
    shapes: dict[int, Shape | None] = {}
    for thing in things:
        around, region = windows[thing.id], regions.get(thing.id)
        if around is None or region is None:
            shapes[thing.id] = None
            continue
        seen = blue[around.rows, around.columns] == region
        shapes[thing.id] = shape(seen, (around.columns.start, around.rows.start), area_of_polygon(thing))
    return shapes


def assign(
    blue: Bytes, classes: NDArray[np.int64], windows: Mapping[int, Window | None], things: Sequence[Outline]
) -> dict[int, int]:
    """The region of each thing that has one, by the thing's id: best fits first, each region once."""
    sizes = np.bincount(blue.ravel(), minlength=256)
    fits: list[tuple[float, int, int]] = []
    for thing in things:
        around = windows[thing.id]
        if around is None:
            continue
        shared = np.bincount(blue[around.rows, around.columns][around.mask], minlength=256)
        for region in np.flatnonzero((shared > MIN_FILLED * sizes) & (classes == thing.name_ndx)).tolist():
            both = around.mask.sum() + sizes[region] - shared[region]
            fits.append((-float(shared[region] / both), thing.id, region))
    regions: dict[int, int] = {}
    for _, thing_id, region in sorted(fits):
        if thing_id not in regions and region not in regions.values():
            regions[thing_id] = region
    return regions


def window(corners: Sequence[tuple[float, float]], size: ImageSize) -> Window | None:
    """The pixels of a polygon in the picture, None if there are none."""
    if len(corners) < 3:
        return None
    across, down = zip(*corners, strict=True)
    left, top = max(0, int(min(across))), max(0, int(min(down)))
    right, bottom = min(size.width, int(max(across)) + 1), min(size.height, int(max(down)) + 1)
    if left >= right or top >= bottom:
        return None
    canvas = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(canvas).polygon([(x - left, y - top) for x, y in corners], fill=1)
    return Window(slice(top, bottom), slice(left, right), np.asarray(canvas).astype(bool))


def of_polygon(thing: Outline, size: ImageSize) -> Shape | None:
    """The shape of the polygon alone.

    Raises:
        DataError: if it reaches out of the picture by more than rounding does.
    """
    corners = thing.corners
    if len(corners) < 3:
        return None
    across, down = zip(*corners, strict=True)
    edges = (min(across), min(down), max(across), max(down))
    box = checked_box(edges, size, f"object {thing.id}", "polygon")
    return Shape(box, min(area_of_polygon(thing), box.area), None)


def area_of_polygon(thing: Outline) -> float:
    """Pixels in the thing's polygon, counting what lies outside the picture."""
    return polygon_area([edge for corner in thing.corners for edge in corner])


def shape(seen: Mask, origin: tuple[int, int], whole: float) -> Shape | None:
    """The shape of the pixels that are seen, in a window of the picture that starts at (column, row) origin."""
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    if not len(rows):
        return None
    left, top = origin
    box = Box(*map(float, (left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1)))
    return Shape(box, float(np.count_nonzero(seen)), whole)


def load(file: Path, size: ImageSize, mode: str) -> Image.Image:
    """A mask, its pixels read.

    Raises:
        DataError: if it is missing, broken, of another size or of another mode.
    """
    with opened(file) as image:
        if image.mode != mode:
            raise DataError(f"{file}: is a picture of mode {image.mode}; expected {mode}.")
        if image.size != size:
            raise DataError(
                f"{file}: is {image.width} x {image.height} pixels; expected {size.width} x {size.height}, as "
                '"imsize" of its scene states.'
            )
        image.load()
        return image
