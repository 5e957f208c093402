"""Image tokens as a map with channels first, for convolutions and pooling, and back."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def to_map(tokens: Float[Tensor, "images tokens dim"]) -> Float[Tensor, "images dim side side"]:
    """Lays tokens in reading order on their square grid."""
    side = round(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).unflatten(2, (side, side))  # images, dim, side, side


def to_tokens(grid: Float[Tensor, "images dim side side"]) -> Float[Tensor, "images tokens dim"]:
    """Reads a map row by row."""
    return grid.flatten(2).transpose(1, 2)  # images, side * side, dim


def concatenate(features: Sequence[Float[Tensor, "images tokens _width"]]) -> Float[Tensor, "images tokens total"]:
    """Joins the channels of encoders that share one grid."""
    return torch.cat(list(features), dim=-1)
