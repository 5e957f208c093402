"""Useful tokens per second of our training beside other ways to step: tokens that are samples, not padding.

All ways start from the same weights, read the same captions and questions of rendered scenes, put as many of them into
an optimizer step, in two batches, and train all parts of recipe `tiny`'s model in turn, in rotated order, in one
process on the CPU. Samples are encoded beforehand, so that what a way does itself shows; `--encode` does it in turn.

- ours: packed rows, our loop, logits in chunks
- Trainer, packed: transformers' Trainer on the same batches; this is what the loop costs. The benchmark fails if it
  comes to another loss
- nanoVLM's way: random batches padded to their longest sample, all logits, the mean of each batch, in a plain loop
- Trainer, padded: transformers' Trainer on those
- padded to 2,048: the plain loop, every sample padded as the original does; fewer steps, for it is slow

Prints the ratio of every round, their median, and its 95 % interval from resampled rounds. `--cpu-time` counts this
process's seconds and not those of the clock, for a machine that others use too; it takes one thread.

    uv run python benchmarks/training.py --rounds 15 --steps 10 --threads 2
"""

import argparse
import copy
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from cambrian_data.cvbench.scenes import RECORDS, write_scene_records
from cambrian_data.formats import read_records
from cambrian_data.scenes import write_scenes
from cambrian_model.language.loss import LossOptions
from cambrian_model.processing.processor import CambrianProcessor
from cambrian_model.processing.sample import IGNORED_LABEL, Sample
from cambrian_model.training.batches import PackedSchedule, Place, Share, StepEncoder, stream
from cambrian_model.training.collate import collate
from cambrian_model.training.distributed import start_accelerator
from cambrian_model.training.guard import Guard
from cambrian_model.training.index import index_dataset, join
from cambrian_model.training.loop import Engine, run_steps
from cambrian_model.training.optim import build_optimizer, lr_factor
from cambrian_model.training.recipe import load_recipe
from cambrian_model.training.recipe.stage import BatchSection
from cambrian_model.training.stage_data import empty_sample, pad_token_id
from cambrian_model.training.start_model import load_model
from cambrian_model.training.trainable import select_trainable

ALL_PARTS = "stages.finetune.train=[vision_encoders, connector, in_llm, language_model]"
RECIPE = load_recipe("tiny", ["device=cpu", ALL_PARTS, "stages.finetune.optim.groups={}"])
STAGE = RECIPE.stages["finetune"]
OPTIM, CLIP_NORM = STAGE.optim, STAGE.optim.clip_norm or math.inf
BATCHES, LONG = 2, 2048
BATCH = BatchSection(rows=4, micro_rows=4 // BATCHES, row_tokens=STAGE.batch.row_tokens)
CHUNKED, WHOLE = LossOptions(RECIPE.loss.implementation, RECIPE.loss.chunk_tokens), LossOptions("whole")
TOLERANCE = 1e-4  # of losses near 3: rounding makes 1e-6 in ten steps, leaving out one sample of the last 1e-3

Inputs = dict[str, Any]
Make = Callable[[], Inputs]  # makes what the model gets for one batch


class Way(NamedTuple):
    """A way to step.

    Attributes:
        run: Trains a model and returns the seconds that it took.
        tokens: That are not padding, in all its steps.
        loss: How the model makes its loss.
        asked: Of ours, how many times as many useful tokens per second at least.
    """

    run: Callable[[Any], float]
    tokens: int
    loss: LossOptions
    asked: float = 0.97


@dataclass(frozen=True)
class Numbered:
    """Samples by number, where training expects conversations and their processor."""

    encode_number: Callable[[int], Sample]
    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int, /) -> Mapping[str, Any]:
        return {"id": self.ids[number], "messages": number, "images": []}

    def encode(self, messages: Any, images: Any) -> Sample:
        """Returns the sample whose number stands for its messages."""
        return self.encode_number(messages)

    def measure(self, messages: Any, image_sizes: Any) -> Any:
        """Is never asked: the conversations themselves have been measured."""
        raise NotImplementedError


