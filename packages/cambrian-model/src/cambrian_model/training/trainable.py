"""What a stage trains: exactly the parameters it names, each in exactly one group with its learning rate.

Decided by name, before a model is sharded or wrapped, and on a model without weights as well.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import nn

from cambrian_model.errors import RecipeError
from cambrian_model.training.parts import PARTS, Part, is_glob, matching, part_of
from cambrian_model.training.recipe.stage import OptimSection, StageSection


class Group(NamedTuple):
    """Parameters that the optimizer treats alike.

    Attributes:
        pattern: The pattern of `optim.groups` that names them; None for all that none names.
        names: Their names.
        lr: Learning rate after the warm-up.
        weight_decay: 0 for vectors.
        warmup: A fraction of the stage's steps if below 1, else a number of steps.
    """

    pattern: str | None
    names: tuple[str, ...]
    lr: float
    weight_decay: float
    warmup: float


class TrainableRow(NamedTuple):
    """One line of the table that says what is trained: the parameters of one part that are treated alike.

    Attributes:
        part: A part of the model.
        tensors: Parameter tensors.
        parameters: Their elements.
        lr: Learning rate; None where they are frozen.
        weight_decay: Of matrices; None where they are frozen.
        warmup: As in the recipe; None where they are frozen.
    """

    part: Part
    tensors: int
    parameters: int
    lr: float | None
    weight_decay: float | None
    warmup: float | None


class Trainable(NamedTuple):
    """What a stage trains.

    Attributes:
        groups: Optimizer groups; every trained parameter is in exactly one.
        table: What is trained and what is frozen, part by part.
    """

    groups: list[Group]
    table: list[TrainableRow]

    @property
    def names(self) -> list[str]:
        """Every trained parameter."""
        return [name for group in self.groups for name in group.names]


def select_trainable(model: nn.Module, stage: StageSection) -> Trainable:
    """Makes exactly the parameters that `stage` names trainable, and groups them for the optimizer.

    Raises:
        RecipeError: A pattern matches no parameter of this model, or two groups match the same one.
    """
    parameters = dict(model.named_parameters())
    trained = _trained(stage.train, parameters)
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in trained)
    owners = _owners(stage.optim, [name for name in parameters if name in trained])
    groups = [group for pattern in (*stage.optim.groups, None) for group in _groups(pattern, owners, parameters, stage)]
    grouped = [name for group in groups for name in group.names]
    assert sorted(grouped) == sorted(trained), "a trained parameter is in no group, or in two"
    return Trainable(groups, _table(parameters, owners, stage.optim))


def _trained(patterns: Sequence[str], parameters: Mapping[str, nn.Parameter]) -> set[str]:
    trained: set[str] = set()
    for pattern in patterns:
        found = matching(pattern, parameters)
        if not found:
            raise RecipeError(_unmatched("train", pattern, parameters))
        trained.update(found)
    return trained


def _owners(optim: OptimSection, trained: Sequence[str]) -> dict[str, str | None]:
    """Returns the pattern that owns each trained parameter, None where the stage's own values hold."""
    owners: dict[str, str | None] = dict.fromkeys(trained)
    for pattern in optim.groups:
        found = matching(pattern, trained)
        if not found:
            raise RecipeError(_unmatched("optim.groups", pattern, trained))
        for name in found:
            if (other := owners[name]) is not None:
                raise RecipeError(
                    f'optim.groups: parameter {name} is named twice, by "{other}" and by "{pattern}"; '
                    "make one of the patterns narrower"
                )
            owners[name] = pattern
    return owners


def _unmatched(key: str, pattern: str, names: Mapping[str, nn.Parameter] | Sequence[str]) -> str:
    if is_glob(pattern):
        nearest = difflib.get_close_matches(pattern, list(names), n=1, cutoff=0.0)
        return (
            f'{key}: the pattern "{pattern}" matches no parameter; the nearest name is {", ".join(nearest) or "none"}'
        )
    there = [part for part in PARTS if matching(part, names)]
    return f'{key}: "{pattern}" names nothing that is there; there are {", ".join(there)}'


def _groups(
    pattern: str | None, owners: Mapping[str, str | None], parameters: Mapping[str, nn.Parameter], stage: StageSection
) -> list[Group]:
    lr, weight_decay, warmup = _values(pattern, stage.optim)
    mine = [name for name, owner in owners.items() if owner == pattern]
    matrices = tuple(name for name in mine if parameters[name].ndim >= 2)
    vectors = tuple(name for name in mine if parameters[name].ndim < 2)
    kinds = ((matrices, weight_decay), (vectors, 0.0))
    return [Group(pattern, names, lr, decay, warmup) for names, decay in kinds if names]


def _values(pattern: str | None, optim: OptimSection) -> tuple[float, float, float]:
    """Returns learning rate, weight decay and warm-up of a group."""
    if pattern is None:
        return optim.lr, optim.weight_decay, optim.warmup
    given = optim.groups[pattern]
    own = ((given.lr, optim.lr), (given.weight_decay, optim.weight_decay), (given.warmup, optim.warmup))
    lr, weight_decay, warmup = (value if value is not None else default for value, default in own)
    return lr, weight_decay, warmup


def _table(
    parameters: Mapping[str, nn.Parameter], owners: Mapping[str, str | None], optim: OptimSection
) -> list[TrainableRow]:
    kinds: dict[tuple[Part, str | bool | None], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        kinds.setdefault((part_of(name), owners.get(name, False)), []).append(parameter)
    rows = []
    for (part, owner), members in sorted(kinds.items(), key=lambda item: PARTS.index(item[0][0])):
        values = (None, None, None) if owner is False else _values(owner or None, optim)  # type: ignore[arg-type]
        rows.append(TrainableRow(part, len(members), sum(parameter.numel() for parameter in members), *values))
    return rows
