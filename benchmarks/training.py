"""Useful tokens per second of our training beside other ways to step: tokens that are samples, not padding.

All ways start from the same weights, encode the same samples of recipe `tiny`'s two sources, as many in an optimizer
step, in two batches, and train all parts of its model, in turn, in rotated order, in one process on the CPU.

- ours: packed rows, and what `training.train` makes of model and loop
- Trainer, packed: transformers' Trainer with the same model and batches, so the difference is the loop. The benchmark
  fails if it comes to another loss
- nanoVLM's way: random batches padded to their longest sample, all logits, the mean of each batch, in a plain loop
- Trainer, padded: transformers' Trainer on those
- padded to 2,048: the plain loop, every sample padded as the original does; one step of two samples, for it is slow

Prints the ratio of every round, their median, and its 95 % interval from resampled rounds. `--cpu-time` counts this
process's seconds and not those of the clock, for a machine that others use too; it takes one thread.

    uv run python -m benchmarks.training --rounds 15 --steps 10 --threads 2
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import nn

from benchmarks.training_loops import Clock, Inputs, Make, pad_samples, run_plain, run_trainer
from cambrian_data.cvbench.scenes import RECORDS, write_scene_records
from cambrian_data.formats import read_records
from cambrian_data.grounding.records import RECORDS as READINGS
from cambrian_data.grounding.records import write_scene_grounding
from cambrian_data.scenes import write_scenes
from cambrian_model.processing.processor import CambrianProcessor
from cambrian_model.processing.sample import Sample
from cambrian_model.training.batches import PackedSchedule, Place, Share, StepEncoder, stream
from cambrian_model.training.collate import collate
from cambrian_model.training.distributed import start_accelerator
from cambrian_model.training.guard import Guard
from cambrian_model.training.index import index_dataset, join
from cambrian_model.training.loop import Engine, run_steps
from cambrian_model.training.optim import build_optimizer
from cambrian_model.training.recipe import load_recipe
from cambrian_model.training.recipe.stage import BatchSection
from cambrian_model.training.stage_data import StageData, empty_sample, pad_token_id
from cambrian_model.training.start_model import StageModel, load_model, prepare_model
from cambrian_model.training.trainable import Group

ALL_PARTS = "stages.finetune.train=[vision_encoders, connector, in_llm, language_model]"
RECIPE = load_recipe("tiny", ["device=cpu", ALL_PARTS, "stages.finetune.optim.groups={}"])
OPTIM = RECIPE.stages["finetune"].optim
BATCHES, LONG = 2, 2048
BATCH = BatchSection(rows=BATCHES, micro_rows=1, row_tokens=768)
TOLERANCE = 1e-4  # of losses near 2: rounding makes 1e-6 of ten steps, another last step 2e-3, a mean per batch 0.1


class Way(NamedTuple):
    """A way to step.

    Attributes:
        model: What it starts from.
        run: Trains a model and returns the seconds that it took.
        tokens: That are not padding, in all its steps.
        asked: Of ours, how many times as many useful tokens per second at least.
    """

    model: Any
    run: Callable[[Any], float]
    tokens: int
    asked: float = 0.97


def make_records(num_scenes: int) -> list[Mapping[str, Any]]:
    """Renders scenes; returns readings of them and questions about them, the pictures as bytes."""
    with tempfile.TemporaryDirectory() as name:
        scenes, readings, questions = (Path(name, kind) for kind in ("scenes", "readings", "questions"))
        write_scenes(scenes, count=num_scenes, seed=0, side=64)
        write_scene_grounding(scenes, readings, grid_side=RECIPE.model.grid_side, readings_per_picture=1, seed=0)
        write_scene_records(scenes, questions, count_per_task=num_scenes // 2, reasoning=True)
        return [
            record.to_dict() | {"images": [(file.parent / str(image)).read_bytes() for image in record.images]}
            for file in (readings / READINGS, questions / RECORDS)
            for record in read_records(file)
        ]


def encode_record(processor: CambrianProcessor, records: Sequence[Mapping[str, Any]], number: int) -> Sample:
    """Encodes one conversation."""
    return processor.encode(records[number]["messages"], records[number]["images"])


def pack_rows(encode: Callable[[int], Sample], pad_token: int, rows: Sequence[Sequence[int]]) -> Inputs:
    """Encodes and collates rows, as our stream does."""
    return collate([[*map(encode, row)] for row in rows], BATCH.row_tokens, pad_token).inputs


def run_ours(clock: Clock, groups: Sequence[Group], data: StageData, num_steps: int, model: Any) -> float:
    """Trains as `training.train` does."""
    optimizer = build_optimizer(model, groups, OPTIM)
    engine = Engine(model, optimizer, start_accelerator(RECIPE), OPTIM, Guard(1), lambda _: "")
    training = run_steps(engine, stream(data.encoder, data.schedule, Place()), 0, num_steps)
    begin = clock()
    for _ in training:
        pass
    return clock() - begin


def make_ways(args: argparse.Namespace, start: StageModel, plain: nn.Module) -> tuple[dict[str, Way], Make]:
    """Returns all ways, ours first and the Trainer on the same batches second, and a batch to compare losses on."""
    records, pad_token = make_records(4 * args.steps), pad_token_id(start.processor)
    index = join([index_dataset("scenes", records, start.processor)], [1.0])
    schedule = PackedSchedule(index, BATCH, RECIPE.seed)
    nothing = empty_sample(start.model.config.encoders)
    data = StageData(schedule, StepEncoder(records, start.processor, BATCH, pad_token, nothing, Share()))

    encode = partial(encode_record, start.processor, records)
    rows = schedule.plan(0).rows[: BATCHES * args.steps]
    assert len(rows) == BATCHES * args.steps, "an epoch is shorter than these steps"
    packed = [partial(pack_rows, encode, pad_token, [row]) for row in rows]
    shuffled = np.random.default_rng(RECIPE.seed).permutation(np.concatenate(rows))
    batches = np.array_split(shuffled, len(rows))
    few = [batch[:1] for batch in batches[:BATCHES]]
    padded, long = (
        [partial(pad_samples, encode, pad_token, length, batch.tolist()) for batch in some]
        for length, some in ((None, batches), (LONG, few))
    )
    clock = time.process_time if args.cpu_time else time.perf_counter
    useful, useful_of_few = (int(index.lengths[np.concatenate(some)].sum()) for some in (batches, few))
    loop, trainer = (partial(partial, run, clock, OPTIM, BATCHES) for run in (run_plain, run_trainer))
    ours = partial(run_ours, clock, start.trainable.groups, data, args.steps)
    return {
        "ours": Way(start.model, ours, useful),
        "Trainer, packed": Way(start.model, trainer(packed), useful),
        "nanoVLM's way": Way(plain, loop(padded), useful),
        "Trainer, padded": Way(plain, trainer(padded), useful),
        f"padded to {LONG:,}": Way(plain, loop(long), useful_of_few, asked=3.0),
    }, packed[0]


def compare(ways: Mapping[str, Way], probe: Make, rounds: int) -> None:
    """Runs all ways in every round and prints how ours compares with the others."""
    seconds, losses = np.zeros((2, rounds + 1, len(ways)))  # the first round warms up
    for number, turn in product(range(rounds + 1), range(len(ways))):
        chosen = (number + turn) % len(ways)
        way = [*ways.values()][chosen]
        model = copy.deepcopy(way.model)
        seconds[number, chosen] = way.run(model)
        with torch.no_grad():
            losses[number, chosen] = model(**probe(), use_cache=False).loss
    apart = np.abs(losses[:, 0] - losses[:, 1]).max()
    if not apart < TOLERANCE:
        raise SystemExit(f"losses of ours and the Trainer on the same batches are {apart} apart; allowed: {TOLERANCE}")
    speeds = np.array([way.tokens for way in ways.values()]) / seconds[1:]
    for (name, way), speed, loss in zip(ways.items(), np.median(speeds, 0), losses[-1], strict=True):
        print(f"{name}: {speed:,.0f} useful tokens a second, of {way.tokens:,}; loss {loss:.6f} afterwards")
    print(f"losses of ours and the Trainer on the same batches: at most {apart:.1e} apart, allowed {TOLERANCE:.0e}")
    for other, (name, way) in list(enumerate(ways.items()))[1:]:
        ratios = speeds[:, 0] / speeds[:, other]
        low, high = stats.bootstrap((ratios,), np.median, method="percentile", rng=0).confidence_interval
        print(f"ours over {name}: {' '.join(f'{ratio:.3f}' for ratio in ratios)}")
        verdict = "holds" if low >= way.asked else "does not hold"
        print(f"  median {np.median(ratios):.3f} (95 %: {low:.3f} to {high:.3f}); asked: {way.asked}, {verdict}")


def main() -> None:
    """Makes data and model, and compares the ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in (("--rounds", 15), ("--steps", 10), ("--threads", 2)):
        parser.add_argument(option, type=int, default=default)
    parser.add_argument("--cpu-time", action="store_true", help="see above")
    args = parser.parse_args()
    if args.rounds < 2 or (args.cpu_time and args.threads > 1):
        parser.error("give at least two rounds; --cpu-time adds up waiting threads too, so with it --threads 1")
    torch.set_num_threads(args.threads)
    torch.manual_seed(RECIPE.seed)
    model, processor = load_model(RECIPE, None)
    plain = copy.deepcopy(model)
    start = prepare_model(RECIPE, "finetune", model, processor, None, torch.device("cpu"))
    compare(*make_ways(args, start, plain), args.rounds)


if __name__ == "__main__":
    main()
