"""One encoder's part of the attention: a query attends to its whole window, and no feature of it is ever projected.

Notable: with one query per window, `q W_k` comes first and then the dot product with the normalised features, and their
weighted sum comes before `W_v`. That gives the same numbers as projecting every feature for a fraction of the work.
What lies between is as large as the window itself, so it is computed for a few queries at a time, and made again in the
backward pass instead of being kept. A custom operator, so that a compiler sees one node of any number of queries.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

LAYER_NORM_EPS = 1e-5
# Bytes of intermediates at a time. On a CPU they stay near the caches and in memory that the allocator reuses.
_CHUNK_BYTES = {"cpu": 12 << 20}
_CHUNK_BYTES_ELSEWHERE = 256 << 20


@torch.library.custom_op("cambrian::window_attend", mutates_args=())
def window_attend(
    q: Tensor,
    k_weight: Tensor,
    k_gain: Tensor,
    v_weight: Tensor,
    v_gain: Tensor,
    features: Tensor,
    position: Tensor,
    mask: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attends to each query's window of LayerNorm(features + position), projected to keys and values.

    Args:
        q: (queries, heads, head_dim), scaled.
        k_weight: (heads * head_dim, width), of the key projection, which has no bias.
        k_gain: (width,), the weight of the key's LayerNorm. Its bias is left to the caller.
        v_weight: As `k_weight`, of the value projection.
        v_gain: As `k_gain`.
        features: (queries, window, width).
        position: (window, width), added to every window.
        mask: (queries, window), true where a feature may be seen. Of a window with none, the result is some finite one.

    All but the mask are of one type.

    Returns:
        The attention's output, (queries, heads, head_dim); the logarithm of the sum of its exponentiated scores,
        (queries, heads) in at least float32, by which the parts of several encoders are joined; and its weights,
        (queries, heads, window), which only the backward pass needs.
    """
    output, weights = torch.empty_like(q), q.new_empty(*q.shape[:2], features.shape[1])
    log_sums = torch.empty(q.shape[:2], dtype=_precise(q), device=q.device)
    with torch.autocast(q.device.type, enabled=False):
        k, v = _per_head(k_weight * k_gain, q), _per_head(v_weight * v_gain, q).transpose(1, 2)
        for rows in _chunks(q, features):
            normed = _Normed.of(features[rows], position).values
            scores = torch.bmm(_times(q[rows], k), normed.transpose(1, 2)).to(log_sums.dtype)
            scores.masked_fill_(~mask[rows, None], torch.finfo(scores.dtype).min)
            log_sums[rows] = scores.logsumexp(-1)
            weights[rows] = scores.softmax(-1)
            output[rows] = _times(torch.bmm(weights[rows], normed), v)
    return output, log_sums, weights


