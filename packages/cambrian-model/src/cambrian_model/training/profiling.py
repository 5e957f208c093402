"""A window of steps recorded by `torch.profiler`, as a trace that a browser shows (Perfetto, chrome://tracing)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import profiler

from cambrian_model.training.distributed import rank
from cambrian_model.training.recipe.engine import ProfileSection


@contextmanager
def profiling(section: ProfileSection | None, folder: Path, stage: str) -> Iterator[Callable[[], None]]:
    """Gives what is to be called after every step; writes `<stage>-rank<n>.json` when the window is over."""
    if section is None:
        yield lambda: None
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{stage}-rank{rank()}.json"
    activities = [profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(profiler.ProfilerActivity.CUDA)
    with profiler.profile(
        activities=activities,
        # The step before the window warms the profiler up.
        schedule=profiler.schedule(wait=section.start - 1, warmup=1, active=section.steps, repeat=1),
        on_trace_ready=lambda recorded: recorded.export_chrome_trace(str(file)),
        record_shapes=True,
        profile_memory=True,
    ) as recorder:
        yield recorder.step
