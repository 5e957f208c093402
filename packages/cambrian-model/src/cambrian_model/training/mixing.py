"""Mixing: which samples of which sources an epoch takes, and in which order, as rows of packed samples.

The plan of an epoch is a pure function of (hash of the index, seed, epoch), so a run's place in its data is two
integers: nothing of it depends on the number of devices or workers, and an epoch is planned without those before it.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cambrian_model.errors import TrainingError
from cambrian_model.training.packing import Limits, Row, pack

WINDOW = 4096  # samples packed together; rows stay random in order and company across windows

Numbers: TypeAlias = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class MixtureIndex:
    """What is known of every sample before it is encoded: all samples of all sources, end to end.

    Attributes:
        lengths: Tokens of each sample; 0 of one that could not be read.
        num_images: Its pictures.
        picture_ends: Its tokens up to the end of the last picture; 0 without pictures.
        first_supervised: Place of the first token that it is trained on, from 0.
        source: Number of its source.
        names: Of the sources.
        weights: Of the sources: how often an epoch takes each sample of the source, on average.
        hash: 64 bits that stand for the data.

    Raises:
        TrainingError: A source is empty, or its weight is not a positive number.
    """

    lengths: Numbers
    num_images: Numbers
    picture_ends: Numbers
    first_supervised: Numbers
    source: Numbers
    names: list[str]
    weights: list[float]
    hash: int

    def __post_init__(self) -> None:
        arrays = (self.lengths, self.num_images, self.picture_ends, self.first_supervised, self.source)
        assert {array.shape for array in arrays} == {(len(self),)}, "an array lacks samples"
        if not len(self):
            raise TrainingError("there are no samples to train on; name at least one source that has some")
        sizes = np.bincount(self.source, minlength=len(self.names)).tolist()
        for name, weight, size in zip(self.names, self.weights, sizes, strict=True):
            if not 0 < weight < math.inf:
                raise TrainingError(f'source "{name}" has weight {weight}; expected a number above 0, or leave it out')
            if not size:
                raise TrainingError(f'source "{name}" has no samples; take it out of the stage\'s data')

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True)
class Plan:
    """The rows of one epoch.

    Attributes:
        rows: Numbers of the samples in each row, rows in training order.
        dropped: Samples that no epoch takes, by reason.
        truncated: Samples whose text is cut at the end of a row, in whichever epochs take them.
        fill: Share of the rows' tokens that are samples and not padding.
        token_share: Share of the samples' tokens that each source has, counted after cutting.
    """

    rows: list[Row]
    dropped: dict[str, list[int]] = field(default_factory=dict)
    truncated: list[int] = field(default_factory=list)
    fill: float = 0.0
    token_share: dict[str, float] = field(default_factory=dict)


def plan_epoch(
    index: MixtureIndex, limits: Limits, seed: int, epoch: int, too_long: Literal["truncate", "drop"] = "truncate"
) -> Plan:
    """Chooses the samples of one epoch, shuffles them, and packs them into rows window by window.

    Args:
        index: The samples.
        limits: What a row holds.
        seed: The recipe's.
        epoch: From 0.
        too_long: What becomes of a sample longer than a row. "truncate" cuts its text, but drops it if a picture or
            everything that it is trained on would be cut.

    Raises:
        TrainingError: No sample fits into a row, or an epoch would take none.
    """
    dropped = _misfits(index, limits, too_long)
    fits = np.ones(len(index), bool)
    for numbers in dropped.values():
        fits[numbers] = False
    _require_any(fits, index, limits, dropped)
    random = np.random.default_rng([index.hash, seed, epoch])
    order = random.permutation(_taken(index, fits, seed, epoch))
    tokens = np.minimum(index.lengths, limits.row_tokens)
    rows: list[Row] = []
    for window in np.array_split(order, -(-len(order) // WINDOW)):
        packed = pack(window, tokens, index.num_images, limits)
        rows += [packed[i] for i in random.permutation(len(packed))]
    tokens_of = np.bincount(index.source[order], weights=tokens[order], minlength=len(index.names))
    return Plan(
        rows,
        {reason: numbers.tolist() for reason, numbers in dropped.items()},
        np.flatnonzero(fits & (index.lengths > limits.row_tokens)).tolist(),
        fill=float(tokens_of.sum()) / (len(rows) * limits.row_tokens),
        token_share=dict(zip(index.names, (tokens_of / tokens_of.sum()).tolist(), strict=True)),
    )


def steps_of(plan: Plan, step_rows: int) -> list[list[Row]]:
    """Cuts an epoch into the rows of one optimizer step each; the last one may have fewer."""
    return [plan.rows[start : start + step_rows] for start in range(0, len(plan.rows), step_rows)]


def _misfits(index: MixtureIndex, limits: Limits, too_long: str) -> dict[str, Numbers]:
    """Returns the samples that cannot be used, by reason; only the first reason of each counts."""
    row = f"a row of {limits.row_tokens} tokens"
    long = index.lengths > limits.row_tokens
    reasons = {
        "could not be read when the data was indexed": index.lengths == 0,
        f"longer than {row}": long & (too_long == "drop"),
        f"a picture does not end within {row}": long & (index.picture_ends > limits.row_tokens),
        f"no supervised token within {row}": long & (index.first_supervised >= limits.row_tokens),
    }
    if limits.max_images is not None:
        reasons[f"more than {limits.max_images} images"] = index.num_images > limits.max_images
    dropped: dict[str, Numbers] = {}
    counted = np.zeros(len(index), bool)
    for reason, is_misfit in reasons.items():
        if (numbers := np.flatnonzero(is_misfit & ~counted)).size:
            dropped[reason] = numbers
        counted |= is_misfit
    return dropped


def _require_any(fits: NDArray[np.bool_], index: MixtureIndex, limits: Limits, dropped: dict[str, Numbers]) -> None:
    if not fits.any():
        reasons = "; ".join(f"{len(numbers)}: {reason}" for reason, numbers in dropped.items())
        if not index.lengths.any():
            raise TrainingError(f"none of {len(index)} samples can be used ({reasons}); see bad_samples.jsonl")
        raise TrainingError(
            f"none of {len(index)} samples fits into a row of {limits} ({reasons}; shortest sample: "
            f"{index.lengths.min()} tokens); raise batch.row_tokens or batch.max_images"
        )
    per_epoch = np.bincount(index.source[fits], minlength=len(index.names)) * np.array(index.weights)
    if per_epoch.max() < 1:
        raise TrainingError(
            f"an epoch takes less than one sample of every source (weights {index.weights}, {fits.sum()} samples); "
            "raise the weights"
        )


def _taken(index: MixtureIndex, fits: NDArray[np.bool_], seed: int, epoch: int) -> Numbers:
    """Returns the samples that an epoch takes, source after source; a weight above 1 takes some more than once."""
    parts = []
    for source, weight in enumerate(index.weights):
        samples = np.flatnonzero(fits & (index.source == source))
        # The same in every epoch; the spawn key keeps it apart from the numbers that shuffle one.
        random = np.random.default_rng(np.random.SeedSequence([index.hash, seed], spawn_key=(source,)))
        parts.append(_walk(samples, weight, epoch, random))
    return np.concatenate(parts)


def _walk(samples: Numbers, weight: float, epoch: int, random: np.random.Generator) -> Numbers:
    """Returns one epoch's share of a walk round and round the shuffled samples, `weight` rounds per epoch.

    So every sample is taken before any is taken again, and counts never stray by more than one from what the weight
    says, over any number of epochs.
    """
    if not samples.size:
        return samples
    begin, end = (math.floor(e * weight * len(samples) + 0.5) for e in (epoch, epoch + 1))
    rounds, rest = divmod(end - begin, len(samples))
    whole = np.tile(samples, rounds)
    if not rest:
        return whole
    places = np.arange(begin, begin + rest) % len(samples)
    return np.concatenate([whole, random.permutation(samples)[places]])
