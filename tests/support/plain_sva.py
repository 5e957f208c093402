"""The SVA block as its definition reads, every feature projected: the oracle of ours, which never does so.

Written from the paper and from the recorded parameters' names; it computes with the parameters of one of our blocks.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from cambrian_model.connectors.sva import SVABlock
from cambrian_model.connectors.visual_context import VisualContext
from cambrian_model.connectors.window_attention import WindowAttention


def plain_block(block: SVABlock, queries: Tensor, context: VisualContext) -> Tensor:
    """What `block(queries, context)` must return."""
    summary = block.proj_context(context.summary)[context.image_of_query]
    both = torch.cat([queries, summary], dim=-1)
    hidden = block.proj_in(both)
    if block.attention is not None:
        gathered = plain_attention(block.attention, hidden, list(context.features), list(context.masks))
    else:
        encoders = cast(nn.ModuleList, block.per_encoder)
        parts = [
            plain_attention(encoder, hidden, [x], [mask]) if isinstance(encoder, WindowAttention) else encoder(x[:, 0])
            for encoder, x, mask in zip(encoders, context.features, context.masks, strict=True)
        ]
        weights = block.weighting(both).softmax(-1) if block.weighting is not None else torch.ones(len(queries), 1)
        gathered = torch.stack([weights[:, i : i + 1] * part for i, part in enumerate(parts)]).sum(0)
    return queries + block.proj_out(block.norm(hidden + gathered))


def plain_attention(attention: WindowAttention, queries: Tensor, features: list[Tensor], masks: list[Tensor]) -> Tensor:
    heads = (attention.num_heads, attention.head_dim)
    pos = attention.pos_embeds
    positioned = [x + pos[str(i)] if str(i) in pos else x for i, x in enumerate(features)]
    keys = _project(positioned, attention.k_norms, attention.k_projs)
    values = _project(positioned, attention.v_norms, attention.v_projs)
    query = attention.q_proj(attention.q_norm(queries))[:, None]
    q, k, v = (x.unflatten(-1, heads).transpose(1, 2) for x in (query, keys, values))
    visible = torch.cat(masks, dim=1)[:, None, None]
    output = functional.scaled_dot_product_attention(q, k, v, attn_mask=visible)
    return attention.o_proj(output.transpose(1, 2).flatten(1))


def _project(features: list[Tensor], norms: nn.ModuleList, projections: nn.ModuleList) -> Tensor:
    parts = [project(norm(x)) for x, norm, project in zip(features, norms, projections, strict=True)]
    return torch.cat(parts, dim=1)
