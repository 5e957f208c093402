"""What a stage trains: exactly the parts it names, each parameter in exactly one optimizer group.

Parts are named once, here: every parameter of the model belongs to one of them, by its name.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import nn

from cambrian_model.errors import RecipeError
from cambrian_model.training.recipe import PARTS, OptimSection, Part, StageSection


class TrainableRow(NamedTuple):
    """One line of the table that says what is trained.

    Attributes:
        part: A part of the model.
        tensors: Its parameter tensors.
        parameters: Their elements.
        lr: Learning rate, or None where the part is frozen.
    """

    part: Part
    tensors: int
    parameters: int
    lr: float | None


class Trainable(NamedTuple):
    """What a stage trains.

    Attributes:
        groups: Optimizer groups: part, lr, weight_decay, and params as (name, parameter) pairs.
        table: One row per part that the model has, trained or frozen.
    """

    groups: list[dict[str, Any]]
    table: list[TrainableRow]

    @property
    def named(self) -> dict[str, nn.Parameter]:
        """Every trained parameter by name."""
        return {name: parameter for group in self.groups for name, parameter in group["params"]}


def part_of(name: str) -> Part:
    """Returns the part to which a parameter belongs."""
    root = name.partition(".")[0]
    if root == "language_model":
        return "in_llm" if ".sva." in name else "language_model"
    assert root in PARTS, f"parameter {name} belongs to no part of {PARTS}"
    return root


def select_trainable(model: nn.Module, stage: StageSection) -> Trainable:
    """Makes exactly the parts that `stage` names trainable, and groups their parameters for the optimizer.

    Raises:
        RecipeError: The stage names a part that this model does not have.
    """
    by_part: dict[Part, list[tuple[str, nn.Parameter]]] = {part: [] for part in PARTS}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        parameter.requires_grad_(part in stage.train)
        by_part[part].append((name, parameter))
    if absent := [part for part in stage.train if not by_part[part]]:
        raise RecipeError(
            f"the stage trains {', '.join(absent)}, but this model has no such part; remove it from train"
        )
    groups = [group for part in stage.train for group in _groups(part, by_part[part], stage.optim)]
    _check_complete(model, groups)
    table = [_row(part, by_part[part], stage) for part in PARTS if by_part[part]]
    return Trainable(groups, table)


def learning_rate(part: Part, optim: OptimSection) -> float:
    """Returns the learning rate of a part."""
    return optim.part_lr.get(part, optim.lr)


def _groups(part: Part, named: Sequence[tuple[str, nn.Parameter]], optim: OptimSection) -> list[dict[str, Any]]:
    matrices = [(name, parameter) for name, parameter in named if parameter.ndim >= 2]
    vectors = [(name, parameter) for name, parameter in named if parameter.ndim < 2]
    decays = ((matrices, optim.weight_decay), (vectors, 0.0))
    lr = learning_rate(part, optim)
    return [
        {"part": part, "lr": lr, "weight_decay": weight_decay, "params": params}
        for params, weight_decay in decays
        if params
    ]


def _check_complete(model: nn.Module, groups: Sequence[dict[str, Any]]) -> None:
    grouped = [name for group in groups for name, _ in group["params"]]
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert sorted(grouped) == sorted(trainable), "a trainable parameter is in no group, or in two"


def _row(part: Part, named: Sequence[tuple[str, nn.Parameter]], stage: StageSection) -> TrainableRow:
    lr = learning_rate(part, stage.optim) if part in stage.train else None
    return TrainableRow(part, len(named), sum(parameter.numel() for _, parameter in named), lr)
