"""Packing: several samples share a row of fixed length, and none of them sees another.

Which sample goes where is a pure function of (lengths, index hash, seed, epoch), so a run's place in its data is two
integers. In a collated row `position_ids` start again at every sample, which keeps samples apart as long as there is
no attention mask: transformers reads the boundaries from the positions, and an all-ones mask would undo that.
"""

import bisect
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from cambrian_model.errors import TrainingError
from cambrian_model.processing.sample import IGNORED_LABEL, Sample

WINDOW = 4096  # samples packed together; rows stay random in order and company across windows

Row = list[int]  # indices of the samples in one packed row


class Limits(NamedTuple):
    """What a row holds at most."""

    row_tokens: int
    max_images: int | None = None


@dataclass(frozen=True)
class Plan:
    """The rows of one epoch.

    Attributes:
        rows: Sample indices of each row, rows in training order.
        dropped: Indices of the samples that fit into no row, by reason.
        fill: Share of the rows' tokens that are samples and not padding.
    """

    rows: list[Row]
    dropped: dict[str, list[int]] = field(default_factory=dict)
    fill: float = 0.0


def plan_epoch(
    lengths: Sequence[int], num_images: Sequence[int], limits: Limits, index_hash: int, seed: int, epoch: int
) -> Plan:
    """Shuffles the samples of one epoch and packs them into rows: best fit decreasing inside shuffled windows.

    Args:
        lengths: Tokens of each sample.
        num_images: Pictures of each sample.
        limits: What a row holds.
        index_hash: Hash of the data, see `index.DataIndex`.
        seed: The recipe's.
        epoch: From 0.

    Raises:
        TrainingError: No sample fits into a row.
    """
    dropped = _misfits(lengths, num_images, limits)
    unfit = {sample for samples in dropped.values() for sample in samples}
    random = np.random.default_rng([index_hash, seed, epoch])
    order = [sample for sample in random.permutation(len(lengths)).tolist() if sample not in unfit]
    if not order:
        raise TrainingError(
            f"none of {len(lengths)} samples fits into a row of {limits.row_tokens} tokens"
            f"{f' and {limits.max_images} images' if limits.max_images else ''} "
            f"(shortest sample: {min(lengths, default=0)} tokens); raise batch.row_tokens or batch.max_images"
        )
    rows: list[Row] = []
    for start in range(0, len(order), WINDOW):
        packed = pack(order[start : start + WINDOW], lengths, num_images, limits)
        rows.extend(packed[i] for i in random.permutation(len(packed)))
    fill = sum(lengths[sample] for sample in order) / (len(rows) * limits.row_tokens)
    return Plan(rows, dropped, fill)


def pack(samples: Sequence[int], lengths: Sequence[int], num_images: Sequence[int], limits: Limits) -> list[Row]:
    """Packs samples that each fit into a row: longest first, each into the fullest row that still has room.

    Source: best-fit decreasing, at most 11/9 of the fewest rows possible (Johnson 1973).
    """
    most_images = limits.max_images if limits.max_images is not None else sys.maxsize
    rows: list[Row] = []
    image_room: list[int] = []
    open_rows: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for sample in sorted(samples, key=lambda sample: -lengths[sample]):
        place = bisect.bisect_left(open_rows, (lengths[sample], -1))
        while place < len(open_rows) and image_room[open_rows[place][1]] < num_images[sample]:
            place += 1
        if place == len(open_rows):
            left, row = limits.row_tokens, len(rows)
            rows.append([])
            image_room.append(most_images)
        else:
            left, row = open_rows.pop(place)
        rows[row].append(sample)
        image_room[row] -= num_images[sample]
        bisect.insort(open_rows, (left - lengths[sample], row))
    return rows


def steps_of(plan: Plan, step_rows: int) -> list[list[Row]]:
    """Cuts an epoch into the rows of one optimizer step each; the last one may have fewer."""
    return [plan.rows[start : start + step_rows] for start in range(0, len(plan.rows), step_rows)]


@dataclass(frozen=True)
class Batch:
    """Packed rows, ready for the model.

    Attributes:
        inputs: Keyword arguments of the model's `forward`: input_ids, labels, position_ids, and, if it has
            encoders, pixel_values and image_sizes. Deliberately no attention_mask.
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


def collate(rows: Sequence[Sequence[Sample]], row_tokens: int, pad_token_id: int) -> Batch:
    """Lays samples end to end in rows of `row_tokens`; the padding behind them is a document of its own.

    Pictures stand in the order in which their tokens do.
    """
    shape = (len(rows), row_tokens)
    input_ids = torch.full(shape, pad_token_id, dtype=torch.long)
    labels = torch.full(shape, IGNORED_LABEL, dtype=torch.long)
    position_ids = torch.empty(shape, dtype=torch.long)
    for row, samples in enumerate(rows):
        end = _fill_row(input_ids[row], labels[row], position_ids[row], samples)
        position_ids[row, end:] = torch.arange(row_tokens - end)
    flat = [sample for samples in rows for sample in samples]
    pixel_values = [torch.cat(images) for images in zip(*(sample.pixel_values for sample in flat), strict=True)]
    image_sizes = torch.cat([sample.image_sizes for sample in flat])
    return Batch(
        inputs={
            "input_ids": input_ids,
            "labels": labels,
            "position_ids": position_ids,
            "pixel_values": pixel_values,
            "image_sizes": image_sizes,
        },
        tokens=sum(len(sample.input_ids) for sample in flat),
        supervised_tokens=int((labels != IGNORED_LABEL).sum()),
        images=len(image_sizes),
        samples=len(flat),
        capacity=len(rows) * row_tokens,
    )


def _fill_row(
    input_ids: Int[Tensor, " row"],
    labels: Int[Tensor, " row"],
    position_ids: Int[Tensor, " row"],
    samples: Sequence[Sample],
) -> int:
    """Writes samples into one row and returns where they end."""
    end = 0
    for sample in samples:
        start, end = end, end + len(sample.input_ids)
        input_ids[start:end] = sample.input_ids
        labels[start:end] = sample.labels
        labels[start] = IGNORED_LABEL  # the model shifts labels: this one would be predicted from the sample before
        position_ids[start:end] = torch.arange(end - start)
    return end


def _misfits(lengths: Sequence[int], num_images: Sequence[int], limits: Limits) -> dict[str, list[int]]:
    too_long = [i for i, length in enumerate(lengths) if length > limits.row_tokens]
    most_images = limits.max_images
    too_many = [i for i, count in enumerate(num_images) if most_images is not None and count > most_images]
    reasons = {
        f"longer than a row of {limits.row_tokens} tokens": too_long,
        f"more than {most_images} images": [i for i in too_many if lengths[i] <= limits.row_tokens],
    }
    return {reason: samples for reason, samples in reasons.items() if samples}
