"""Many processes on many machines, started by torchrun or its kin, share the batches of one run: through one counter.

There is no process group and no collective. Each process draws the number of a batch from a counter in torch's
key-value store, answers it and adds to its own part of the log; the first process waits for the others as long as they
are alive and puts the parts together. So a fast process answers more, and nobody waits for anybody before the end.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from cambrian_eval.errors import EvalError
from cambrian_eval.types import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

SECONDS_OF_POLL = 0.2
SECONDS_OF_BEAT = 2.0
SECONDS_OF_SILENCE = 120.0  # after which a process counts as dead; a busy one still beats, from its own thread

_meetings = 0


def num_processes() -> int:
    """How many processes were started together; 1 where this one is alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process among them."""
    return int(os.environ.get("RANK", "0"))


def use_own_device() -> None:
    """Makes the accelerator of this process's local number the one that models are loaded onto."""
    import torch

    if torch.accelerator.is_available():
        local = int(os.environ.get("LOCAL_RANK", "0"))
        torch.accelerator.set_device_index(local % torch.accelerator.device_count())


class Meeting:
    """The processes of one run. Use it in a `with`: an error in one of them is told to the others.

    Args:
        identity: What tells this run from another; all processes must have the same.

    Raises:
        EvalError: There is no store, or the others have another run.
    """

    def __init__(self, identity: Mapping[str, Any]) -> None:
        global _meetings
        from torch.distributed import PrefixStore

        self.rank, self.size = rank(), num_processes()
        self._store = PrefixStore(f"cambrian-eval-{_meetings}", _store())
        _meetings += 1  # the runs of a process follow each other in the same order everywhere
        self._identity = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self._seen: dict[int, tuple[int, float]] = {}
        self._left = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from torch.distributed import DistError

        try:
            if isinstance(error, DistError):
                raise EvalError(
                    f"process {self.rank} has lost the others ({error}). What was answered is kept: run again to go on."
                ) from error
            if error is not None:
                with contextlib.suppress(DistError):
                    self._store.set("failed", f"process {self.rank}: {error}")
            elif self.rank == 0:
                self._wait(lambda: self._store.add("left", 0) == self.size - 1, range(1, self.size))
            else:
                self._store.add("left", 1)
        finally:
            self._left.set()
            self._heart.join()

    def begin(self) -> None:
        """The first process lets the others begin; they make sure that they are in the same run."""
        if self.rank == 0:
            self._store.set("begun", self._identity)
            return
        if self._get("begun", [0]) != self._identity:
            raise EvalError(
                f"process {self.rank} was asked for another run than process 0: give all of them the same command, "
                "data and versions."
            )

    def first_then_others(self, work: Callable[[], Any]) -> Any:
        """What `work` returns, done by the first process before the others."""
        if self.rank > 0:
            self._get("prepared", [0])
            return work()
        found = work()
        self._store.set("prepared", "")
        return found

    def draw(self, count: int) -> Iterator[int]:
        """Numbers below `count`, each of which no other process gets."""
        while (number := self._store.add("drawn", 1) - 1) < count:
            yield number

    def count(self, name: str, more: int) -> int:
        """Add to a sum over all processes and return it."""
        return int(self._store.add(f"sum-{name}", more))

    def gather(self, failures: Mapping[str, Failure]) -> dict[str, Failure]:
        """Say that this process is done, wait for all others, and return the failures of all."""
        self._store.set(f"done-{self.rank}", json.dumps({name: one.reason for name, one in failures.items()}))
        parts = [json.loads(self._get(f"done-{other}", [other])) for other in range(self.size)]
        return {name: Failure(reason) for part in parts for name, reason in part.items()}

    def publish(self) -> None:
        """Say that the result is written."""
        self._store.set("written", "")

    def wait_for_result(self) -> None:
        """Wait until the first process has written the result."""
        self._get("written", [0])

    def _get(self, key: str, needed: Sequence[int]) -> str:
        self._wait(lambda: self._store.check([key]), needed)
        return self._store.get(key).decode()

    def _wait(self, is_true: Callable[[], bool], needed: Sequence[int]) -> None:
        """Wait, as long as it takes, while the needed processes are alive and none has failed."""
        while not is_true():
            if self._store.check(["failed"]):
                raise EvalError(f"another process of this run has failed: {self._store.get('failed').decode()}")
            for other in needed:
                self._check_alive(other)
            time.sleep(SECONDS_OF_POLL)

    def _check_alive(self, other: int) -> None:
        beats, now = self._store.add(f"beats-{other}", 0), time.monotonic()
        last, since = self._seen.get(other, (-1, now))
        if beats != last:
            self._seen[other] = (beats, now)
        elif now - since > SECONDS_OF_SILENCE:
            raise EvalError(
                f"process {other} of this run has been silent for {SECONDS_OF_SILENCE:.0f} seconds. What was answered "
                "is kept: run again to go on, with any number of processes."
            )

    def _beat(self) -> None:
        while not self._left.is_set():
            try:
                self._store.add(f"beats-{self.rank}", 1)
            except RuntimeError:  # the store is gone; whoever needs it will say so
                return
            self._left.wait(SECONDS_OF_BEAT)


@functools.cache
def _store() -> Any:
    """The store that torchrun offers, or one that the first process opens where there is only MASTER_ADDR."""
    from torch.distributed import rendezvous

    try:
        store, _, _ = next(iter(rendezvous("env://")))
    except (ValueError, RuntimeError) as error:
        raise EvalError(
            f"the processes of this run do not find each other ({error}). Start them with torchrun, or set RANK, "
            "WORLD_SIZE, MASTER_ADDR and MASTER_PORT."
        ) from error
    return store
