"""The Spatial Vision Aggregator: queries on a grid gather what every encoder sees at their place.

Source: Cambrian-1, section 3, and the original's `vision_sampler.py`: its "joint" attention, that of the released
models, and its "sep" one.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cambrian_model.config import CambrianConfig, SVAConfig
from cambrian_model.connectors.base import Connected, Connector, new_newline
from cambrian_model.connectors.visual_context import VisualContext
from cambrian_model.connectors.window_attend import LAYER_NORM_EPS
from cambrian_model.connectors.window_attention import WindowAttention, WindowShape
from cambrian_model.image_tokens import resize_grid, to_windows, window_masks


class SVABlock(nn.Module):
    """One aggregation step: a query and its picture's summary ask, attention answers, a small MLP writes back.

    Args:
        query_dim: Channels of the queries: `width`, or the language model's inside it.
        width: Channels inside the block.
        windows: Each encoder's window.
        num_heads: Attention heads.
        attention: "joint" or "separate", see `SVAConfig`.
        summary_dim: Channels of the summary; `width` by default.
    """

    def __init__(
        self,
        query_dim: int,
        width: int,
        windows: Sequence[WindowShape],
        num_heads: int,
        attention: str = "joint",
        summary_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.proj_context = nn.Linear(summary_dim or width, width, bias=False)
        self.proj_in = nn.Linear(query_dim + width, width, bias=False)
        self.attention = WindowAttention(width, windows, num_heads) if attention == "joint" else None
        self.per_encoder = None if attention == "joint" else _separate(width, windows, num_heads)
        self.weighting = None
        if attention == "separate" and len(windows) > 1:
            self.weighting = _mlp(query_dim + width, width, len(windows))
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.proj_out = _mlp(width, width, query_dim)

    @property
    def write_back(self) -> nn.Linear:
        """The last projection; with zero weights the block adds nothing."""
        return cast(nn.Linear, self.proj_out[-1])

    def forward(
        self, queries: Float[Tensor, "queries query_dim"], context: VisualContext
    ) -> Float[Tensor, "queries query_dim"]:
        """Returns the queries with what they gathered added."""
        summary = self.proj_context(context.summary)
        hidden = self._of_both(self.proj_in, queries, summary, context)
        if self.attention is not None:
            gathered = self.attention(hidden, context.features, context.masks)
        else:
            gathered = self._gather_separately(queries, hidden, summary, context)
        return queries + self.proj_out(self.norm(hidden + gathered))

    def _of_both(self, linear: nn.Linear, queries: Tensor, summary: Tensor, context: VisualContext) -> Tensor:
        """Applies a linear layer to queries and summary side by side; the summary's part once per picture."""
        from_query, from_summary = linear.weight.split([queries.shape[-1], summary.shape[-1]], dim=1)
        of_summary = functional.linear(summary, from_summary).index_select(0, context.image_of_query)
        return functional.linear(queries, from_query) + of_summary

    def _gather_separately(
        self, queries: Tensor, hidden: Tensor, summary: Tensor, context: VisualContext
    ) -> Float[Tensor, "queries width"]:
        parts = []
        for encoder, x, mask in zip(
            cast(nn.ModuleList, self.per_encoder), context.features, context.masks, strict=True
        ):
            # A window of one feature leaves nothing to attend to: the original ignores its mask, and so do we.
            is_attention = isinstance(encoder, WindowAttention)
            parts.append(encoder(hidden, [x], [mask]) if is_attention else encoder(x.squeeze(1)))
        if self.weighting is None:
            return parts[0]
        first, *rest = self.weighting
        weights = nn.Sequential(*rest)(self._of_both(cast(nn.Linear, first), queries, summary, context)).softmax(-1)
        return (weights[..., None] * torch.stack(parts, dim=1)).sum(1)


def _separate(width: int, windows: Sequence[WindowShape], num_heads: int) -> nn.ModuleList:
    return nn.ModuleList(
        WindowAttention(width, [window], num_heads) if window.side > 1 else _mlp(window.dim, width, width)
        for window in windows
    )


