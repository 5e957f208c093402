"""An exponential moving average of the trained weights, in float32, to evaluate and export instead of the last ones."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from cambrian_model.errors import TrainingError

NUM_UPDATES = "num_updates"  # beside the averages in `state`; no parameter has this name


class EMA:
    """Averages of a model's trained parameters, each sharded as its parameter is.

    An update moves them by 1 - d towards the weights, with d = min(decay, (1 + n) / (10 + n)) after n updates, so that
    what training started from is soon forgotten.

    Source: TensorFlow's `ExponentialMovingAverage` with `num_updates`; latent diffusion and torch_ema do the same.

    Args:
        model: On its devices already, as `distributed.parallelize` returns it.
        decay: Of the average in the long run, between 0 and 1: 0.999 averages about the last 1000 steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self._averages = {name: _average_of(parameter) for name, parameter in _trained(model).items()}
        self._is_swapped = False

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the averages towards the weights; once after every optimizer step."""
        assert not self._is_swapped, "the model holds the averages"
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        weights = _trained(model)
        averages = [_local(average) for average in self._averages.values()]
        current = [_local(weights[name].detach()).float() for name in self._averages]
        torch._foreach_lerp_(averages, current, 1 - decay)
        self.num_updates += 1

    def state(self) -> dict[str, Tensor]:
        """Returns the averages by parameter name, and the number of updates; not copied."""
        return {**self._averages, NUM_UPDATES: torch.tensor(self.num_updates)}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `state` returned, whole or sharded in whatever way.

        Raises:
            TrainingError: It belongs to other parameters.
        """
        expected = {**{name: average.shape for name, average in self._averages.items()}, NUM_UPDATES: torch.Size()}
        found = {name: tensor.shape for name, tensor in state.items()}
        if odd := sorted(name for name in expected | found if expected.get(name) != found.get(name)):
            raise TrainingError(
                f"the averages (EMA) are of another model or stage: {len(odd)} of {len(expected)} differ, the first is "
                f"{odd[0]}, {_shape(found.get(odd[0]))} in the checkpoint and {_shape(expected.get(odd[0]))} here; "
                "resume with the recipe that the run was started with"
            )
        for name, average in self._averages.items():
            average.copy_(_sharded_like(state[name], average))
        self.num_updates = int(state[NUM_UPDATES])

    @contextmanager
    def swapped(self, model: nn.Module) -> Iterator[None]:
        """Puts the averages into the model for as long as it lasts; then the very weights that were there.

        Takes memory for one more copy of the trained weights.
        """
        assert not self._is_swapped, "the model holds the averages already"
        weights = {name: parameter.detach().clone() for name, parameter in _trained(model).items()}
        self._is_swapped = True
        try:
            _write(model, self._averages)
            yield
        finally:
            _write(model, weights)
            self._is_swapped = False


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the trained parameters under their names in checkpoints; of a sharded model, the shards."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # after an evaluation, the model holds whole copies, and would compute with them again
    return {_plain_name(name): parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _plain_name(name: str) -> str:
    """Takes away what DDP and `torch.compile` put into names."""
    return name.replace("_orig_mod.", "").removeprefix("module.")


def _average_of(parameter: nn.Parameter) -> Tensor:
    return parameter.detach().to(torch.float32, copy=True)


def _local(tensor: Tensor) -> Tensor:
    """Returns this rank's part of a tensor, in its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def _write(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    for name, parameter in _trained(model).items():
        parameter.copy_(values[name])


def _sharded_like(tensor: Tensor, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor):
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    if not isinstance(tensor, DTensor):
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return tensor.redistribute(like.device_mesh, like.placements)


def _shape(size: torch.Size | None) -> str:
    return str(list(size)) if size is not None else "absent"
