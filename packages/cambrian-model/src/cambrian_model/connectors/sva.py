"""The Spatial Vision Aggregator: queries on a grid gather what every encoder sees at their place.

Notable: projections are absorbed. With one query per window, `q W_k` comes first and then the dot product with the
normalised features, so that no feature of a large window is ever projected; the LayerNorm's affine part folds into the
weights, and its statistics of feature plus position come from those of the two parts. The numbers equal projecting
every feature. Source: Cambrian-1, section 3; the "joint" attention of the released models.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cambrian_model.config import CambrianConfig, SVAConfig, VisionEncoderConfig
from cambrian_model.connectors.base import Connected, Connector, new_newline
from cambrian_model.connectors.visual_context import VisualContext
from cambrian_model.image_tokens import resize_grid, to_windows, window_masks

LAYER_NORM_EPS = 1e-5


class WindowShape(NamedTuple):
    """One encoder's window, as a query sees it: features per side, and channels of each."""

    side: int
    dim: int


class WindowAttention(nn.Module):
    """One query attends to its window in every encoder's grid: one softmax across all of them."""

    def __init__(self, width: int, windows: Sequence[WindowShape], num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = width // num_heads
        self.q_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_norms = nn.ModuleList(nn.LayerNorm(window.dim, eps=LAYER_NORM_EPS) for window in windows)
        self.k_projs = nn.ModuleList(nn.Linear(window.dim, width, bias=False) for window in windows)
        self.v_norms = nn.ModuleList(nn.LayerNorm(window.dim, eps=LAYER_NORM_EPS) for window in windows)
        self.v_projs = nn.ModuleList(nn.Linear(window.dim, width, bias=False) for window in windows)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.pos_embeds = nn.ParameterDict(
            {str(i): nn.Parameter(torch.randn(side**2, dim)) for i, (side, dim) in enumerate(windows) if side > 1}
        )

    def forward(
        self, queries: Float[Tensor, "queries width"], context: VisualContext
    ) -> Float[Tensor, "queries width"]:
        """Returns the attention output for every query."""
        q = self.q_proj(self.q_norm(queries)) * self.head_dim**-0.5
        q = q.unflatten(-1, (self.num_heads, self.head_dim))
        windows = [self._window(i, features) for i, features in enumerate(context.features)]
        scores = torch.cat([self._scores(i, q, window) for i, window in enumerate(windows)], dim=-1)
        visible = torch.cat(context.masks, dim=-1)[:, None]  # queries, 1, tokens of all windows
        weights = scores.masked_fill(~visible, float("-inf")).softmax(dim=-1)
        per_encoder = weights.split([window.features.shape[1] for window in windows], dim=-1)
        values = [self._values(i, w, window) for i, (w, window) in enumerate(zip(per_encoder, windows, strict=True))]
        return self.o_proj(torch.stack(values).sum(0).flatten(1))

    def _window(self, encoder: int, features: Tensor) -> "_Window":
        return _Window.build(features, self.pos_embeds.get(str(encoder)))

    def _scores(self, encoder: int, q: Tensor, window: "_Window") -> Float[Tensor, "queries heads window"]:
        norm, project = _projection(self.k_norms, self.k_projs, encoder)
        if window.position is None:
            keys = project(norm(window.features)).unflatten(-1, (self.num_heads, self.head_dim))
            return torch.einsum("qhd,qwhd->qhw", q, keys)
        per_head = project.weight.unflatten(0, (self.num_heads, self.head_dim))
        absorbed = torch.einsum("qhd,hdc->qhc", q, per_head * norm.weight)
        bias = torch.einsum("qhd,hd->qh", q, per_head @ norm.bias)
        raw = absorbed @ window.features.transpose(1, 2) + absorbed @ window.position.T
        return raw * window.scale[:, None] + bias[..., None]

    def _values(self, encoder: int, weights: Tensor, window: "_Window") -> Float[Tensor, "queries heads head_dim"]:
        norm, project = _projection(self.v_norms, self.v_projs, encoder)
        if window.position is None:
            values = project(norm(window.features)).unflatten(-1, (self.num_heads, self.head_dim))
            return torch.einsum("qhw,qwhd->qhd", weights, values)
        per_head = project.weight.unflatten(0, (self.num_heads, self.head_dim))
        scaled = weights * window.scale[:, None]
        gathered = scaled @ window.features + scaled @ window.position
        total = weights.sum(-1, keepdim=True)
        return torch.einsum("qhc,hdc->qhd", gathered, per_head * norm.weight) + total * (per_head @ norm.bias)


def _projection(norms: nn.ModuleList, projections: nn.ModuleList, encoder: int) -> tuple[nn.LayerNorm, nn.Linear]:
    return cast(nn.LayerNorm, norms[encoder]), cast(nn.Linear, projections[encoder])


class _Window(NamedTuple):
    """Features of one encoder in every query's window, ready to be normalised without being copied.

    LayerNorm(feature + position) is (features + position) * scale, both centred; `scale` is 1 / standard deviation.
    """

    features: Float[Tensor, "queries window width"]
    position: Float[Tensor, "window width"] | None
    scale: Float[Tensor, "queries window"]

    @staticmethod
    def build(features: Tensor, position: Tensor | None) -> "_Window":
        if position is None:
            return _Window(features, None, features.new_empty(0, 0))
        position = (position - position.mean(-1, keepdim=True)).to(features.dtype)
        width = features.shape[-1]
        precise, precise_position = features.float(), position.float()
        variance = precise.square().mean(-1) + precise_position.square().mean(-1)
        variance = variance + 2 / width * torch.einsum("qwc,wc->qw", precise, precise_position)
        return _Window(features, position, (variance.clamp(min=0) + LAYER_NORM_EPS).rsqrt().to(features.dtype))


class SVABlock(nn.Module):
    """One aggregation step: a query and its picture's summary ask, attention answers, a small MLP writes back."""

    def __init__(
        self,
        query_dim: int,
        width: int,
        windows: Sequence[WindowShape],
        num_heads: int,
        summary_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.proj_context = nn.Linear(summary_dim or width, width, bias=False)
        self.proj_in = nn.Linear(query_dim + width, width, bias=False)
        self.attention = WindowAttention(width, windows, num_heads)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.proj_out = nn.Sequential(
            nn.Linear(width, width, bias=False), nn.GELU(), nn.Linear(width, query_dim, bias=False)
        )

    @property
    def write_back(self) -> nn.Linear:
        """The last projection; with zero weights the block adds nothing."""
        return cast(nn.Linear, self.proj_out[-1])

    def forward(
        self, queries: Float[Tensor, "queries query_dim"], context: VisualContext
    ) -> Float[Tensor, "queries query_dim"]:
        """Returns the queries with what they gathered added."""
        from_query, from_summary = self.proj_in.weight.split([queries.shape[-1], self.norm.weight.shape[0]], dim=1)
        summary = functional.linear(self.proj_context(context.summary), from_summary)  # once per picture
        hidden = functional.linear(queries, from_query) + summary.index_select(0, context.image_of_query)
        hidden = self.norm(hidden + self.attention(hidden, context))
        return queries + self.proj_out(hidden)


class SVAConnector(Connector):
    """Visual features of several encoders to image tokens, through learnable queries on a grid."""

    def __init__(self, config: CambrianConfig, spec: SVAConfig) -> None:
        super().__init__(config)
        encoders, dim = config.encoders, config.get_text_config().hidden_size
        self.query_grid_sides, self.has_in_llm_blocks = spec.query_grid_sides, spec.in_llm is not None
        self.inputs = nn.ModuleList(_input_projection(encoder.width, spec.width) for encoder in encoders)
        self.groups = nn.ModuleList(
            nn.ModuleList(
                SVABlock(spec.width, spec.width, window_shapes(encoders, side, spec.width), spec.num_heads)
                for _ in range(spec.depth)
            )
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

    def forward(
        self, features: Sequence[Float[Tensor, "images _tokens _width"]], image_sizes: Sequence[Sequence[int]]
    ) -> Connected:
        """Aggregates every encoder's window into each query; all groups end on the final grid."""
        projected = [project(x) for project, x in zip(self.inputs, features, strict=True)]
        groups = []
        for query, side, blocks in zip(self.query, self.query_grid_sides, self.groups, strict=True):
            context = self.context(projected, image_sizes, side)
            queries = query.to(projected[0].dtype).expand(context.image_of_query.shape[0], -1)
            for block in cast(nn.ModuleList, blocks):
                queries = block(queries, context)
            cells = queries.reshape(projected[0].shape[0], side * side, queries.shape[-1])
            groups.append(resize_grid(cells, self.grid_side))
        cells = self.output(torch.cat(groups, dim=-1))
        return Connected(
            cells, self.context(projected, image_sizes, self.grid_side) if self.has_in_llm_blocks else None
        )

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
            centred = x - x.mean(-1, keepdim=True)
            mask = window_masks(image_sizes, round(x.shape[1] ** 0.5), query_side)
            windows.append(to_windows(centred, query_side).flatten(0, 1))
            masks.append(mask.flatten(0, 1).to(device))
        image_of_query = torch.arange(images, device=device).repeat_interleave(query_side**2)
        return VisualContext(tuple(windows), tuple(masks), projected[0].mean(1), image_of_query)


def in_llm_block(config: CambrianConfig) -> SVABlock:
    """Builds a fresh block for inside the language model: its hidden states ask, one per cell of the final grid."""
    spec = cast(SVAConfig, config.connector_config)
    windows = window_shapes(config.encoders, config.grid_side, spec.width)
    return SVABlock(config.get_text_config().hidden_size, spec.width, windows, spec.num_heads)


def window_shapes(encoders: Sequence[VisionEncoderConfig], query_side: int, width: int) -> list[WindowShape]:
    """Each encoder's window for a query grid of `query_side`; all features are projected to `width`."""
    return [WindowShape(encoder.grid_side // query_side, width) for encoder in encoders]


def _input_projection(dim: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(dim, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width, eps=LAYER_NORM_EPS)
    )