def _mlp(dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden_dim, bias=False), nn.GELU(), nn.Linear(hidden_dim, out_dim, bias=False))


class SVAConnector(Connector):
    """Visual features of several encoders to image tokens, through learnable queries on a grid."""

    def __init__(self, config: CambrianConfig, spec: SVAConfig) -> None:
        super().__init__(config)
        encoders, dim = config.encoders, config.get_text_config().hidden_size
        self.query_grid_sides, self.has_in_llm_blocks = spec.query_grid_sides, spec.in_llm is not None
        self.inputs = nn.ModuleList(_input_projection(encoder.width, spec.width) for encoder in encoders)
        self.groups = nn.ModuleList(
            nn.ModuleList(new_block(config, spec.width, side) for _ in range(spec.depth))
            for side in spec.query_grid_sides
        )
        self.query = nn.Parameter(torch.randn(len(spec.query_grid_sides), spec.width) * spec.width**-0.5)
        self.output = nn.Sequential(
            nn.Linear(spec.width * len(spec.query_grid_sides), dim), nn.GELU(), nn.Linear(dim, dim)
        )
        self.newline = new_newline(dim)

    @property
    def output_layer(self) -> nn.Linear:
        """The last linear layer."""
        return cast(nn.Linear, self.output[-1])

    def connect(
        self, features: Sequence[Float[Tensor, "images _tokens _width"]], image_sizes: Sequence[Sequence[int]]
    ) -> Connected:
        """Aggregates every encoder's window into each query; all groups end on the final grid."""
        projected = [project(x) for project, x in zip(self.inputs, features, strict=True)]
        sides = {*self.query_grid_sides, *([self.grid_side] if self.has_in_llm_blocks else [])}
        contexts = {side: self.context(projected, image_sizes, side) for side in sides}
        groups = []
        for query, side, blocks in zip(self.query, self.query_grid_sides, self.groups, strict=True):
            queries = query.to(projected[0].dtype).expand(contexts[side].image_of_query.shape[0], -1)
            for block in cast(nn.ModuleList, blocks):
                queries = block(queries, contexts[side])
            cells = queries.reshape(projected[0].shape[0], side * side, queries.shape[-1])
            groups.append(resize_grid(cells, self.grid_side))
        cells = self.output(torch.cat(groups, dim=-1))
        return Connected(cells, contexts[self.grid_side] if self.has_in_llm_blocks else None)

    def context(
        self,
        projected: Sequence[Float[Tensor, "images _tokens width"]],
        image_sizes: Sequence[Sequence[int]],
        query_side: int,
    ) -> VisualContext:
        """Cuts projected features into windows for a query grid of `query_side`; one query per cell of each picture."""
        device, images = projected[0].device, projected[0].shape[0]
        windows, masks = [], []
        for x in projected:
            mask = window_masks(image_sizes, round(x.shape[1] ** 0.5), query_side)
            windows.append(to_windows(x, query_side).flatten(0, 1))
            masks.append(mask.flatten(0, 1).to(device))
        image_of_query = torch.arange(images, device=device).repeat_interleave(query_side**2)
        return VisualContext(tuple(windows), tuple(masks), projected[0].mean(1), image_of_query)


def in_llm_block(config: CambrianConfig) -> SVABlock:
    """Builds a fresh block for inside the language model: its hidden states ask, one per cell of the final grid."""
    return new_block(config, config.get_text_config().hidden_size, config.grid_side)


def new_block(config: CambrianConfig, query_dim: int, query_side: int) -> SVABlock:
    """Builds a fresh block for queries of `query_dim` channels on a grid of `query_side`."""
    spec = cast(SVAConfig, config.connector_config)
    windows = [WindowShape(encoder.grid_side // query_side, spec.width) for encoder in config.encoders]
    return SVABlock(query_dim, spec.width, windows, spec.num_heads, spec.attention)


def _input_projection(dim: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(dim, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width, eps=LAYER_NORM_EPS)
    )
