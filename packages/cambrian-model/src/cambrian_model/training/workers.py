"""Worker processes of a data loader that end with the process that started them, whenever that ends.

PyTorch's worker watches its parent, but takes for it whatever process it has once it is ready: a parent that was killed
while its worker was still starting is then never missed, and the worker waits for work forever.

SIGTERM is for that process alone, which saves before it ends. Batch systems send it to workers too; one that died of it
would take the run along before it has saved.
"""

import os
import signal
from collections.abc import Callable
from functools import partial


def end_with_parent() -> Callable[[int], None]:
    """Returns a `worker_init_fn` for workers of this process."""
    return partial(_start, os.getpid())


def _start(parent: int, worker: int) -> None:
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
