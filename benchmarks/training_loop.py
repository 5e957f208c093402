"""What our training loop costs beside a plain PyTorch loop and transformers' Trainer, on the same packed batches.

All three start from the same weights, take the same steps over captioned scenes and run in turn, in rotated order, in
one process on the CPU; the benchmark fails if they come to different losses. Timed twice: encoding in the loop, and
batches made beforehand. Rows are fewer and shorter than in recipe `tiny`, so that what a loop adds to a step shows, and
all parts are trained.
Prints the ratio of every round, their median, and its 95 % interval from resampled rounds.

    uv run python benchmarks/training_loop.py --rounds 12 --steps 20 --threads 2
"""

import argparse
import copy
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice, product
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from cambrian_data.scenes import make_scene, render
from cambrian_data.scenes.captions import caption_record
from cambrian_data.scenes.generate import encode_png
from cambrian_model.assemble import assemble
from cambrian_model.processing.processor import CambrianProcessor
from cambrian_model.training.batches import Place, Schedule, StepData, stream
from cambrian_model.training.index import index_dataset
from cambrian_model.training.loop import run_steps, start_accelerator
from cambrian_model.training.optim import build_optimizer, lr_factor
from cambrian_model.training.packing import Row, collate
from cambrian_model.training.recipe import BatchSection, load_recipe
from cambrian_model.training.stages import select_trainable

ALL_PARTS = "stages.finetune.train=[vision_encoders, connector, in_llm, language_model]"
RECIPE = load_recipe("tiny", ["device=cpu", ALL_PARTS, "stages.finetune.optim.part_lr={}"])
STAGE = RECIPE.stages["finetune"]
OPTIM, CLIP_NORM = STAGE.optim, STAGE.optim.clip_norm or math.inf
BATCH = BatchSection(rows=2, row_tokens=256)
NUM_SCENES, SIDE, PAD = 200, 64, 0
TOLERANCE = 1e-4  # of losses near 3: no difference was seen in 20 steps, another batch in the last of them makes 2e-4

Inputs = dict[str, Any]
Step = Callable[[], Inputs]  # makes, or only hands over, what the model gets in one step


def make_scenes() -> list[dict[str, Any]]:
    """Renders scenes and returns their captions, the pictures as PNG."""
    pairs = [(scene := make_scene(0, index), render(scene, SIDE)) for index in range(NUM_SCENES)]
    return [caption_record(*pair).to_dict() | {"images": [encode_png(pair[1].pixels)]} for pair in pairs]


def encode(scenes: Sequence[dict[str, Any]], processor: CambrianProcessor, rows: Sequence[Row]) -> Inputs:
    """Encodes and collates the rows of a step."""
    chosen = [[scenes[number] for number in row] for row in rows]
    samples = [[processor.encode(scene["messages"], scene["images"]) for scene in row] for row in chosen]
    return collate(samples, BATCH.row_tokens, PAD).inputs


def run_ours(model: nn.Module, steps: Iterator[StepData], num_steps: int) -> float:
    """Trains as `training.train` does; returns the seconds that it took, as the other two do."""
    optimizer = build_optimizer(select_trainable(model, STAGE).groups, OPTIM)
    training = run_steps(model, optimizer, steps, start_accelerator(RECIPE), OPTIM, 0, num_steps)
    begin = time.perf_counter()
    for _ in training:
        pass
    return time.perf_counter() - begin


