"""AdamW over the groups of a stage, and learning-rate schedules as pure functions of the step."""

import math
from typing import Any

import torch

from cambrian_model.training.recipe import OptimSection


def build_optimizer(groups: list[dict[str, Any]], optim: OptimSection) -> torch.optim.AdamW:
    """Builds AdamW; each group keeps the learning rate it came with as `base_lr`."""
    groups = [{**group, "base_lr": group["lr"]} for group in groups]
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, eps=optim.eps)


def lr_factor(optim: OptimSection, step: int, num_steps: int) -> float:
    """Returns the share of the learning rate at `step` (from 0) of `num_steps`: warm-up, then the schedule."""
    warmup = round(optim.warmup * num_steps) if optim.warmup < 1 else round(optim.warmup)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(num_steps - warmup, 1)
    match optim.schedule:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        case "linear":
            return 1 - done
        case "constant":
            return 1.0


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group to `factor` times its own base rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
