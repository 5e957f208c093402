"""Attention of packed rows on a CPU, document by document.

A CPU computes every pair of a row and then masks away those of different documents, in rows of 768 tokens most of its
attention. Here each document attends by itself, under its own part of the mask, so that sliding windows and whatever
else a mask says stay as they are. Where rows are no packed ones, or on any other device, this is transformers' "sdpa".
"""

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

BY_DOCUMENT = "sdpa_by_document"


def attend_by_document(
    module: nn.Module,
    query: Float[Tensor, "batch heads sequence dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    value: Float[Tensor, "batch kv_heads keys v_dim"],
    attention_mask: Tensor | None,
    position_ids: Tensor | None = None,
    **options: Any,
) -> tuple[Float[Tensor, "batch sequence heads v_dim"], None]:
    """Attends as transformers' "sdpa" does."""
    if attention_mask is None or position_ids is None or not _is_packed(query, key, attention_mask, position_ids):
        options["position_ids"] = position_ids
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    rows = []
    for q, k, v, mask, positions in zip(query, key, value, attention_mask, position_ids, strict=True):
        bounds = _document_bounds(positions)
        lengths = [end - start for start, end in pairwise(bounds)]
        documents = zip(*(x[None].split(lengths, dim=2) for x in (q, k, v)), pairwise(bounds), strict=True)
        parts = [
            sdpa_attention_forward(module, *qkv, mask[None, :, start:end, start:end], **options)[0]
            for *qkv, (start, end) in documents
        ]
        rows.append(torch.cat(parts, dim=1))
    return torch.cat(rows), None


def _is_packed(query: Tensor, key: Tensor, mask: Tensor, position_ids: Tensor) -> bool:
    """Tells whether these are whole rows on a CPU in which positions start again."""
    batch, sequence = query.shape[0], query.shape[2]
    return (
        query.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and position_ids.shape == (batch, sequence)
        and mask.shape[0] == batch
        and mask.shape[2:] == (sequence, key.shape[2])
        and key.shape[2] == sequence
        and bool((position_ids[:, 1:] == 0).any())
    )


def _document_bounds(positions: Int[Tensor, " sequence"]) -> list[int]:
    starts = torch.nonzero(positions[1:] == 0).flatten() + 1
    return [0, *starts.tolist(), len(positions)]


AttentionInterface.register(BY_DOCUMENT, attend_by_document)
AttentionMaskInterface.register(BY_DOCUMENT, sdpa_mask)
