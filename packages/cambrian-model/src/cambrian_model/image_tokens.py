"""The geometry of image tokens: the one place that knows grids, padding, newline tokens and windows.

A picture is padded to a square, so part of its token grid shows only padding. Those rows or columns are left out, and
every remaining row ends with one newline token: a picture fills `rows x (columns + 1)` tokens. Pure functions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cambrian_model.errors import ImageError


class GridRegion(NamedTuple):
    """The part of a square grid that shows the picture and not its padding."""

    top: int
    left: int
    rows: int
    columns: int

    @property
    def num_tokens(self) -> int:
        """Image tokens of this region: every row ends with a newline token."""
        return self.rows * (self.columns + 1)


def visible_region(image_size: Sequence[int], side: int) -> GridRegion:
    """Returns the region of a `side` x `side` grid that a picture of `image_size` (height, width) fills.

    Padding on the two sides is equal; an odd remainder keeps one row or column more.

    Raises:
        ImageError: A side of the picture has no pixels.

    Source: `unpad_image` of the original. Differs from the reference: a picture longer than `side` to one keeps at
    least one row or column, where the original keeps none when `side` is even, and then fails.
    """
    height, width = int(image_size[0]), int(image_size[1])
    if height < 1 or width < 1:
        raise ImageError(f"image of {width}x{height} pixels has no area; give one with at least one pixel per side")
    if width / height > 1.0:
        filled = max(int(height * (side / width)), 1)
        padding = (side - filled) // 2
        return GridRegion(padding, 0, side - 2 * padding, side)
    filled = max(int(width * (side / height)), 1)
    padding = (side - filled) // 2
    return GridRegion(0, padding, side, side - 2 * padding)


def num_image_tokens(image_size: Sequence[int], side: int) -> int:
    """Returns how many tokens a picture of `image_size` (height, width) fills in the language model."""
    return visible_region(image_size, side).num_tokens


class TokenLayout(NamedTuple):
    """Where the image tokens of several pictures come from, all pictures laid end to end.

    Attributes:
        cells: For every token that shows a cell, its index into the flattened (images, side, side) grids.
        slots: The index of that token among all image tokens; the tokens not listed are newlines.
        lengths: Image tokens of each picture.
    """

    cells: Int[Tensor, " cells"]
    slots: Int[Tensor, " cells"]
    lengths: list[int]


def token_layout(image_sizes: Sequence[Sequence[int]], side: int) -> TokenLayout:
    """Lays out the image tokens of pictures of `image_sizes` (height, width) on grids of `side`."""
    cells, slots, lengths = [torch.empty(0, dtype=torch.long)], [torch.empty(0, dtype=torch.long)], []
    first_slot = 0
    for image, size in enumerate(image_sizes):
        region = visible_region(size, side)
        rows, columns = torch.arange(region.rows)[:, None], torch.arange(region.columns)[None, :]
        cells.append(((image * side + region.top + rows) * side + region.left + columns).flatten())
        slots.append((first_slot + rows * (region.columns + 1) + columns).flatten())
        lengths.append(region.num_tokens)
        first_slot += region.num_tokens
    return TokenLayout(torch.cat(cells), torch.cat(slots), lengths)


def visible_mask(image_sizes: Sequence[Sequence[int]], side: int) -> Bool[Tensor, "images side side"]:
    """Marks the cells of each picture's grid that show the picture and not its padding."""
    mask = torch.zeros(len(image_sizes), side, side, dtype=torch.bool)
    for image, size in enumerate(image_sizes):
        top, left, rows, columns = visible_region(size, side)
        mask[image, top : top + rows, left : left + columns] = True
    return mask


def to_windows(features: Tensor, query_side: int) -> Tensor:
    """Cuts square grids into one window per query cell: (images, tokens, ...) to (images, cells, window, ...).

    Cells and the tokens in a window are both in reading order.
    """
    images, num_tokens = features.shape[:2]
    rest = features.shape[2:]
    side = round(num_tokens**0.5)
    window_side = side // query_side
    grid = features.reshape(images, query_side, window_side, query_side, window_side, *rest)
    windows = grid.transpose(2, 3)  # images, query_side, query_side, window_side, window_side, ...
    return windows.reshape(images, query_side**2, window_side**2, *rest)


def window_masks(
    image_sizes: Sequence[Sequence[int]], grid_side: int, query_side: int
) -> Bool[Tensor, "images cells window"]:
    """Marks the features in each query's window that show the picture.

    A window that shows only padding is marked whole, so that its softmax is defined (as in the original).
    """
    masks = to_windows(visible_mask(image_sizes, grid_side).flatten(1), query_side)
    return masks | ~masks.any(dim=-1, keepdim=True)


def resize_grid(features: Float[Tensor, "images tokens dim"], side: int) -> Float[Tensor, "images resized dim"]:
    """Interpolates square token grids to `side` x `side`: bilinear, computed in float32, no antialiasing."""
    images, num_tokens, dim = features.shape
    old_side = round(num_tokens**0.5)
    if old_side == side:
        return features
    grid = features.transpose(1, 2).reshape(images, dim, old_side, old_side)
    resized = torch.nn.functional.interpolate(grid.float(), size=(side, side), mode="bilinear", align_corners=False)
    return resized.to(features.dtype).flatten(2).transpose(1, 2)
