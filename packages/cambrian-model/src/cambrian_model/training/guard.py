"""What happens when a loss or a gradient is not finite: the step is skipped on all ranks, and not for ever."""

import json
import math
from collections.abc import Sequence

import torch

from cambrian_model.errors import TrainingError
from cambrian_model.training.distributed import gather_texts

SHOWN = 20  # samples that a message names


class Guard:
    """Counts steps in a row that were skipped, and stops training after too many.

    Args:
        most: So many in a row are skipped before training stops.
        in_a_row: Skipped just before, of a run that is resumed.
    """

    def __init__(self, most: int, in_a_row: int = 0) -> None:
        self._most, self.in_a_row = most, in_a_row

    def passes(self, loss: float, grad_norm: float, is_scaled: bool = False) -> bool:
        """Tells whether a step may be taken; both numbers are those of all ranks together, and so is the answer.

        A gradient that overflowed under a scaled loss (fp16) is skipped, and not held against the data.
        """
        is_finite = math.isfinite(loss) and math.isfinite(grad_norm)
        if is_finite:
            self.in_a_row = 0
        elif not (is_scaled and math.isfinite(loss)):
            self.in_a_row += 1
        return is_finite

    def suspects(self, own_loss: float, ids: Sequence[str], device: torch.device) -> list[str]:
        """Returns the samples of the ranks whose own loss is not finite; of all ranks, where only the gradient is not.

        Every rank calls it, after a step that did not pass.
        """
        mine = json.dumps({"finite": math.isfinite(own_loss), "ids": list(ids)})
        ranks = [json.loads(text) for text in gather_texts(mine, device)]
        guilty = [each for each in ranks if not each["finite"]] or ranks
        return [name for each in guilty for name in each["ids"]]

    def stop_if_hopeless(self, step: int, loss: float, grad_norm: float, samples: Sequence[str]) -> None:
        """Gives up after too many skipped steps.

        Raises:
            TrainingError: Names step, loss, gradient norm and samples.
        """
        if self.in_a_row < self._most:
            return
        if not samples:
            raise TrainingError(
                f"step {step}: none of its samples could be read, and {self.in_a_row} steps in a row taught nothing "
                "(max_bad_steps); see bad_samples.jsonl, and put the files back"
            )
        raise TrainingError(
            f"step {step}: loss {loss} and gradient norm {grad_norm} are not both finite, and so in "
            f"{self.in_a_row} steps in a row (max_bad_steps): {named(samples)}; lower the learning rate, or "
            "remove these samples"
        )


def named(ids: Sequence[str]) -> str:
    """Returns samples as a message names them."""
    shown = ", ".join(ids[:SHOWN])
    return f"samples {shown}{f' and {len(ids) - SHOWN} more' if len(ids) > SHOWN else ''}"
