"""How full packed rows are beside padded batches, and how long packing takes to plan.

Counts the tokens that a model has to process, not seconds: our rows, batches of random samples padded to their longest,
and batches from the Trainer's sampler `group_by_length`, padded likewise. Lengths are those of captions of rendered
scenes and questions about them, drawn with replacement, and long-tailed ones as instruction data has; samples longer
than a row are cut to it.

    uv run python benchmarks/packing.py --samples 1000000 --row-tokens 2048 --seed 0
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.trainer_pt_utils import get_length_grouped_indices

from cambrian_data.cvbench.scenes import RECORDS, write_scene_records
from cambrian_data.formats import read_records
from cambrian_data.scenes import write_scenes
from cambrian_model.assemble import assemble
from cambrian_model.training.index import index_dataset
from cambrian_model.training.packing import Limits, plan_epoch
from cambrian_model.training.recipe import load_recipe

NUM_SCENES, QUESTIONS_PER_TASK = 300, 100
BATCH_SIZE = 8  # samples of a padded batch; Trainer's default

Lengths = NDArray[np.int64]


def scene_lengths() -> Lengths:
    """Tokens of the captions of rendered scenes, and of questions about them, with the processor of recipe `tiny`."""
    _, processor = assemble(load_recipe("tiny").model.spec())
    with tempfile.TemporaryDirectory() as name:
        scenes, questions = Path(name, "scenes"), Path(name, "questions")
        write_scenes(scenes, count=NUM_SCENES, seed=0)
        write_scene_records(scenes, questions, count_per_task=QUESTIONS_PER_TASK)
        records = [
            record.to_dict() | {"images": [str(file.parent / str(image)) for image in record.images]}
            for file in (scenes / "captions.jsonl", questions / RECORDS)
            for record in read_records(file)
        ]
        return np.array(index_dataset(records, processor).lengths)


def long_tailed_lengths(count: int, row_tokens: int, random: np.random.Generator) -> Lengths:
    """Lognormal: half are shorter than an eighth of a row, one in fifty would be longer than the row."""
    return random.lognormal(np.log(row_tokens / 8), 1.0, count).astype(np.int64)


def padded_tokens(lengths: Lengths, order: Sequence[int] | Lengths) -> int:
    """Tokens of the batches that follow one another in this order, each padded to its longest sample."""
    starts = np.arange(0, len(lengths), BATCH_SIZE)
    longest = np.maximum.reduceat(lengths[order], starts)
    return int((longest * np.diff(starts, append=len(lengths))).sum())


def compare(title: str, lengths: Lengths, row_tokens: int, seed: int) -> None:
    """Prints one line per way of making batches, and the time of planning."""
    tokens = lengths.tolist()
    begin = time.perf_counter()
    plan = plan_epoch(tokens, [1] * len(tokens), Limits(row_tokens), index_hash=0, seed=seed, epoch=0)
    seconds = time.perf_counter() - begin
    shuffled = np.random.default_rng([seed, 1]).permutation(len(tokens))  # not the numbers that drew the lengths
    grouped = get_length_grouped_indices(tokens, BATCH_SIZE, generator=torch.Generator().manual_seed(seed))
    packed = len(plan.rows) * row_tokens
    ways = {
        f"packed rows of {row_tokens}": packed,
        f"random batches of {BATCH_SIZE}": padded_tokens(lengths, shuffled),
        f"batches of {BATCH_SIZE}, grouped by length": padded_tokens(lengths, grouped),
    }
    quartiles = np.percentile(lengths, [0, 25, 50, 75, 100]).astype(int).tolist()
    print(f"\n{title}: {len(lengths):,} samples, tokens (least, quartiles, most) {quartiles}")
    print(f"  {'':<32}{'fill':>10}{'tokens processed':>20}{'over packed':>14}")
    for way, processed in ways.items():
        print(f"  {way:<32}{lengths.sum() / processed:>10.2%}{processed:>20,}{processed / packed:>14.3f}")
    print(f"  planned in {seconds:.2f} s, {seconds / len(lengths) * 1e6:.2f} s per million samples")


def main() -> None:
    """Compares on both kinds of lengths."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--row-tokens", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random = np.random.default_rng(args.seed)
    measured = scene_lengths()
    kinds = {
        f"{len(measured)} captions and questions of scenes, drawn again": random.choice(measured, args.samples),
        "long-tailed": long_tailed_lengths(args.samples, args.row_tokens, random),
    }
    for title, lengths in kinds.items():
        compare(title, lengths.clip(1, args.row_tokens), args.row_tokens, args.seed)


if __name__ == "__main__":
    main()
