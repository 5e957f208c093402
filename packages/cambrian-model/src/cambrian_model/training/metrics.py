"""What a run tells about itself: one JSON object per step in `metrics.jsonl`, and a picture of the curves.

The file is the record: summaries and the picture are made from it. On resume it is cut back to the checkpoint, so
that every step stands in it exactly once.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from cambrian_model.errors import TrainingError
from cambrian_model.training.state import UNFINISHED, write_text

Metrics = dict[str, Any]  # one line: stage, step, loss, lr, grad_norm, tokens, ...


@dataclass(frozen=True)
class StageSummary:
    """What a stage came to.

    Attributes:
        first_loss: Loss of its first step.
        last_loss: Loss of its last step.
        steps: Optimizer steps.
        tokens: Tokens seen, without padding.
    """

    first_loss: float
    last_loss: float
    steps: int
    tokens: int


class MetricsLog:
    """Appends to `metrics.jsonl`; every line is on its way to the disk before the next step begins."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)  # a buffer that a full disk refused would fail again on close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, line: Metrics) -> None:
        """Appends one line.

        Raises:
            TrainingError: The disk is full, or the file cannot be written.
        """
        try:
            rest = json.dumps(line).encode() + b"\n"
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise TrainingError(
                f"could not write {self._path}: {error}; free disk space, then continue with --resume"
            ) from error


def read_metrics(path: Path) -> list[Metrics]:
    """Reads the lines of a metrics file; a last line cut off by a kill is left out."""
    if not path.is_file():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.split("\n") if line]


def cut_metrics(path: Path, finished_stages: Sequence[str], stage: str, step: int) -> list[Metrics]:
    """Keeps what a run continues from: the finished stages, and the first `step` steps of the running one.

    Returns:
        The lines kept.
    """
    lines = read_metrics(path)
    kept = [x for x in lines if x["stage"] in finished_stages or (x["stage"] == stage and x["step"] <= step)]
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
    return kept


def summarise(lines: Sequence[Metrics]) -> dict[str, StageSummary]:
    """Summarises every stage of a run, in the order in which they ran."""
    stages: dict[str, list[Metrics]] = {}
    for line in lines:
        stages.setdefault(line["stage"], []).append(line)
    return {
        stage: StageSummary(
            first_loss=of_stage[0]["loss"],
            last_loss=of_stage[-1]["loss"],
            steps=len(of_stage),
            tokens=sum(line["tokens"] for line in of_stage),
        )
        for stage, of_stage in stages.items()
    }


COLORS = ("#2a6f97", "#c8553d", "#588157", "#7b5ea7")


def draw_curve(lines: Sequence[Metrics], path: Path, title: str) -> None:
    """Draws loss and learning rate of all stages over the steps of the run as a PNG.

    Raises:
        TrainingError: The picture cannot be written.
    """
    import matplotlib.figure  # here, for it takes a second to import and is needed once

    figure = matplotlib.figure.Figure(figsize=(9, 5.4), dpi=120, layout="constrained")
    loss_axes, lr_axes = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    start = 0
    for color, stage in zip(_cycle(COLORS, len(lines)), summarise(lines), strict=False):
        of_stage = [line for line in lines if line["stage"] == stage]
        steps = np.arange(start + 1, start + len(of_stage) + 1)
        losses = np.array([line["loss"] for line in of_stage])
        loss_axes.plot(steps, losses, color=color, alpha=0.25, linewidth=1)
        loss_axes.plot(steps, _smooth(losses), color=color, linewidth=2, label=f"{stage}: {_range(losses)}")
        lr_axes.plot(steps, [line["lr"] for line in of_stage], color=color, linewidth=1.5)
        if start:
            for axes in (loss_axes, lr_axes):
                axes.axvline(start + 0.5, color="0.6", linewidth=0.8, linestyle=(0, (4, 3)))
        start += len(of_stage)
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


def _cycle(colors: Sequence[str], count: int) -> list[str]:
    return [colors[i % len(colors)] for i in range(count)]


def _range(losses: np.ndarray) -> str:
    return f"{losses[0]:.2f} to {_smooth(losses)[-1]:.2f}"


def _smooth(values: np.ndarray) -> np.ndarray:
    """Returns the exponential average over about a twentieth of the curve, without a bias to the first value."""
    decay = 1 - 1 / max(len(values) / 20, 1)
    total, weight, smoothed = 0.0, 0.0, np.empty(len(values))
    for i, value in enumerate(values):
        total, weight = decay * total + value, decay * weight + 1
        smoothed[i] = total / weight
    return smoothed
