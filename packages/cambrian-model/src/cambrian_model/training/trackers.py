"""Metrics beside `metrics.jsonl`: TensorBoard, Weights & Biases, Trackio, through accelerate's trackers."""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from cambrian_model.errors import TrainingError
from cambrian_model.training.distributed import rank
from cambrian_model.training.metrics import Metrics


class Trackers:
    """The trackers of a run, on the first rank; the others have none."""

    def __init__(self, opened: Sequence[GeneralTracker]) -> None:
        self._opened = opened
        self._before = 0

    def start_stage(self, steps_before: int) -> None:
        """Counts the steps of a stage on from those of all stages before it."""
        self._before = steps_before

    def log(self, line: Metrics) -> None:
        """Logs one line of `metrics.jsonl`, its numbers named "stage/number", steps counted over all stages."""
        stage = line["stage"]
        numbers = {f"{stage}/{key}": value for key, value in _numbers(line).items()}
        for tracker in self._opened:
            tracker.log(numbers, step=self._before + line["step"])


@contextmanager
def open_trackers(names: Sequence[str], name: str, folder: Path, config: Mapping[str, Any]) -> Iterator[Trackers]:
    """Opens trackers by name for the time of a run.

    Args:
        names: As in the recipe.
        name: The run's.
        folder: Where TensorBoard writes.
        config: What is noted of the run; nested values as text.

    Raises:
        TrainingError: A tracker's package is not installed.
    """
    if missing := [each for each in names if importlib.util.find_spec(each) is None]:
        raise TrainingError(
            f"trackers names {', '.join(missing)}, which is not installed; install it (pip install "
            f"{' '.join(missing)}) or remove it from trackers"
        )
    opened = [_open(each, name, folder, config) for each in names] if rank() == 0 else []
    try:
        yield Trackers(opened)
    finally:
        for tracker in opened:
            tracker.finish()


def _open(kind: str, name: str, folder: Path, config: Mapping[str, Any]) -> GeneralTracker:
    tracker_class = LOGGER_TYPE_TO_CLASS[kind]
    options = {"logging_dir": folder} if tracker_class.requires_logging_directory else {}
    tracker = tracker_class(name, **options)
    tracker.start()
    plain = (bool, int, float, str)
    tracker.store_init_configuration({k: v if isinstance(v, plain) else str(v) for k, v in config.items()})
    return tracker


def _numbers(line: Metrics) -> dict[str, float]:
    """Returns the numbers of a line; validation losses and scores by their name."""
    numbers = {key: value for key, value in line.items() if isinstance(value, int | float) and key != "step"}
    for key in ("losses", "scores"):
        numbers |= {f"{line['kind']}/{name}": value for name, value in line.get(key, {}).items()}
    return numbers
