"""Attention of one query to its window in every encoder's grid: joint over all encoders, or separate for each.

Notable: every encoder gives its own output and the logarithm of its summed scores; a softmax over those joins the parts
to exactly one softmax over all keys. A window of several features is attended to with absorbed projections
(`window_attend`), a window of one is projected, which costs the same.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from cambrian_model.connectors.window_attend import LAYER_NORM_EPS, window_attend


class WindowShape(NamedTuple):
    """One encoder's window, as a query sees it: features per side, and channels of each."""

    side: int
    dim: int


class WindowAttention(nn.Module):
    """One query attends to its windows: one softmax across all encoders."""

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
        self,
        queries: Float[Tensor, "queries width"],
        features: Sequence[Float[Tensor, "queries _window _dim"]],
        masks: Sequence[Bool[Tensor, "queries _window"]],
    ) -> Float[Tensor, "queries width"]:
        """Returns the attention output for every query; each needs one visible feature."""
        q = self.q_proj(self.q_norm(queries)) * self.head_dim**-0.5
        q = q.unflatten(-1, (self.num_heads, self.head_dim))
        parts = [self._attend(i, q, x, mask) for i, (x, mask) in enumerate(zip(features, masks, strict=True))]
        visible = torch.stack([mask.any(-1) for mask in masks], dim=-1)[:, None]  # queries, 1, encoders
        log_sums = torch.stack([part.log_sum for part in parts], dim=-1)
        shares = log_sums.masked_fill(~visible, float("-inf")).softmax(dim=-1).to(q.dtype)
        outputs = [share * part.output for share, part in zip(shares.split(1, dim=-1), parts, strict=True)]
        return self.o_proj(functools.reduce(torch.add, outputs).flatten(1))

    def _attend(self, encoder: int, q: Tensor, features: Tensor, mask: Tensor) -> "_Part":
        key, value = self._key(encoder), self._value(encoder)
        if str(encoder) not in self.pos_embeds:
            features = features.squeeze(1)
            keys, values = (layer.project(features).unflatten(-1, q.shape[1:]) for layer in (key, value))
            return _Part((q * keys).sum(-1), values)
        weights = (key.linear.weight, key.norm.weight, value.linear.weight, value.norm.weight)
        arguments = (x.to(q.dtype) for x in (*weights, features, self.pos_embeds[str(encoder)]))
        output, log_sum, _ = window_attend(q, *arguments, mask)
        # The norms' biases: one number more for all keys of a window changes no weight among them, only the sum.
        k_bias, v_bias = (layer.bias().to(q.dtype).unflatten(0, q.shape[1:]) for layer in (key, value))
        return _Part(log_sum + (q * k_bias).sum(-1), output + v_bias)

    def _key(self, encoder: int) -> "_Projection":
        return _Projection(cast(nn.LayerNorm, self.k_norms[encoder]), cast(nn.Linear, self.k_projs[encoder]))

    def _value(self, encoder: int) -> "_Projection":
        return _Projection(cast(nn.LayerNorm, self.v_norms[encoder]), cast(nn.Linear, self.v_projs[encoder]))


class _Part(NamedTuple):
    """What one encoder gives to the attention: the log of its summed scores, and its own output."""

    log_sum: Float[Tensor, "queries heads"]
    output: Float[Tensor, "queries heads head_dim"]


class _Projection(NamedTuple):
    """A LayerNorm and the linear layer behind it."""

    norm: nn.LayerNorm
    linear: nn.Linear

    def project(self, features: Float[Tensor, "queries dim"]) -> Float[Tensor, "queries width"]:
        return self.linear(self.norm(features))

    def bias(self) -> Float[Tensor, " width"]:
        """Returns what the norm's bias adds to every projected feature."""
        return functional.linear(self.norm.bias, self.linear.weight)
