"""What a run tells about itself: one JSON object per step in `metrics.jsonl`.

The file is the record: summaries and the picture (`curve.py`) are made from it. On resume it is cut back to the
checkpoint, so that every step stands in it exactly once. Validation and evaluation have lines of their own, told by
their `kind`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from cambrian_model.errors import TrainingError
from cambrian_model.training.collate import Batch
from cambrian_model.training.files import write_text

Metrics = dict[str, Any]  # one line: stage, step, loss, lr, grad_norm, tokens, ...


class StepCounts(NamedTuple):
    """What an optimizer step holds.

    Attributes:
        supervised_tokens: Tokens that the loss counts.
        tokens: Tokens that are not padding.
        capacity: Tokens with padding.
        images: Pictures.
        samples: Samples.
        bad: Samples that were left out, for they could not be read.
    """

    supervised_tokens: int
    tokens: int
    capacity: int
    images: int
    samples: int
    bad: int

    @classmethod
    def of(cls, batches: Sequence[Batch], bad: int) -> Self:
        """Adds up the batches of a step."""
        return cls(
            supervised_tokens=sum(batch.supervised_tokens for batch in batches),
            tokens=sum(batch.tokens for batch in batches),
            capacity=sum(batch.capacity for batch in batches),
            images=sum(batch.images for batch in batches),
            samples=sum(batch.samples for batch in batches),
            bad=bad,
        )

    def metrics(self) -> Metrics:
        """Returns what is logged of it."""
        counts = {
            name: value for name, value in self._asdict().items() if name != "capacity" and (value or name != "bad")
        }
        return {**counts, "fill": round(self.tokens / self.capacity, 4)}


@dataclass(frozen=True)
class StageSummary:
    """What a stage came to.

    Attributes:
        first_loss: Loss of its first step.
        last_loss: Loss of its last step.
        steps: Optimizer steps.
        tokens: Tokens seen, without padding.
    """

    first_loss: float | None
    last_loss: float | None
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
    for line in step_lines(lines):
        stages.setdefault(line["stage"], []).append(line)
    return {
        stage: StageSummary(
            first_loss=_first_loss(of_stage),
            last_loss=_first_loss(of_stage[::-1]),
            steps=len(of_stage),
            tokens=sum(line["tokens"] for line in of_stage),
        )
        for stage, of_stage in stages.items()
    }


def step_lines(lines: Sequence[Metrics], stage: str | None = None) -> list[Metrics]:
    """Returns the lines of optimizer steps, of one stage or of all."""
    return [line for line in lines if "kind" not in line and stage in (None, line["stage"])]


def _first_loss(lines: Sequence[Metrics]) -> float | None:
    """Returns the loss of the first step that was not skipped; None if all were."""
    return next((line["loss"] for line in lines if line["loss"] is not None), None)
