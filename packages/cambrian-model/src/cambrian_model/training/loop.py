"""The training loop: one page, from a place in the data to the end of a stage.

The loss is the sum over all supervised tokens of a step divided by their number, however the step is cut into
batches: 8 rows at once and 2 rows four times give the same gradients.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from cambrian_model.errors import TrainingError
from cambrian_model.training.batches import Place, StepData
from cambrian_model.training.metrics import Metrics
from cambrian_model.training.optim import lr_factor, set_learning_rate
from cambrian_model.training.recipe import OptimSection, Recipe


@dataclass(frozen=True)
class Step:
    """One finished optimizer step: its number (from 1), what to log, and where the data continues."""

    number: int
    metrics: Metrics
    next_place: Place


def run_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: Iterator[StepData],
    accelerator: Accelerator,
    optim: OptimSection,
    first: int,
    num_steps: int,
) -> Iterator[Step]:
    """Trains from step `first` (0 for a new stage) to `num_steps`, and yields after every step.

    Raises:
        TrainingError: A step has nothing supervised, or its loss or gradient is not finite; names the samples.
    """
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    model.train()
    for number in range(first, num_steps):
        started = time.perf_counter()
        data = next(steps)
        loaded = time.perf_counter()
        supervised = data.supervised_tokens
        if not supervised:
            raise TrainingError(
                f"step {number + 1} has no supervised token: {_named(data)}; give them an assistant turn"
            )
        loss = torch.zeros((), device=accelerator.device)
        for batch in data.batches:
            with accelerator.autocast():
                output = model(**batch.to(accelerator.device), num_items_in_batch=supervised, use_cache=False)
            accelerator.backward(output.loss)
            loss += output.loss.detach().float()
        grad_norm = accelerator.clip_grad_norm_(trained, optim.clip_norm or math.inf)
        loss_value, norm_value = torch.stack([loss, grad_norm.detach().float()]).tolist()
        if not (math.isfinite(loss_value) and math.isfinite(norm_value)):
            raise TrainingError(
                f"step {number + 1}: loss {loss_value} and gradient norm {norm_value} are not both finite: "
                f"{_named(data)}; lower the learning rate, or remove these samples"
            )
        factor = lr_factor(optim, number, num_steps)
        set_learning_rate(optimizer, factor)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        tokens = sum(batch.tokens for batch in data.batches)
        metrics = {
            "step": number + 1,
            "epoch": data.epoch,
            "loss": loss_value,
            "lr": optim.lr * factor,
            "grad_norm": norm_value,
            "tokens": tokens,
            "supervised_tokens": supervised,
            "images": sum(batch.images for batch in data.batches),
            "samples": len(data.ids),
            "fill": round(tokens / sum(batch.capacity for batch in data.batches), 4),
            "data_seconds": round(loaded - started, 6),
            "seconds": round(time.perf_counter() - started, 6),
        }
        yield Step(number + 1, metrics, data.next_place)


def start_accelerator(recipe: Recipe) -> Accelerator:
    """Chooses device and precision.

    Raises:
        TrainingError: The recipe's device is not there, or several processes were started.
    """
    available = {"auto": True, "cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[recipe.device]:
        raise TrainingError(f'the recipe asks for device "{recipe.device}", which this machine lacks; set device=auto')
    # accelerate keeps one state per process and refuses a second run in another precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        cpu=recipe.device == "cpu", mixed_precision={"fp32": "no", "bf16": "bf16"}[recipe.precision]
    )
    if accelerator.num_processes > 1:
        raise TrainingError(f"{accelerator.num_processes} processes were started, but training runs in one; start one")
    return accelerator


def _named(data: StepData) -> str:
    shown = ", ".join(data.ids[:20])
    return f"samples {shown}{f' and {len(data.ids) - 20} more' if len(data.ids) > 20 else ''}"
