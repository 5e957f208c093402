"""Everything that changes during a run, and what of it is tensors, by name."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cambrian_model.training.batches import Place
from cambrian_model.training.manifest import Reference, plain_name


@dataclass(frozen=True)
class Progressed:
    """How far a run is.

    Attributes:
        stage: Name of the running stage.
        step: Optimizer steps done in it.
        place: Where its data continues.
    """

    stage: str
    step: int
    place: Place


@dataclass(frozen=True)
class TrainingState:
    """Everything that changes during a run.

    Attributes:
        model: Plain or wrapped, whole or sharded.
        optimizer: AdamW over some of its parameters. Learning rates and other options are the recipe's, not saved.
        progressed: How far the run is; loading does not look at it.
        ema: Averages of weights by name, or None.
        scalars: Whatever else there is, as JSON: the loss scale, for example. Loading replaces its content.
        seed: The run's; generators are seeded from it when the number of ranks changes.
        frozen: Where the parameters that are not trained came from, see `manifest.refer_to_frozen`.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    progressed: Progressed
    ema: Mapping[str, Tensor] | None = None
    scalars: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    frozen: Reference | None = None


def tensors_of(state: TrainingState, full: bool) -> dict[str, Tensor]:
    """Returns everything that is a tensor, by name: what is saved, and what is read into."""
    optimizer = {
        f"optimizer/{quantity}/{name}": value
        for name, _, values in _optimizer_state(state)
        for quantity, value in values.items()
        if quantity != "step"
    }
    return _weights(state, full) | optimizer


def _weights(state: TrainingState, full: bool) -> dict[str, Tensor]:
    """Returns trained parameters, all saved buffers (running statistics change too) and averages."""
    saved = {plain_name(name) for name in state.model.state_dict()}
    parameters = {plain_name(name): p.detach() for name, p in state.model.named_parameters() if p.requires_grad or full}
    buffers = {plain_name(name): buffer for name, buffer in state.model.named_buffers() if plain_name(name) in saved}
    weights = {f"model/{name}": tensor for name, tensor in (parameters | buffers).items()}
    return weights | {f"ema/{plain_name(name)}": tensor for name, tensor in (state.ema or {}).items()}


def _optimizer_state(state: TrainingState) -> Iterator[tuple[str, nn.Parameter, dict[str, Any]]]:
    """Yields name, parameter and state of each parameter that the optimizer has taken a step with."""
    for name, (parameter, _) in _optimized(state).items():
        if values := state.optimizer.state.get(parameter):
            yield name, parameter, values


def _optimized(state: TrainingState) -> dict[str, tuple[nn.Parameter, dict[str, Any]]]:
    """Returns the optimizer's parameters and the group of each, by name."""
    names = {parameter: plain_name(name) for name, parameter in state.model.named_parameters()}
    groups = state.optimizer.param_groups
    return {names[parameter]: (parameter, group) for group in groups for parameter in group["params"]}


def optimizer_steps(state: TrainingState) -> dict[str, float]:
    """Returns how many steps the optimizer has taken with each parameter, by name."""
    return {name: float(values["step"]) for name, _, values in _optimizer_state(state)}


def make_optimizer_state(state: TrainingState, steps: Mapping[str, float], stored: Iterable[str]) -> None:
    """Gives the optimizer step counts, and empty averages to read into.

    Args:
        state: Its optimizer forgets what it has.
        steps: See `optimizer_steps`.
        stored: Names of tensors that are going to be read, see `tensors_of`.
    """
    state.optimizer.state.clear()
    optimized = _optimized(state)
    for name in steps.keys() & optimized.keys():
        parameter, group = optimized[name]
        # Where AdamW itself keeps the count.
        device = parameter.device if group.get("fused") or group.get("capturable") else "cpu"
        state.optimizer.state[parameter]["step"] = torch.tensor(steps[name], dtype=torch.float32, device=device)
    for key in stored:
        kind, _, rest = key.partition("/")
        quantity, _, name = rest.partition("/")
        if kind == "optimizer" and name in optimized:
            parameter, _ = optimized[name]
            state.optimizer.state[parameter][quantity] = torch.zeros_like(parameter, requires_grad=False)
