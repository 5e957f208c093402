"""Projectors of the encoders' features, concatenated on channels: linear, several layers with GELU, or none.

The paper's baseline, and the connector of its encoder study. Every cell is projected by itself.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from cambrian_model.config import CambrianConfig, ProjectorConfig
from cambrian_model.connectors.base import Connected, Connector, new_newline
from cambrian_model.connectors.feature_map import concatenate
from cambrian_model.errors import ConfigError


class MLPConnector(Connector):
    """Concatenated features through `depth` linear layers with GELU between them; none is the identity.

    Raises:
        ConfigError: The identity, and the encoders' widths do not sum to the language model's.
    """

    def __init__(self, config: CambrianConfig, spec: ProjectorConfig) -> None:
        super().__init__(config)
        width, dim = sum(encoder.width for encoder in config.encoders), config.get_text_config().hidden_size
        if spec.depth == 0 and width != dim:
            raise ConfigError(
                f"an identity connector hands the encoders' {width} channels to a language model of width {dim}; "
                'choose encoders whose widths sum to it, or "linear"'
            )
        self.output = nn.Sequential()
        for i in range(spec.depth):
            self.output.extend([nn.GELU(), nn.Linear(dim, dim)] if i else [nn.Linear(width, dim)])
        self.newline = new_newline(dim)

    @property
    def output_layer(self) -> nn.Linear | None:
        """The last linear layer; the identity has none."""
        return next((layer for layer in reversed(self.output) if isinstance(layer, nn.Linear)), None)

    def connect(
        self, features: Sequence[Float[Tensor, "images _tokens _width"]], image_sizes: Sequence[Sequence[int]]
    ) -> Connected:
        """Projects every cell, padding included."""
        return Connected(self.output(concatenate(features)))
