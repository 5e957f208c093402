"""The training loop: one page, from a place in the data to the end of a stage.

The loss is the sum over all supervised tokens of a step divided by their number, however the step is cut into batches
and spread over ranks: 8 rows at once, 2 rows four times and 4 rows on each of two ranks give the same gradients.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from cambrian_model.errors import TrainingError
from cambrian_model.training.batches import Place, StepData
from cambrian_model.training.distributed import num_ranks, sum_over_ranks, synchronizing, together, whole
from cambrian_model.training.ema import EMA
from cambrian_model.training.guard import Guard
from cambrian_model.training.loss_scale import LossScale
from cambrian_model.training.metrics import Metrics, StepCounts
from cambrian_model.training.optim import set_learning_rates
from cambrian_model.training.recipe.stage import OptimSection


@dataclass(frozen=True)
class Engine:
    """What takes the steps of a stage.

    Attributes:
        model: The model on its devices, as `distributed.parallelize` returns it.
        optimizer: Over its trained parameters.
        accelerator: Device and precision.
        optim: The stage's.
        guard: Against losses that are not finite.
        render: Shows the first sample of a step as text, for messages.
        ema: Average of the trained weights, if the stage keeps one.
        loss_scale: Of fp16.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    accelerator: Accelerator
    optim: OptimSection
    guard: Guard
    render: Callable[[StepData], str]
    ema: EMA | None = None
    loss_scale: LossScale | None = None

    @property
    def device(self) -> torch.device:
        """Where batches go."""
        return self.accelerator.device

    @property
    def is_scaled(self) -> bool:
        """Whether a gradient may have overflowed for the loss was scaled up, which a smaller scale mends."""
        return self.loss_scale is not None and self.loss_scale.scale > 1

    @property
    def trained(self) -> list[nn.Parameter]:
        """What the optimizer changes."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


@dataclass(frozen=True)
class Step:
    """One finished optimizer step.

    Attributes:
        number: From 1.
        metrics: What to log.
        counts: What it held, on all ranks together.
        data: This rank's share of it.
        is_told_to_stop: Whether some rank has been asked to end the run.
    """

    number: int
    metrics: Metrics
    counts: StepCounts
    data: StepData
    is_told_to_stop: bool

    @property
    def next_place(self) -> Place:
        """Where the data continues."""
        return self.data.next_place


def run_steps(
    engine: Engine,
    steps: Iterator[StepData],
    first: int,
    num_steps: int,
    is_told_to_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Step]:
    """Trains from step `first` (0 for a new stage) to `num_steps`, and yields after every step.

    Raises:
        TrainingError: A step has nothing supervised, or too many in a row are not finite; names the samples.
    """
    for number in range(first, num_steps):
        engine.model.train()
        started = time.perf_counter()
        data, counts, stops = _next(steps, is_told_to_stop(), engine.device)
        loaded = time.perf_counter()
        is_empty = not counts.supervised_tokens
        if is_empty and not counts.bad:
            raise TrainingError(
                f"step {number + 1} has no supervised token; give its samples an assistant turn. "
                f"The first of them: {engine.render(data)}"
            )
        own_loss, grad_norm = _backward(engine, data, max(counts.supervised_tokens, 1))
        (loss,) = sum_over_ranks([own_loss], engine.device)
        lrs = set_learning_rates(engine.optimizer, engine.optim, number, num_steps)
        passes = engine.guard.passes(math.nan if is_empty else loss, grad_norm, engine.is_scaled)
        if engine.loss_scale is not None and not is_empty:
            engine.loss_scale.update(passes)
        suspects = []
        if passes:
            _take(engine, grad_norm)
        elif not is_empty:
            suspects = engine.guard.suspects(own_loss, data.ids, engine.device)
        engine.optimizer.zero_grad(set_to_none=True)
        metrics = {
            "step": number + 1,
            "epoch": data.epoch,
            "loss": loss if passes else None,
            "lr": max(lrs),
            "grad_norm": grad_norm if passes else None,
            **counts.metrics(),
            "data_seconds": round(loaded - started, 6),
            "seconds": round(time.perf_counter() - started, 6),
        }
        if len(set(lrs)) > 1:
            metrics["lrs"] = lrs
        if suspects:
            metrics["not_finite"] = suspects
        yield Step(number + 1, metrics, counts, data, stops)
        engine.guard.stop_if_hopeless(number + 1, loss, grad_norm, suspects)


def _next(steps: Iterator[StepData], stop: bool, device: torch.device) -> tuple[StepData, StepCounts, bool]:
    """Returns this rank's share of the next step, what the whole step holds, and whether some rank is told to stop.

    Raises:
        TrainingError: A rank cannot read its share; raised on all of them, so that none waits for it forever.
    """
    failure: Exception | None = None
    data = None
    try:
        data = next(steps)
    except Exception as error:  # noqa: BLE001 - raised below, once the other ranks know of it
        failure = error
    mine = StepCounts.of(data.batches, len(data.bad)) if data is not None else StepCounts.of((), 0)
    *numbers, stops, failures = sum_over_ranks([*mine, float(stop), float(failure is not None)], device)
    if failures:
        with together("reading the data of a step", device):
            if failure is not None:
                raise failure
    assert data is not None
    return data, StepCounts(*map(int, numbers)), stops > 0


def _backward(engine: Engine, data: StepData, supervised: int) -> tuple[float, float]:
    """Runs a step's batches forward and backward; returns this rank's part of the loss, and the gradient's norm."""
    scale = engine.loss_scale.scale if engine.loss_scale is not None else 1.0
    loss = torch.zeros((), device=engine.device)
    for i, batch in enumerate(data.batches):
        with synchronizing(engine.model, i + 1 == len(data.batches)):
            with engine.accelerator.autocast():
                output = engine.model(**batch.to(engine.device), num_items_in_batch=supervised, use_cache=False)
            # Both DDP and FSDP2 average over ranks, and the loss is a sum over them.
            (output.loss * (num_ranks() * scale)).backward()
        loss += output.loss.detach().float()
    if engine.loss_scale is not None:
        engine.loss_scale.unscale(engine.trained)
    own_loss, grad_norm = torch.stack([loss, _grad_norm(engine.trained)]).tolist()
    return own_loss, grad_norm


def _grad_norm(parameters: list[nn.Parameter]) -> Tensor:
    """Returns the norm of all gradients together, over all shards."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return whole(torch.nn.utils.get_total_norm(gradients)).float()


def _take(engine: Engine, grad_norm: float) -> None:
    if engine.optim.clip_norm is not None and grad_norm > engine.optim.clip_norm:
        norm = torch.tensor(grad_norm, device=engine.device)
        torch.nn.utils.clip_grads_with_norm_(engine.trained, engine.optim.clip_norm, norm)
    engine.optimizer.step()
    if engine.ema is not None:
        engine.ema.update(engine.model)
