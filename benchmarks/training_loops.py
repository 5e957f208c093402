"""Other ways to train, which `benchmarks/training.py` compares ours with, on batches that are made in turn.

Written afresh: nanoVLM's plain loop, transformers' Trainer, and batches of padded samples. Each loop returns the
seconds of its steps, without preparations.
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from cambrian_model.processing.sample import IGNORED_LABEL, Sample
from cambrian_model.training.optim import lr_factor
from cambrian_model.training.recipe.stage import OptimSection

Inputs = dict[str, Any]
Make = Callable[[], Inputs]  # encodes, and makes what the model gets for one batch
Clock = Callable[[], float]


def pad_samples(encode: Callable[[int], Sample], pad_token: int, length: int | None, numbers: Sequence[int]) -> Inputs:
    """Encodes samples and pads them to `length`, or to the longest of them, under an attention mask."""
    samples = [*map(encode, numbers)]
    free = [(0, (length or max(s.num_tokens for s in samples)) - s.num_tokens) for s in samples]
    both = [*zip(samples, free, strict=True)]
    return {
        "input_ids": torch.stack([pad(sample.input_ids, room, value=pad_token) for sample, room in both]),
        "labels": torch.stack([pad(sample.labels, room, value=IGNORED_LABEL) for sample, room in both]),
        "attention_mask": torch.stack([pad(torch.ones_like(sample.input_ids), room) for sample, room in both]),
        "pixel_values": [
            torch.cat(images) for images in zip(*(sample.pixel_values for sample in samples), strict=True)
        ],
        "image_sizes": torch.cat([sample.image_sizes for sample in samples]),
    }


def build_optimizer(optim: OptimSection, model: nn.Module, num_steps: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """The same AdamW and rates, written by hand: matrices decay, vectors do not."""
    matrices = {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": optim.weight_decay}
    vectors = {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([matrices, vectors], lr=optim.lr, betas=optim.betas, eps=optim.eps)
    return optimizer, LambdaLR(optimizer, lambda step: lr_factor(optim, optim.warmup, step, num_steps))


def run_plain(clock: Clock, optim: OptimSection, per_step: int, batches: Sequence[Make], model: Any) -> float:
    """Trains as nanoVLM does: the mean loss of each batch, over the number of batches; then clips and steps."""
    optimizer, rates = build_optimizer(optim, model, len(batches) // per_step)
    model.train()
    begin = clock()
    for number, batch in enumerate(batches, start=1):
        (model(**batch(), use_cache=False).loss / per_step).backward()
        if number % per_step == 0:
            nn.utils.clip_grad_norm_(model.parameters(), optim.clip_norm or math.inf)
            optimizer.step()
            rates.step()
            optimizer.zero_grad()
    return clock() - begin


class _Stopwatch(TrainerCallback):
    """Times the Trainer's loop without its preparations."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.begin = self.clock()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.seconds = self.clock() - self.begin


def run_trainer(clock: Clock, optim: OptimSection, per_step: int, batches: Sequence[Make], model: Any) -> float:
    """Trains with the Trainer, which neither logs, evaluates nor saves; one item of its dataset is a whole batch."""
    # The Trainer sets this in the outer configuration only; with a cache, the samples of a row would see each other.
    model.language_model.config.use_cache = False
    watch, optimizers = _Stopwatch(clock), build_optimizer(optim, model, len(batches) // per_step)
    quiet = {"logging_strategy": "no", "save_strategy": "no", "report_to": "none", "disable_tqdm": True}
    order = {"per_device_train_batch_size": 1, "num_train_epochs": 1, "train_sampling_strategy": "sequential"}
    lean = {"remove_unused_columns": False, "dataloader_pin_memory": False, "use_cpu": True}
    size = {"gradient_accumulation_steps": per_step, "max_grad_norm": optim.clip_norm or math.inf}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(folder, **quiet, **order, **lean, **size)
        trainer = Trainer(model, arguments, lambda items: items[0](), batches, callbacks=[watch], optimizers=optimizers)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return watch.seconds