def make_records(num_scenes: int) -> list[Mapping[str, Any]]:
    """Renders scenes; returns captions of them and questions about them, the pictures as bytes."""
    with tempfile.TemporaryDirectory() as name:
        scenes, questions = Path(name, "scenes"), Path(name, "questions")
        write_scenes(scenes, count=num_scenes, seed=0, side=64)
        write_scene_records(scenes, questions, count_per_task=num_scenes // 2, reasoning=True)
        return [
            record.to_dict() | {"images": [(file.parent / str(image)).read_bytes() for image in record.images]}
            for file in (scenes / "captions.jsonl", questions / RECORDS)
            for record in read_records(file)
        ]


def encode(processor: CambrianProcessor, records: Sequence[Mapping[str, Any]], number: int) -> Sample:
    """Encodes one conversation."""
    return processor.encode(records[number]["messages"], records[number]["images"])


def pack(samples: Numbered, pad_token: int, rows: Sequence[Sequence[int]]) -> Inputs:
    """Encodes rows of samples and collates them, as our loop's stream does."""
    return collate(
        [[samples.encode_number(number) for number in row] for row in rows], BATCH.row_tokens, pad_token
    ).inputs


def pad(samples: Numbered, pad_token: int, length: int | None, numbers: Sequence[int]) -> Inputs:
    """Encodes samples and pads them to `length`, or to the longest of them, under an attention mask."""
    chosen = [samples.encode_number(number) for number in numbers]
    length = length or max(sample.num_tokens for sample in chosen)
    room = [(0, length - sample.num_tokens) for sample in chosen]
    rows = zip(chosen, room, strict=True)
    ids, labels, masks = zip(
        *(
            (
                functional.pad(sample.input_ids, free, value=pad_token),
                functional.pad(sample.labels, free, value=IGNORED_LABEL),
                functional.pad(torch.ones_like(sample.input_ids), free),
            )
            for sample, free in rows
        ),
        strict=True,
    )
    return {
        "input_ids": torch.stack(ids),
        "labels": torch.stack(labels),
        "attention_mask": torch.stack(masks),
        "pixel_values": [torch.cat(images) for images in zip(*(sample.pixel_values for sample in chosen), strict=True)],
        "image_sizes": torch.cat([sample.image_sizes for sample in chosen]),
    }


def run_ours(
    seconds: Callable[[], float], encoder: StepEncoder, schedule: PackedSchedule, steps: int, model: Any
) -> float:
    """Trains as `training.train` does."""
    optimizer = build_optimizer(model, select_trainable(model, STAGE).groups, OPTIM)
    engine = Engine(model, optimizer, start_accelerator(RECIPE), OPTIM, Guard(1), lambda _: "")
    training = run_steps(engine, stream(encoder, schedule, Place()), 0, steps)
    begin = seconds()
    for _ in training:
        pass
    return seconds() - begin


def build_plain_optimizer(model: nn.Module, num_steps: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """The same AdamW and rates, written by hand: matrices decay, vectors do not."""
    matrices = {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": OPTIM.weight_decay}
    vectors = {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([matrices, vectors], lr=OPTIM.lr, betas=OPTIM.betas, eps=OPTIM.eps)
    return optimizer, LambdaLR(optimizer, lambda step: lr_factor(OPTIM, OPTIM.warmup, step, num_steps))


def run_plain(seconds: Callable[[], float], batches: Sequence[Make], model: Any) -> float:
    """Trains as nanoVLM does: the mean loss of each batch, over the number of batches; then clips and steps."""
    optimizer, rates = build_plain_optimizer(model, len(batches) // BATCHES)
    model.train()
    begin = seconds()
    for number, batch in enumerate(batches, start=1):
        loss = model(**batch(), use_cache=False).loss / BATCHES
        loss.backward()
        if number % BATCHES == 0:
            nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
            rates.step()
            optimizer.zero_grad()
    return seconds() - begin


class _Stopwatch(TrainerCallback):
    """Times the Trainer's loop without its preparations."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.now = seconds

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.begin = self.now()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.seconds = self.now() - self.begin


def run_trainer(seconds: Callable[[], float], batches: Sequence[Make], model: Any) -> float:
    """Trains with the Trainer, which neither logs, evaluates nor saves; one item of its dataset is a whole batch."""
    # The Trainer sets this in the outer configuration only; with a cache, the samples of a row would see each other.
    model.language_model.config.use_cache = False
    watch, optimizers = _Stopwatch(seconds), build_plain_optimizer(model, len(batches) // BATCHES)
    quiet = {"logging_strategy": "no", "save_strategy": "no", "report_to": "none", "disable_tqdm": True}
    order = {"per_device_train_batch_size": 1, "num_train_epochs": 1, "train_sampling_strategy": "sequential"}
    lean = {"remove_unused_columns": False, "dataloader_pin_memory": False, "use_cpu": True}
    size = {"gradient_accumulation_steps": BATCHES, "max_grad_norm": CLIP_NORM}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(folder, **quiet, **order, **lean, **size)
        trainer = Trainer(model, arguments, lambda items: items[0](), batches, callbacks=[watch], optimizers=optimizers)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return watch.seconds


def compare(ways: Mapping[str, Way], model: nn.Module, probe: Make, rounds: int) -> None:
    """Runs all ways in every round and prints how ours compares with the others."""
    seconds, losses = np.zeros((2, rounds + 1, len(ways)))  # the first round warms up
    for number, turn in product(range(rounds + 1), range(len(ways))):
        chosen = (number + turn) % len(ways)
        way, trained = [*ways.values()][chosen], copy.deepcopy(model)
        trained.loss_options = way.loss
        seconds[number, chosen] = way.run(trained)
        with torch.no_grad():
            losses[number, chosen] = trained(**probe(), use_cache=False).loss
    apart = np.abs(losses[:, 0] - losses[:, 1]).max()
    assert apart < TOLERANCE, f"the Trainer came to a loss that is {apart} from ours: it did not train on the same"
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
    parser.add_argument("--encode", action="store_true", help="encode text and pictures in turn, not beforehand")
    parser.add_argument("--cpu-time", action="store_true", help="see above")
    args = parser.parse_args()
    if args.cpu_time and args.threads > 1:
        parser.error("--cpu-time adds up the seconds of all threads, waiting ones too; add --threads 1")
    clock = time.process_time if args.cpu_time else time.perf_counter
    torch.set_num_threads(args.threads)
    torch.manual_seed(RECIPE.seed)
    model, processor = load_model(RECIPE, None)
    records, pad_token = make_records(20 * args.steps), pad_token_id(processor)
    index = join([index_dataset("scenes", records, processor)], [1.0])
    encoding = partial(encode, processor, records)
    ready = [] if args.encode else [*map(encoding, range(len(records)))]
    samples = Numbered(encoding if args.encode else ready.__getitem__, [str(record["id"]) for record in records])

    schedule = PackedSchedule(index, BATCH, RECIPE.seed)
    rows = [step.rows for step in islice(schedule.steps(Place()), args.steps)]
    parts = [step[start : start + len(step) // BATCHES] for step in rows for start in (0, len(step) // BATCHES)]
    packed = [partial(pack, samples, pad_token, part) for part in parts]
    numbers = np.random.default_rng(RECIPE.seed).permutation(
        [number for step in rows for row in step for number in row]
    )
    batches = [part.tolist() for part in np.array_split(numbers, len(packed))]
    padded = [partial(pad, samples, pad_token, None, batch) for batch in batches]
    few = batches[: BATCHES * max(1, args.steps // 10)]
    long = [partial(pad, samples, pad_token, LONG, batch) for batch in few]
    tokens, tokens_of_few = int(index.lengths[numbers].sum()), int(index.lengths[sum(few, [])].sum())
    encoder = StepEncoder(samples, samples, BATCH, pad_token, empty_sample(model.config.encoders), Share())
    ways = {
        "ours": Way(partial(run_ours, clock, encoder, schedule, args.steps), tokens, CHUNKED),
        "Trainer, packed": Way(partial(run_trainer, clock, packed), tokens, CHUNKED),
        "nanoVLM's way": Way(partial(run_plain, clock, padded), tokens, WHOLE),
        "Trainer, padded": Way(partial(run_trainer, clock, padded), tokens, WHOLE),
        f"padded to {LONG:,}": Way(partial(run_plain, clock, long), tokens_of_few, WHOLE, asked=3.0),
    }
    compare(ways, model, packed[0], args.rounds)


if __name__ == "__main__":
    main()
