"""How fast a stage is: tokens per second, model FLOPs utilisation (MFU), waiting for data, memory."""

import resource
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import torch

from cambrian_model.image_tokens import visible_region
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.training.collate import Batch
from cambrian_model.training.flops import BatchShape, FlopModel, peak_flops
from cambrian_model.training.loop import Step
from cambrian_model.training.metrics import Metrics
from cambrian_model.training.recipe import Recipe
from cambrian_model.training.recipe.stage import StageSection


class Throughput(NamedTuple):
    """What is needed to tell how fast a step was.

    Attributes:
        flops: Of the model, with what this stage trains.
        peak: What one device can do at best, in operations per second; None where that is not known.
        grid_side: Of the grid of image tokens.
        device: Of this rank.
    """

    flops: FlopModel | None
    peak: float | None
    grid_side: int
    device: torch.device

    @classmethod
    def of(
        cls, model: CambrianForConditionalGeneration, recipe: Recipe, stage: StageSection, device: torch.device
    ) -> Self:
        """Prepares for a stage, before its model is spread over devices; where no peak is known, MFU is not told."""
        peak = recipe.peak_tflops * 1e12 if recipe.peak_tflops else None
        if peak is None and device.type == "cuda":
            peak = peak_flops(torch.cuda.get_device_name(device), recipe.precision)
        flops = None
        if peak is not None:
            flops = FlopModel.of(
                model,
                checkpointed=recipe.activation_checkpointing,
                loss=recipe.loss.implementation,
                has_pixels=not stage.feature_cache,
            )
        return cls(flops, peak, model.config.grid_side, device)

    def metrics(self, step: Step) -> Metrics:
        """Returns what is logged of a step: memory in GB (of a CPU, the most so far), and MFU of this rank's share."""
        found: Metrics = {"memory_gb": round(_memory(self.device) / 1e9, 3)}
        if self.flops is not None and self.peak is not None:
            done = sum(self.flops.model_flops(self._shape(batch)) for batch in step.data.batches)
            found["mfu"] = round(done / (step.metrics["seconds"] * self.peak), 4)
        return found

    def shown(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Returns what a person watches of a line of metrics."""
        loss = metrics["loss"] if metrics["loss"] is not None else float("nan")
        shown = {"loss": loss, "lr": metrics["lr"], "tokens/s": metrics["tokens"] / metrics["seconds"]}
        if "mfu" in metrics:
            shown["mfu %"] = 100 * metrics["mfu"]
        shown["data wait %"] = 100 * metrics["data_seconds"] / metrics["seconds"]
        shown["GB"] = metrics["memory_gb"]
        return shown

    def _shape(self, batch: Batch) -> BatchShape:
        regions = [visible_region(size, self.grid_side) for size in batch.inputs["image_sizes"].tolist()]
        # Positions of a document of n tokens are 0 to n - 1, and the first n odd numbers add up to n squared.
        pairs = int((2 * batch.inputs["position_ids"] + 1).sum())
        cells = sum(region.rows * region.columns for region in regions)
        return BatchShape(batch.tokens, pairs, batch.supervised_tokens, batch.images, cells)


def _memory(device: torch.device) -> int:
    """Returns the most memory so far, in bytes: of the accelerator, or else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
