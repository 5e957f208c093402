"""Worker processes of a data loader that end with the process that started them, whenever that ends.

PyTorch's worker watches its parent, but takes for it whatever process it has once it is ready: a parent that was killed
while its worker was still starting is then never missed, and the worker waits for work forever.
"""

import os
import signal
from collections.abc import Callable
from functools import partial


def end_with_parent() -> Callable[[int], None]:
    """Returns a `worker_init_fn` for workers of this process."""
    return partial(_check_parent, os.getpid())


def _check_parent(parent: int, worker: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the parent saves when it is told to stop; a worker just ends
    if os.getppid() != parent:
        os._exit(1)
