"""What every connector is: the features of all encoders in, the image tokens of all pictures out.

A connector makes one token per cell of the grid; here, for all of them, the visible cells are laid end to end and every
row is closed by the newline token.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cambrian_model.config import CambrianConfig
from cambrian_model.connectors.visual_context import VisualContext
from cambrian_model.image_tokens import TokenLayout, token_layout


class Connected(NamedTuple):
    """What a connector makes of every cell.

    Attributes:
        cells: One token per cell of the final grid, padding included, newlines not.
        context: What SVA blocks inside the language model see, one query per cell; None without such blocks.
    """

    cells: Float[Tensor, "images cells dim"]
    context: VisualContext | None = None


class ImageTokens(NamedTuple):
    """The image tokens of pictures.

    Attributes:
        tokens: Those of all pictures, end to end, newlines included.
        layout: Which cells they show.
        context: What SVA blocks inside the language model see, one query per visible cell; None without such blocks.
    """

    tokens: Float[Tensor, "tokens dim"]
    layout: TokenLayout
    context: VisualContext | None = None


class Connector(nn.Module):
    """Base of the connectors. A subclass implements `connect` and `output_layer`, and sets `newline`."""

    newline: nn.Parameter

    def __init__(self, config: CambrianConfig) -> None:
        super().__init__()
        self.grid_side = config.grid_side
        self.feature_shapes = [(encoder.num_tokens, encoder.width) for encoder in config.encoders]

    def forward(
        self, features: Sequence[Float[Tensor, "images _tokens _width"]], image_sizes: Sequence[Sequence[int]]
    ) -> ImageTokens:
        """Turns the features of every encoder, of pictures of `image_sizes` (height, width), into image tokens."""
        cells, context = self.connect(features, image_sizes)
        layout = token_layout(image_sizes, self.grid_side)
        layout = layout._replace(cells=layout.cells.to(cells.device), slots=layout.slots.to(cells.device))
        tokens = self.newline.to(cells.dtype).expand(sum(layout.lengths), -1)
        tokens = tokens.index_copy(0, layout.slots, cells.flatten(0, 1).index_select(0, layout.cells))
        return ImageTokens(tokens, layout, context.select(layout.cells) if context is not None else None)

    def connect(
        self, features: Sequence[Float[Tensor, "images _tokens _width"]], image_sizes: Sequence[Sequence[int]]
    ) -> Connected:
        """Makes one token per cell."""
        raise NotImplementedError

    @property
    def output_layer(self) -> nn.Linear | None:
        """The last linear layer, which decides how large image tokens are; None if the connector has none."""
        raise NotImplementedError

    @torch.no_grad()
    def match_size(self, size: float) -> None:
        """Scales the fresh connector so that image tokens differ from each other by `size`, and newlines are as large.

        PyTorch's own initialisation makes them nearly alike, and a language model whose words are eight times as far
        apart learns slowly to tell them from each other.

        Source: layer-sequential unit-variance initialisation (Mishkin and Matas, arXiv 1511.06422), of the last layer
        alone and on random features.
        """
        if self.output_layer is not None:
            device, dtype = self.newline.device, self.newline.dtype
            features = [torch.randn(4, count, dim, device=device, dtype=dtype) for count, dim in self.feature_shapes]
            tokens = self.connect(features, [(1, 1)] * 4).cells
            self.output_layer.weight.mul_(size / tokens.std(dim=(0, 1)).square().mean().sqrt())
            if self.output_layer.bias is not None:
                self.output_layer.bias.zero_()
        self.newline.mul_(size / self.newline.square().mean().sqrt())


def new_newline(dim: int) -> nn.Parameter:
    """Returns a fresh newline token of the language model's width."""
    return nn.Parameter(torch.randn(dim) * dim**-0.5)
