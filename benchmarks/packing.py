"""How full packed rows are beside padded batches and beside another packer, and how long planning takes.

First, one pack of a mixture of pictures and text, against the fewest rows that could be possible and against the
greedy packer of nanoVLM's kind, which looks at every row for every sample: rows of 4,096 tokens and at most 18
pictures of 64 tokens each, long-tailed text.

Second, the plan of an epoch of such a mixture, in three sources of different weights: time and memory.

Third, the tokens that a model has to process: our rows, batches of random samples padded to their longest, and batches
from the Trainer's sampler `group_by_length`, padded likewise. Lengths are those of captions of rendered scenes and
questions about them, drawn with replacement, and long-tailed ones as instruction data has; samples longer than a row
are cut to it.

Seconds are those of this process on one core, not of what else the machine does.

    uv run python benchmarks/packing.py --samples 1000000 --row-tokens 2048 --seed 0
"""

import argparse
import resource
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
from cambrian_model.processing.image_source import read_image_size
from cambrian_model.training.mixing import MixtureIndex, plan_epoch
from cambrian_model.training.packing import Limits, Row, lower_bound, pack
from cambrian_model.training.recipe import load_recipe

NUM_SCENES, QUESTIONS_PER_TASK = 300, 100
BATCH_SIZE = 8  # samples of a padded batch; Trainer's default
MIXTURE_ROW = Limits(row_tokens=4096, max_images=18)
PACKED_SAMPLES = (64, 512, 4096, 16384)
SPARE_ROWS = 5  # nanoVLM's greedy packer begins with so many rows more than all tokens would fill
ROUNDS = 5  # of which the fastest counts
SOURCES = {"a": 1.0, "b": 0.5, "c": 2.0}  # weights

Lengths = NDArray[np.int64]


def mixture(count: int, random: np.random.Generator) -> tuple[Lengths, Lengths]:
    """Lengths and numbers of pictures: none to six pictures, and text of which half is longer than 600 tokens."""
    images = random.integers(0, 7, count)
    text = random.lognormal(np.log(600), 1, count).astype(np.int64)
    return (images * 64 + text).clip(1, MIXTURE_ROW.row_tokens), images


