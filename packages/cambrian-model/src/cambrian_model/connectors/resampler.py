"""The Perceiver Resampler: one learned query per cell gathers from all features of its picture, wherever they are.

Notable: no window ties a query to its place, as in SVA; only the positions that queries and features carry can. Source:
Flamingo, arXiv 2204.14198; positions as in Qwen-VL, arXiv 2308.12966.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from cambrian_model.config import CambrianConfig, ResamplerConfig
from cambrian_model.connectors.base import Connected, Connector, new_newline
from cambrian_model.image_tokens import visible_mask

FEED_FORWARD_FACTOR = 4
EMBEDDING_STD = 0.02
LONGEST_WAVELENGTH = 10_000.0  # over 2 pi, in cells


class ResamplerLayer(nn.Module):
    """Queries attend to the features and to each other; a feed-forward network follows."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_norm, self.feature_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_proj = nn.Linear(width, width, bias=False)
        self.key_proj = nn.Linear(width, width, bias=False)
        self.value_proj = nn.Linear(width, width, bias=False)
        self.attention_proj = nn.Linear(width, width, bias=False)
        hidden = FEED_FORWARD_FACTOR * width
        # Differs from the paper: GELU, as in its open re-implementations, for squared ReLU.
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden, bias=False), nn.GELU(), nn.Linear(hidden, width, bias=False)
        )

    def forward(
        self,
        queries: Float[Tensor, "images cells width"],
        features: Float[Tensor, "images tokens width"],
        visible: Bool[Tensor, "images seen"],
    ) -> Float[Tensor, "images cells width"]:
        """Returns the queries with what they gathered added; `visible` masks features, then queries."""
        asking = self.query_norm(queries)
        seen = torch.cat([self.feature_norm(features), asking], dim=1)
        gathered = functional.scaled_dot_product_attention(
            self._heads(self.query_proj(asking)),
            self._heads(self.key_proj(seen)),
            self._heads(self.value_proj(seen)),
            attn_mask=visible[:, None, None],  # images, 1, 1, seen
        )
        queries = queries + self.attention_proj(gathered.transpose(1, 2).flatten(2))
        return queries + self.feed_forward(queries)

    def _heads(self, x: Float[Tensor, "images tokens width"]) -> Float[Tensor, "images heads tokens head_dim"]:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class ResamplerConnector(Connector):
    """Visual features of encoders of any grids to image tokens, by attention without windows.

    Padding takes no part: features and queries that show nothing of the picture are attended to by none.
    Differs from the paper: one query per cell instead of 64 in all, so that rows end with their newlines and padding is
    left out as with every connector.
    """

    def __init__(self, config: CambrianConfig, spec: ResamplerConfig) -> None:
        super().__init__(config)
        encoders, dim = config.encoders, config.get_text_config().hidden_size
        self.inputs = nn.ModuleList(
            nn.Sequential(nn.Linear(encoder.width, spec.width), nn.LayerNorm(spec.width)) for encoder in encoders
        )
        self.encoder_embeddings = nn.Parameter(torch.randn(len(encoders), spec.width) * EMBEDDING_STD)
        self.query = nn.Parameter(torch.randn(self.grid_side**2, spec.width) * EMBEDDING_STD)
        self.layers = nn.ModuleList(ResamplerLayer(spec.width, spec.num_heads) for _ in range(spec.depth))
        self.norm = nn.LayerNorm(spec.width)
        self.output = nn.Linear(spec.width, dim)
        self.newline = new_newline(dim)

    @property
    def output_layer(self) -> nn.Linear:
        """The projection to the language model's width."""
        return self.output

    def connect(
        self, features: Sequence[Float[Tensor, "images _tokens _width"]], image_sizes: Sequence[Sequence[int]]
    ) -> Connected:
        """Lets every query look at all features that show its picture."""
        sides = [round(x.shape[1] ** 0.5) for x in features]
        placed = [
            project(x) + embedding + self._positions(side)
            for project, x, embedding, side in zip(self.inputs, features, self.encoder_embeddings, sides, strict=True)
        ]
        context = torch.cat(placed, dim=1)
        masks = [visible_mask(image_sizes, side).flatten(1) for side in (*sides, self.grid_side)]
        visible = torch.cat(masks, dim=1).to(context.device)
        queries = (self.query + self._positions(self.grid_side)).expand(len(context), -1, -1)
        for layer in self.layers:
            queries = layer(queries, context, visible)
        return Connected(self.output(self.norm(queries)))

    def _positions(self, side: int) -> Float[Tensor, "tokens width"]:
        positions = cell_positions(side, self.grid_side, self.query.shape[-1], self.query.device)
        return positions.to(self.query.dtype)


def cell_positions(
    side: int, grid_side: int, width: int, device: torch.device | None = None
) -> Float[Tensor, "tokens width"]:
    """Says where the cells of a grid are: sines and cosines of the row, then of the column, of each cell's centre.

    They are counted in cells of a grid of `grid_side`, so that grids of any sides agree on where a thing is. Computed
    anew each time: a buffer would be lost when a checkpoint is loaded into an empty shell.
    """
    centres = (torch.arange(side, dtype=torch.float32, device=device) + 0.5) * (grid_side / side)
    steps = torch.arange(width // 4, dtype=torch.float32, device=device) / (width // 4)
    angles = centres[:, None] / LONGEST_WAVELENGTH**steps
    axis = torch.cat([angles.sin(), angles.cos()], dim=-1)  # side, width / 2
    rows, columns = axis[:, None].expand(-1, side, -1), axis[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)
