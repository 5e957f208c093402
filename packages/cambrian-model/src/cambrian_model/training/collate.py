"""Collating: encoded samples become the rows of a batch, and none of them sees another.

In a row `position_ids` start again at every sample, which keeps samples apart as long as there is no attention mask:
transformers reads the boundaries from the positions, and an all-ones mask would undo that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from cambrian_model.processing.sample import IGNORED_LABEL, Sample


@dataclass(frozen=True)
class Batch:
    """Packed rows, ready for the model.

    Attributes:
        inputs: Keyword arguments of the model's `forward`: input_ids, labels, position_ids, image_sizes, and either
            pixel_values or vision_features. Deliberately no attention_mask.
        tokens: Tokens that are not padding.
        supervised_tokens: Tokens that the loss counts.
        images: Pictures.
        samples: Samples.
        capacity: Tokens with padding.
    """

    inputs: dict[str, Any]
    tokens: int
    supervised_tokens: int
    images: int
    samples: int
    capacity: int

    def to(self, device: torch.device) -> dict[str, Any]:
        """Returns the inputs on `device`."""
        return {
            name: [tensor.to(device, non_blocking=True) for tensor in value]
            if isinstance(value, list)
            else value.to(device, non_blocking=True)
            for name, value in self.inputs.items()
        }


def collate(
    rows: Sequence[Sequence[Sample]],
    row_tokens: int,
    pad_token_id: int,
    num_rows: int | None = None,
    empty: Sample | None = None,
) -> Batch:
    """Lays samples end to end in rows of `row_tokens`; the padding behind them is a document of its own.

    Pictures stand in the order in which their tokens do.

    Args:
        rows: The samples of each row; a row may be empty.
        row_tokens: Length of a row.
        pad_token_id: Fills what no sample does.
        num_rows: Rows of the batch; those behind `rows` are all padding. None for as many as `rows`.
        empty: A sample without pictures: the shapes of its pixels or features are those of a batch without any
            sample, which every rank must be able to run. Not needed where every batch has one.
    """
    num_rows = len(rows) if num_rows is None else num_rows
    assert num_rows >= len(rows), f"{len(rows)} rows do not fit into a batch of {num_rows}"
    shape = (num_rows, row_tokens)
    input_ids = torch.full(shape, pad_token_id, dtype=torch.long)
    labels = torch.full(shape, IGNORED_LABEL, dtype=torch.long)
    position_ids = torch.arange(row_tokens).repeat(num_rows, 1)
    for row, samples in enumerate(rows):
        end = _fill_row(input_ids[row], labels[row], position_ids[row], samples)
        position_ids[row, end:] = torch.arange(row_tokens - end)
    flat = [sample for samples in rows for sample in samples]
    pictures = _join_pictures(flat or ([] if empty is None else [empty]))
    return Batch(
        inputs={"input_ids": input_ids, "labels": labels, "position_ids": position_ids, **pictures},
        tokens=sum(sample.num_tokens for sample in flat),
        supervised_tokens=int((labels != IGNORED_LABEL).sum()),
        images=len(pictures["image_sizes"]),
        samples=len(flat),
        capacity=num_rows * row_tokens,
    )


def _join_pictures(samples: Sequence[Sample]) -> dict[str, Any]:
    assert samples, "a batch without samples needs an empty one for the shapes of its pictures"
    image_sizes = torch.cat([sample.image_sizes for sample in samples])
    features = [sample.vision_features for sample in samples if sample.vision_features is not None]
    assert len(features) in (0, len(samples)), "a batch has either features of all its samples or none"
    name, pictures = ("vision_features", features) if features else ("pixel_values", [s.pixel_values for s in samples])
    return {name: [torch.cat(images) for images in zip(*pictures, strict=True)], "image_sizes": image_sizes}


def _fill_row(
    input_ids: Int[Tensor, " row"],
    labels: Int[Tensor, " row"],
    position_ids: Int[Tensor, " row"],
    samples: Sequence[Sample],
) -> int:
    """Writes samples into one row and returns where they end."""
    end = 0
    for sample in samples:
        start, end = end, end + sample.num_tokens
        input_ids[start:end] = sample.input_ids
        labels[start:end] = sample.labels
        labels[start] = IGNORED_LABEL  # the model shifts labels: this one would be predicted from the sample before
        position_ids[start:end] = torch.arange(end - start)
    return end
