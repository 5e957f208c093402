"""The C-Abstractor: convolutions before and after pooling keep what is where, whatever the number of image tokens.

Source: Honeybee, arXiv 2312.06742. Differs from the reference: under this name it ships a single strided convolution,
and has the published connector, which its paper compares with and which this is, commented out.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from timm.layers import LayerNorm2d
from timm.models.regnet import RegStage
from torch import Tensor, nn

from cambrian_model.config import CAbstractorConfig, CambrianConfig
from cambrian_model.connectors.base import Connected, Connector, new_newline
from cambrian_model.connectors.feature_map import concatenate, to_map, to_tokens

POSITION_STD = 0.02


class CAbstractorConnector(Connector):
    """Concatenated features with positions, RegNet blocks, average pooling to the grid, RegNet blocks, a small MLP.

    The blocks are timm's: a depthwise 3x3 convolution between two pointwise ones, squeeze-and-excitation, LayerNorm in
    place of batch statistics, so that no picture depends on another.

    Padding is seen like anything else, as in the original: convolutions mix a cell at the picture's edge with what the
    encoders made of the padding beside it, and the channel gates average over both. Cells that show only padding are
    dropped afterwards.
    """

    def __init__(self, config: CambrianConfig, spec: CAbstractorConfig) -> None:
        super().__init__(config)
        encoders, dim = config.encoders, config.get_text_config().hidden_size
        width = sum(encoder.width for encoder in encoders)
        self.position = nn.Parameter(torch.randn(encoders[0].num_tokens, width) * POSITION_STD)
        self.blocks = nn.Sequential(
            _stage(spec.depth, width, spec.width),
            nn.AdaptiveAvgPool2d(self.grid_side),
            _stage(spec.depth, spec.width, spec.width),
        )
        self.output = nn.Sequential(nn.Linear(spec.width, dim))
        for _ in range(spec.mlp_depth - 1):
            self.output.extend([nn.SiLU(), nn.Linear(dim, dim)])
        self.newline = new_newline(dim)

    @property
    def output_layer(self) -> nn.Linear:
        """The last linear layer."""
        return cast(nn.Linear, self.output[-1])

    def connect(
        self, features: Sequence[Float[Tensor, "images _tokens _width"]], image_sizes: Sequence[Sequence[int]]
    ) -> Connected:
        """Abstracts the features of all encoders together."""
        placed = concatenate(features) + self.position
        return Connected(self.output(to_tokens(self.blocks(to_map(placed)))))


def _stage(depth: int, width_in: int, width: int) -> nn.Module:
    return RegStage(depth, width_in, width, stride=1, dilation=1, act_layer=nn.SiLU, norm_layer=LayerNorm2d)