@window_attend.register_fake
def _(
    q: Tensor,
    k_weight: Tensor,
    k_gain: Tensor,
    v_weight: Tensor,
    v_gain: Tensor,
    features: Tensor,
    position: Tensor,
    mask: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    log_sums = torch.empty(q.shape[:2], dtype=_precise(q), device=q.device)
    return torch.empty_like(q), log_sums, q.new_empty(*q.shape[:2], features.shape[1])


@torch.library.custom_op("cambrian::window_attend_backward", mutates_args=())
def _backward(
    grad: Tensor,
    log_sums_grad: Tensor,
    q: Tensor,
    k_weight: Tensor,
    k_gain: Tensor,
    v_weight: Tensor,
    v_gain: Tensor,
    features: Tensor,
    position: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradients of the seven inputs, from `q` to `position`.

    What the output's gradient asks of the values and what the query asks of the keys go the same ways, side by side.
    """
    heads = q.shape[1]
    q_grad, features_grad = torch.empty_like(q), torch.empty_like(features)
    position_grad = torch.zeros_like(position, dtype=_precise(position))
    with torch.autocast(q.device.type, enabled=False):
        v_and_k = torch.cat([_per_head(v_weight * v_gain, q), _per_head(k_weight * k_gain, q)])
        k_transposed = v_and_k[heads:].transpose(1, 2)
        v_and_k_grad = torch.zeros_like(v_and_k, dtype=_precise(q))
        for rows in _chunks(q, features):
            normed, w = _Normed.of(features[rows], position), weights[rows]
            asking = torch.cat([grad[rows], q[rows]], dim=1)
            asked = _times(asking, v_and_k)  # queries, 2 * heads, width
            w_grad = torch.bmm(asked[:, :heads], normed.values.transpose(1, 2)).to(log_sums_grad.dtype)
            centred = w_grad - (w_grad * w).sum(-1, keepdim=True) + log_sums_grad[rows, :, None]
            shares = torch.cat([w, (w * centred).to(q.dtype)], dim=1)  # of the values, and of the scores' gradient
            gathered = torch.bmm(shares, normed.values)
            v_and_k_grad += _outer(asking, gathered)
            q_grad[rows] = _times(gathered[:, heads:], k_transposed)
            features_grad[rows] = normed.differentiate(torch.bmm(shares.transpose(1, 2), asked))
            position_grad += features_grad[rows].sum(0)
        v_grad, k_grad = v_and_k_grad.flatten(0, 1).chunk(2)
        k_grads, v_grads = _of_product(k_grad, k_weight, k_gain), _of_product(v_grad, v_weight, v_gain)
    return (q_grad, *k_grads, *v_grads, features_grad, position_grad.to(position.dtype))


@_backward.register_fake
def _(
    grad: Tensor,
    log_sums_grad: Tensor,
    q: Tensor,
    k_weight: Tensor,
    k_gain: Tensor,
    v_weight: Tensor,
    v_gain: Tensor,
    features: Tensor,
    position: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    q_grad, k_grad, k_gain_grad = torch.empty_like(q), torch.empty_like(k_weight), torch.empty_like(k_gain)
    v_grad, v_gain_grad = torch.empty_like(v_weight), torch.empty_like(v_gain)
    return q_grad, k_grad, k_gain_grad, v_grad, v_gain_grad, torch.empty_like(features), torch.empty_like(position)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:-1], output[2])
    ctx.mark_non_differentiable(output[2])


def _differentiate(ctx: Any, grad: Tensor, log_sums_grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return (*_backward(grad, log_sums_grad, *ctx.saved_tensors), None)


window_attend.register_autograd(_differentiate, setup_context=_keep)


class _Normed(NamedTuple):
    """LayerNorm(features + position) of a few queries, without gain and bias, and what its gradient needs."""

    values: Tensor
    summed: Tensor
    mean: Tensor
    scale: Tensor

    @staticmethod
    def of(features: Tensor, position: Tensor) -> "_Normed":
        summed = features + position
        values, mean, scale = torch.native_layer_norm(summed, summed.shape[-1:], None, None, LAYER_NORM_EPS)
        return _Normed(values, summed, mean, scale)

    def differentiate(self, grad: Tensor) -> Tensor:
        shape, wanted = self.summed.shape[-1:], [True, False, False]
        return torch.ops.aten.native_layer_norm_backward(
            grad, self.summed, shape, self.mean, self.scale, None, None, wanted
        )[0]


def _precise(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _chunks(q: Tensor, features: Tensor) -> Iterator[slice]:
    row = (q.shape[1] + features.shape[1]) * features.shape[2] * features.element_size()
    size = max(_CHUNK_BYTES.get(q.device.type, _CHUNK_BYTES_ELSEWHERE) // row, 1)
    return (slice(start, start + size) for start in range(0, len(q), size))


def _per_head(weight: Tensor, q: Tensor) -> Tensor:
    return weight.unflatten(0, q.shape[1:])  # heads, head_dim, width


def _times(x: Tensor, weight: Tensor) -> Tensor:
    """Multiplies (queries, heads, a) by (heads, a, b), every head by its own matrix, to (queries, heads, b)."""
    return torch.bmm(x.transpose(0, 1), weight).transpose(0, 1)


def _outer(x: Tensor, y: Tensor) -> Tensor:
    """Sums over queries: (queries, heads, a) and (queries, heads, b) to (heads, a, b)."""
    return torch.bmm(x.permute(1, 2, 0), y.transpose(0, 1))


def _of_product(grad: Tensor, weight: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the gradients of a weight and a gain, given that of their product."""
    return (grad * gain).to(weight.dtype), (grad * weight).sum(0).to(gain.dtype)
