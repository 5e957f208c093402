"""What was drawn: the difference between the written picture and the one it was made from."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from scipy import ndimage  # type: ignore[import-untyped]

from tests.support.cvbench_oracle.raw import Box, Picture, Thing

COLOURS = {"red": 0xFF0000, "blue": 0x0000FF, "green": 0x00FF00}
WIDEST = 0.006  # of the longer side: what a line may be away from the box it stands for
FULLY, PARTLY = 0.95, 0.5


@dataclass(frozen=True)
class Drawing:
    """The pixels that were changed.

    Attributes:
        masks: for each colour, the changed pixels that have it now.
        stray: changed pixels that have none of the colours.
        reach: pixels that a line may be away from its box.
    """

    masks: dict[str, np.ndarray]
    stray: int
    reach: int
    near: dict[str, np.ndarray] = field(default_factory=dict)

    def has(self, box: Box, colour: str) -> bool:
        """Whether the outline of a box is drawn in this colour, but where another line crosses it."""
        if not self.near:
            window = 2 * self.reach + 1
            self.near.update({name: ndimage.maximum_filter(mask, window) for name, mask in self.masks.items()})
        rows, columns = outline(box, self.masks[colour].shape)
        own = self.near[colour][rows, columns]
        crossed = np.any([self.near[name][rows, columns] for name in COLOURS if name != colour], axis=0)
        return bool(own.mean() >= PARTLY and (own | crossed).mean() >= FULLY)

    def is_only(self, box: Box, colour: str) -> bool:
        """Whether all that has this colour lies along the outline of the box."""
        mask = np.zeros(self.masks[colour].shape, dtype=bool)
        mask[outline(box, mask.shape)] = True
        allowed = ndimage.maximum_filter(mask, 2 * self.reach + 1)
        return not (self.masks[colour] & ~allowed).any()


def outline(box: Box, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels along the four edges of a box, inside the picture."""
    left, right = (int(np.clip(round(x), 0, shape[1] - 1)) for x in (box[0], box[2]))
    top, bottom = (int(np.clip(round(y), 0, shape[0] - 1)) for y in (box[1], box[3]))
    across, down = np.arange(left, right + 1), np.arange(top, bottom + 1)
    rows = [np.full_like(across, top), np.full_like(across, bottom), down, down]
    columns = [across, across, np.full_like(down, left), np.full_like(down, right)]
    return np.concatenate(rows), np.concatenate(columns)


def compare(written: Image.Image, picture: Picture) -> Drawing | None:
    """What was changed in the picture; None if the two differ in size."""
    with Image.open(picture.file) as original:
        before = packed(original)
    after = packed(written)
    if before.shape != after.shape or before.shape != (picture.height, picture.width):
        return None
    changed = before != after
    reach = max(2, round(WIDEST * max(before.shape)))
    if not changed.any():
        return Drawing({name: np.zeros_like(changed) for name in COLOURS}, 0, reach)
    # A pixel that had the colour of the line before it was drawn is part of the line, though nothing changed there.
    by_lines = ndimage.maximum_filter(changed, 3)
    masks = {name: (after == value) & by_lines for name, value in COLOURS.items()}
    coloured = np.any(list(masks.values()), axis=0)
    return Drawing(masks, int((changed & ~coloured).sum()), reach)


def packed(image: Image.Image) -> np.ndarray:
    """One number for the colour of each pixel."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.uint32)
    return pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]


def boxed_things(drawing: Drawing, colour: str, things: list[Thing]) -> list[Thing]:
    """Those of the things whose box is drawn in this colour, and nothing else is."""
    return [thing for thing in things if drawing.has(thing.box, colour) and drawing.is_only(thing.box, colour)]
