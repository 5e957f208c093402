"""AdamW over the groups of a stage, and learning-rate schedules as pure functions of the step."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from cambrian_model.training.recipe.stage import OptimSection
from cambrian_model.training.trainable import Group


def build_optimizer(model: nn.Module, groups: Sequence[Group], optim: OptimSection) -> torch.optim.AdamW:
    """Builds AdamW over a model's trained parameters, whole or sharded; each group keeps what it came with.

    Args:
        model: Its parameters have the names that the groups give.
        groups: See `trainable.select_trainable`.
        optim: The stage's.
    """
    parameters = dict(model.named_parameters())
    return torch.optim.AdamW(
        [
            {
                "params": [(name, parameters[name]) for name in group.names],
                "lr": group.lr,
                "base_lr": group.lr,
                "weight_decay": group.weight_decay,
                "warmup": group.warmup,
            }
            for group in groups
        ],
        lr=optim.lr,
        betas=optim.betas,
        eps=optim.eps,
    )


def lr_factor(optim: OptimSection, warmup: float, step: int, num_steps: int) -> float:
    """Returns the share of the learning rate at `step` (from 0) of `num_steps`: warm-up, then the schedule."""
    rising = _steps(warmup, num_steps)
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(num_steps - rising, 1)
    match optim.schedule:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        case "linear":
            return 1 - done
        case "constant":
            return 1.0
        case "wsd":
            falling = max(_steps(optim.decay, num_steps), 1)
            return min(1.0, (num_steps - step) / falling)


def _steps(share: float, num_steps: int) -> int:
    return round(share * num_steps) if share < 1 else round(share)


def set_learning_rates(optimizer: torch.optim.Optimizer, optim: OptimSection, step: int, num_steps: int) -> list[float]:
    """Sets every group's learning rate for a step (from 0) and returns them."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * lr_factor(optim, group["warmup"], step, num_steps)
    return [group["lr"] for group in optimizer.param_groups]
