"""A factor on the loss that keeps small gradients of fp16 above zero, found by trying.

torch's `GradScaler` decides on each device by itself what to skip, and wants to call the optimizer; here a step passes
or not by the norm of all gradients, which all ranks know.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from cambrian_model.errors import TrainingError

START = 2.0**16
GROW_AFTER = 2000  # as torch's GradScaler


class LossScale:
    """Doubles after 2000 good steps in a row and halves after every bad one; always a power of two, which is exact.

    Attributes:
        scale: Multiply the loss by it.
        good_steps: In a row, since it changed.
    """

    def __init__(self) -> None:
        self.scale = START
        self.good_steps = 0

    @torch.no_grad()
    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divides the gradients in place, after the last backward of a step."""
        gradients = [_local(parameter.grad) for parameter in parameters if parameter.grad is not None]
        if gradients:
            torch._foreach_mul_(gradients, 1 / self.scale)

    def update(self, is_finite: bool) -> None:
        """Learns from a step whether its gradients were finite, all together."""
        if not is_finite:
            self.scale /= 2
            self.good_steps = 0
            return
        self.good_steps += 1
        if self.good_steps == GROW_AFTER:
            self.scale *= 2
            self.good_steps = 0

    def state(self) -> dict[str, float | int]:
        """Returns plain numbers, for JSON."""
        return {"scale": self.scale, "good_steps": self.good_steps}

    def load(self, state: Mapping[str, float | int]) -> None:
        """Takes over what `state` returned.

        Raises:
            TrainingError: It is something else.
        """
        if set(state) != {"scale", "good_steps"} or not state["scale"] > 0:
            raise TrainingError(
                f"the checkpoint's loss scale is {dict(state)}; expected scale, above 0, and good_steps. "
                "Resume from another checkpoint"
            )
        self.scale, self.good_steps = float(state["scale"]), int(state["good_steps"])


def _local(gradient: Tensor) -> Tensor:
    """Returns this rank's part of a gradient, in its memory."""
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient
