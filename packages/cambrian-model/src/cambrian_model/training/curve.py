"""The curves of a run as a picture: loss per step, validation losses, learning rate."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cambrian_model.errors import TrainingError
from cambrian_model.training.files import UNFINISHED
from cambrian_model.training.metrics import Metrics, step_lines, summarise

COLORS = ("#2a6f97", "#c8553d", "#588157", "#7b5ea7")
MARKERS = "osD^v"


def draw_curve(lines: Sequence[Metrics], path: Path, title: str) -> None:
    """Draws loss and learning rate of all stages over the steps of the run as a PNG.

    Raises:
        TrainingError: The picture cannot be written.
    """
    import matplotlib.figure  # here, for it takes a second to import and is needed once

    figure = matplotlib.figure.Figure(figsize=(9, 5.4), dpi=120, layout="constrained")
    loss_axes, lr_axes = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    start = 0
    for color, stage in zip(itertools.cycle(COLORS), summarise(lines), strict=False):
        of_stage = step_lines(lines, stage)
        steps = np.array([start + line["step"] for line in of_stage])
        losses = np.array([np.nan if line["loss"] is None else line["loss"] for line in of_stage])
        loss_axes.plot(steps, losses, color=color, alpha=0.25, linewidth=1)
        loss_axes.plot(steps, _smooth(losses), color=color, linewidth=2, label=f"{stage}: {_range(losses)}")
        lr_axes.plot(steps, [line["lr"] for line in of_stage], color=color, linewidth=1.5)
        _draw_validation(loss_axes, lines, stage, start, color)
        if start:
            for axes in (loss_axes, lr_axes):
                axes.axvline(start + 0.5, color="0.6", linewidth=0.8, linestyle=(0, (4, 3)))
        start = int(steps[-1])
    loss_axes.set(title=title, ylabel="loss per supervised token")
    lr_axes.set(xlabel="optimizer step", ylabel="learning rate")
    lr_axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    loss_axes.legend(frameon=False, loc="upper right")
    for axes in (loss_axes, lr_axes):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.margins(x=0.01)
        axes.set_ylim(bottom=0)
    unfinished = path.with_name(UNFINISHED + path.name)
    try:
        figure.savefig(unfinished, format="png")
        unfinished.replace(path)
    except OSError as error:
        raise TrainingError(f"could not write {path}: {error}; free disk space, then continue with --resume") from error


def _draw_validation(axes: Any, lines: Sequence[Metrics], stage: str, start: int, color: str) -> None:
    """Draws the validation losses of a stage, each source with its own marker."""
    found = [line for line in lines if line.get("kind") == "validation" and line["stage"] == stage]
    for marker, source in zip(itertools.cycle(MARKERS), found[0]["losses"] if found else (), strict=False):
        steps, losses = [start + line["step"] for line in found], [line["losses"][source] for line in found]
        label = f"{stage}, validation on {source}: {losses[-1]:.2f}"
        axes.plot(steps, losses, color=color, marker=marker, markersize=5, linewidth=0.8, linestyle=":", label=label)


def _range(losses: np.ndarray) -> str:
    known = losses[np.isfinite(losses)]
    return f"{known[0]:.2f} to {_smooth(known)[-1]:.2f}" if len(known) else "no finite loss"


def _smooth(values: np.ndarray) -> np.ndarray:
    """Returns the exponential average over about a twentieth of the curve, without a bias; skipped steps count not."""
    decay = 1 - 1 / max(len(values) / 20, 1)
    total, weight, smoothed = 0.0, 0.0, np.empty(len(values))
    for i, value in enumerate(values):
        if np.isfinite(value):
            total, weight = decay * total + value, decay * weight + 1
        smoothed[i] = total / weight if weight else np.nan
    return smoothed