def build_plain_optimizer(model: nn.Module, num_steps: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """The same AdamW and rates, written by hand: matrices decay, vectors do not."""
    matrices = {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": OPTIM.weight_decay}
    vectors = {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([matrices, vectors], lr=OPTIM.lr, betas=OPTIM.betas, eps=OPTIM.eps)
    return optimizer, LambdaLR(optimizer, lambda step: lr_factor(OPTIM, step, num_steps))


def run_plain(model: nn.Module, steps: Sequence[Step]) -> float:
    """Trains with the shortest loop that does the same."""
    optimizer, rates = build_plain_optimizer(model, len(steps))
    model.train()
    begin = time.perf_counter()
    for step in steps:
        model(**step(), use_cache=False).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        rates.step()
        optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - begin


class _Stopwatch(TrainerCallback):
    """Times the Trainer's loop without its preparations."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.begin = time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.seconds = time.perf_counter() - self.begin


def run_trainer(model: Any, steps: Sequence[Step]) -> float:
    """Trains with the Trainer, which neither logs, evaluates nor saves; one item of its dataset is a whole step."""
    # The Trainer sets this in the outer configuration only; with a cache, the samples of a row would see each other.
    model.language_model.config.use_cache = False
    watch, optimizers = _Stopwatch(), build_plain_optimizer(model, len(steps))
    quiet = {"logging_strategy": "no", "save_strategy": "no", "report_to": "none", "disable_tqdm": True}
    order = {"per_device_train_batch_size": 1, "num_train_epochs": 1, "train_sampling_strategy": "sequential"}
    lean = {"remove_unused_columns": False, "dataloader_pin_memory": False, "use_cpu": True}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(folder, max_grad_norm=CLIP_NORM, **quiet, **order, **lean)
        trainer = Trainer(model, arguments, lambda items: items[0](), steps, callbacks=[watch], optimizers=optimizers)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return watch.seconds


def compare(title: str, rounds: int, model: nn.Module, feed: Callable[[], Any], steps: Sequence[Step]) -> None:
    """Runs all loops in every round and prints how ours compares with the others."""
    loops: dict[str, Callable[[Any], float]] = {
        "ours": lambda trained: run_ours(trained, feed(), len(steps)),
        "plain": lambda trained: run_plain(trained, steps),
        "Trainer": lambda trained: run_trainer(trained, steps),
    }
    seconds, losses = np.zeros((2, rounds + 1, len(loops)))  # the first round warms up
    for number, turn in product(range(rounds + 1), range(len(loops))):
        chosen, trained = (number + turn) % len(loops), copy.deepcopy(model)
        seconds[number, chosen] = [*loops.values()][chosen](trained)
        with torch.no_grad():
            losses[number, chosen] = trained(**steps[0](), use_cache=False).loss
    medians = ", ".join(f"{name} {median:.3f} s" for name, median in zip(loops, np.median(seconds[1:], 0), strict=True))
    print(f"{title}: {medians}; loss {losses[-1, 0]:.6f}")
    for other, name in enumerate(("plain", "Trainer"), start=1):
        apart = np.abs(losses[:, 0] - losses[:, other]).max()
        assert apart < TOLERANCE, f"{name} came to a loss that is {apart} from ours: it did not train on the same"
        ratios = seconds[1:, 0] / seconds[1:, other]
        low, high = stats.bootstrap((ratios,), np.median, method="percentile", rng=0).confidence_interval
        print(f"  ours over {name}: {' '.join(f'{ratio:.3f}' for ratio in ratios)}")
        print(f"    median {np.median(ratios):.3f} (95 %: {low:.3f} to {high:.3f}), losses {apart:.1e} apart")


def main() -> None:
    """Makes data and model, and compares the loops with and without encoding."""
    parser = argparse.ArgumentParser(description=__doc__)
    for option, default in (("--rounds", 12), ("--steps", 20), ("--threads", 2)):
        parser.add_argument(option, type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(RECIPE.seed)
    model, processor = assemble(RECIPE.model.spec())
    scenes = make_scenes()
    schedule = Schedule(index_dataset(scenes, processor), BATCH, RECIPE.seed)
    feed = partial(stream, scenes, processor, schedule, PAD, Place())
    ready = list(islice(feed(), args.steps))
    encoding = [partial(encode, scenes, processor, step.rows) for step in islice(schedule.steps(Place()), args.steps)]
    encoded: list[Step] = [partial(dict, batch.inputs) for step in ready for batch in step.batches]
    torch.testing.assert_close([step() for step in encoding], [step() for step in encoded], rtol=0, atol=0)
    compare("encoding in the loop", args.rounds, model, feed, encoding)
    compare("encoded beforehand", args.rounds, model, lambda: iter(ready), encoded)


if __name__ == "__main__":
    main()
