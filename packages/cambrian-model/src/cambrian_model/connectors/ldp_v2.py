"""LDPv2, a lightweight projector that leaves fewer tokens: project, pool, and say by convolution where each token is.

Source: MobileVLM V2, arXiv 2402.03766.
"""

from collections.abc import Sequence
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cambrian_model.config import CambrianConfig, LDPv2Config
from cambrian_model.connectors.base import Connected, Connector, new_newline
from cambrian_model.connectors.feature_map import concatenate, to_map, to_tokens


class LDPv2Connector(Connector):
    """Two linear layers on concatenated features, average pooling to the grid, a depthwise 3x3 convolution added.

    Padding is seen like anything else, as in the original: pooling and convolution mix a cell at the picture's edge
    with what the encoders made of the padding beside it. Cells that show only padding are dropped afterwards.
    """

    def __init__(self, config: CambrianConfig, spec: LDPv2Config) -> None:
        super().__init__(config)
        width, dim = sum(encoder.width for encoder in config.encoders), config.get_text_config().hidden_size
        self.output = nn.Sequential(nn.Linear(width, dim), nn.GELU(), nn.Linear(dim, dim))
        self.position = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)
        self.newline = new_newline(dim)

    @property
    def output_layer(self) -> nn.Linear:
        """The last linear layer; pooling and convolution keep its scale."""
        return cast(nn.Linear, self.output[-1])

    def connect(
        self, features: Sequence[Float[Tensor, "images _tokens _width"]], image_sizes: Sequence[Sequence[int]]
    ) -> Connected:
        """Projects every feature, then averages those that fall into one cell."""
        pooled = functional.adaptive_avg_pool2d(to_map(self.output(concatenate(features))), self.grid_side)
        return Connected(to_tokens(pooled + self.position(pooled)))