def balanced_greedy(lengths: Sequence[int], images: Sequence[int], limits: Limits) -> list[Row]:
    """Packs as nanoVLM does: longest first, each into the emptiest row where it fits; all rows are sorted each time."""
    num_rows = -(-sum(lengths) // limits.row_tokens) + SPARE_ROWS
    rows: list[Row] = [[] for _ in range(num_rows)]
    tokens, pictures = [0] * num_rows, [0] * num_rows
    most_images = limits.max_images if limits.max_images is not None else sum(images)
    for sample in sorted(range(len(lengths)), key=lambda sample: -lengths[sample]):
        for row in sorted(range(len(rows)), key=tokens.__getitem__):
            fits = tokens[row] + lengths[sample] <= limits.row_tokens
            if fits and pictures[row] + images[sample] <= most_images:
                break
        else:
            row = len(rows)
            rows.append([])
            tokens.append(0)
            pictures.append(0)
        rows[row].append(sample)
        tokens[row] += lengths[sample]
        pictures[row] += images[sample]
    return [row for row in rows if row]


def compare_packers(seed: int) -> None:
    """Prints rows, their fill and the time of both packers."""
    print("packing, rows of 4,096 tokens and at most 18 pictures")
    print(f"  {'samples':>8}{'fewest':>8} | {'rows':>6}{'over':>8}{'fill':>9}{'ms':>10} | greedy, every row looked at")
    for count in PACKED_SAMPLES:
        lengths, images = (column.tolist() for column in mixture(count, np.random.default_rng([seed, count])))
        fewest = lower_bound(lengths, images, MIXTURE_ROW)
        seconds = []
        for _ in range(ROUNDS):
            begin = time.process_time()
            rows = pack(range(count), lengths, images, MIXTURE_ROW)
            seconds.append(time.process_time() - begin)
        begin = time.process_time()
        greedy = balanced_greedy(lengths, images, MIXTURE_ROW)
        columns = ((rows, min(seconds)), (greedy, time.process_time() - begin))
        texts = [
            f"{len(found):>6}{len(found) / fewest:>8.4f}"
            f"{sum(lengths) / len(found) / MIXTURE_ROW.row_tokens:>9.2%}{took * 1e3:>10,.1f}"
            for found, took in columns
        ]
        print(f"  {count:>8,}{fewest:>8,} | {' | '.join(texts)}")


def plan_mixture(samples: int, seed: int) -> None:
    """Prints how long the first epoch's plan takes, how much memory, and what it holds."""
    random = np.random.default_rng([seed, samples])
    lengths, images = mixture(samples, random)
    source = np.sort(random.integers(0, len(SOURCES), samples))
    index = MixtureIndex(
        lengths, images, images * 64, np.minimum(lengths - 1, 1), source, [*SOURCES], [*SOURCES.values()], hash=1
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    plan = plan_epoch(index, MIXTURE_ROW, seed, epoch=0)
    seconds = time.process_time() - begin
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    planned = sum(map(len, plan.rows))
    share = ", ".join(f"{name} {part:.2%}" for name, part in plan.token_share.items())
    print(f"\nplan of an epoch of {samples:,} samples, weights {SOURCES}")
    print(f"  {planned:,} samples in {len(plan.rows):,} rows, {plan.fill:.2%} full; shares of tokens: {share}")
    speed = f"{seconds:.2f} s, {seconds / planned * 1e6:.2f} s per million samples"
    print(f"  {speed}; peak memory grew by {grown // 1024} MB")


def scene_lengths() -> Lengths:
    """Tokens of the captions of rendered scenes, and of questions about them, with the processor of recipe `tiny`."""
    _, processor = assemble(load_recipe("tiny").model.spec())
    with tempfile.TemporaryDirectory() as name:
        scenes, questions = Path(name, "scenes"), Path(name, "questions")
        write_scenes(scenes, count=NUM_SCENES, seed=0)
        write_scene_records(scenes, questions, count_per_task=QUESTIONS_PER_TASK)
        lengths = []
        for file in (scenes / "captions.jsonl", questions / RECORDS):
            for record in read_records(file):
                sizes = [read_image_size(file.parent / str(image)) for image in record.images]
                lengths.append(processor.count_tokens(record.to_dict()["messages"], sizes))
        return np.array(lengths)


def long_tailed_lengths(count: int, row_tokens: int, random: np.random.Generator) -> Lengths:
    """Lognormal: half are shorter than an eighth of a row, one in fifty would be longer than the row."""
    return random.lognormal(np.log(row_tokens / 8), 1.0, count).astype(np.int64)


def padded_tokens(lengths: Lengths, order: Sequence[int] | Lengths) -> int:
    """Tokens of the batches that follow one another in this order, each padded to its longest sample."""
    starts = np.arange(0, len(lengths), BATCH_SIZE)
    longest = np.maximum.reduceat(lengths[order], starts)
    return int((longest * np.diff(starts, append=len(lengths))).sum())


def compare_batches(title: str, lengths: Lengths, row_tokens: int, seed: int) -> None:
    """Prints one line per way of making batches, and the time of planning."""
    nothing, ones = np.zeros_like(lengths), np.ones_like(lengths)
    index = MixtureIndex(lengths, ones, nothing, nothing, nothing, ["all"], [1.0], hash=0)
    begin = time.process_time()
    plan = plan_epoch(index, Limits(row_tokens), seed, epoch=0)
    seconds = time.process_time() - begin
    shuffled = np.random.default_rng([seed, 1]).permutation(len(lengths))  # not the numbers that drew the lengths
    grouped = get_length_grouped_indices(lengths.tolist(), BATCH_SIZE, generator=torch.Generator().manual_seed(seed))
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
    """Runs all three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--row-tokens", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    compare_packers(args.seed)
    plan_mixture(args.samples, args.seed)
    random = np.random.default_rng(args.seed)
    measured = scene_lengths()
    kinds = {
        f"{len(measured)} captions and questions of scenes, drawn again": random.choice(measured, args.samples),
        "long-tailed": long_tailed_lengths(args.samples, args.row_tokens, random),
    }
    for title, lengths in kinds.items():
        compare_batches(title, lengths.clip(1, args.row_tokens), args.row_tokens, args.seed)


if __name__ == "__main__":
    main()
