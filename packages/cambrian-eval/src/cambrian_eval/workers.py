"""Several copies of a model in processes of their own, which pull batches from one queue: no collectives, no barrier.

The runner alone holds the queue and the log; a worker gets a batch when it is free and sends back the answers. The
batches of one that dies go back to the queue. Each has a GPU of its own where there are any, else its share of the
processor.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
import sys
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cambrian_eval import errors, wire
from cambrian_eval.crew import Asked, Description
from cambrian_eval.errors import EvalError, ModelError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from cambrian_eval.types import Prompt, Scoring

    _Given = tuple[int, str, Sequence[Prompt], dict[str, Any]]

SECONDS_TO_STOP = 5.0  # what a worker has before it is killed
MEASURED_AT_ONCE = 64  # prompts whose length a worker is asked for in one message
MAX_DEATHS = 2  # a batch that ends so many workers is to blame itself


class _Task(NamedTuple):
    """One message to a worker that wants an answer."""

    number: int
    kind: str
    prompts: Sequence[Prompt]
    options: dict[str, Any]


class _Worker:
    """One process and the tasks it has."""

    def __init__(self, number: int, spec: str, environment: dict[str, str]) -> None:
        ours, theirs = socket.socketpair()
        self.number = number
        self.tasks: deque[_Task] = deque()
        self.is_loaded = False
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "cambrian_eval.worker", str(theirs.fileno()), spec],
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a library prints must not stand among the results of the run
            )
        self.socket = ours

    def send(self, kind: str, body: Any, blobs: Sequence[bytes] = ()) -> None:
        """Write to it; that it is gone shows when it is read from."""
        with contextlib.suppress(OSError):
            wire.send(self.socket, kind, body, blobs)

    def stop(self) -> None:
        """Tell it to end."""
        self._process.terminate()

    def end(self, seconds: float = SECONDS_TO_STOP) -> int:
        """Wait for its end, and kill it if it does not come. Returns its exit status."""
        self.socket.close()  # at which it ends by itself
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
        return self._process.wait()


class Workers:
    """A model that several processes have loaded. Use it in a `with`: at the end they are stopped.

    Args:
        spec: The model, as `load_model` knows it.
        count: Number of processes.

    Raises:
        EvalError: The model cannot be loaded.
    """

    def __init__(self, spec: str, count: int) -> None:
        if count < 1:
            raise ModelError(f"found {count} workers, expected at least 1.")
        self.count = count
        self._spec = spec
        self._workers: list[_Worker] = []
        self._next_number = 0

    @property
    def name(self) -> str:
        """The model's."""
        return self.description.name

    def __enter__(self) -> Self:
        try:
            for number in range(self.count):
                self._workers.append(_Worker(number, self._spec, environment(number, self.count)))
            self._load()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.stop()
        while self._workers:
            self._workers.pop().end()

    def lengths(self, prompts: Sequence[Prompt]) -> list[tuple[int, int]]:
        """Image tokens and text tokens of each prompt, each worker measuring some."""
        starts = range(0, len(prompts), MEASURED_AT_ONCE)
        tasks: Iterable[_Given] = (
            (start, "measure", prompts[start : start + MEASURED_AT_ONCE], {}) for start in starts
        )
        found = dict(self._spread(tasks, in_hand=1))
        return [(image, text) for start in starts for image, text in found[start]]

    def ask(
        self, batches: Iterable[tuple[int, Sequence[Prompt]]], scoring: Scoring, prefetch: int
    ) -> Generator[tuple[int, Asked], None, None]:
        """The answers to numbered batches, as they come; each worker has up to `prefetch` further ones to prepare."""
        tasks: Iterable[_Given] = ((number, "ask", prompts, {"scoring": scoring}) for number, prompts in batches)
        for number, body in self._spread(tasks, in_hand=1 + (prefetch if self.description.can_prepare else 0)):
            yield number, Asked([wire.unpack_answer(one) for one in body["answers"]], body["num_halved"])

    def _load(self) -> None:
        """Wait until all have loaded the model, and have the first one describe it."""
        while not all(worker.is_loaded for worker in self._workers):
            for worker, message in self._messages():
                if message is None:
                    raise ModelError(f"{self._obituary(worker)} It was loading the model.")
                worker.is_loaded = True
        self._workers[0].send("describe", {})
        message = wire.receive(self._workers[0].socket)
        if message is None:
            raise ModelError(f"{self._obituary(self._workers[0])} It was describing the model.")
        _raise_sent(message)
        self.description = Description(**message.body)

    def _spread(self, tasks: Iterable[_Given], in_hand: int) -> Iterator[tuple[int, Any]]:
        """Give each worker up to `in_hand` tasks, and the answers as they come."""
        queue = _Queue(tasks)
        for worker in self._workers:
            worker.tasks.clear()  # left over from a run that was given up; their answers are known by their number
        numbers: dict[int, int] = {}
        while True:
            for worker in self._workers:
                while len(worker.tasks) < in_hand and (task := queue.take()) is not None:
                    worker.tasks.append(task)
                    self._hand(worker, task, numbers)
            if not any(worker.tasks for worker in self._workers):
                return
            for worker, message in self._messages():
                if message is None:
                    self._bury(worker, queue)
                    continue
                number = numbers.pop(message.body["number"], None)
                if number is not None:
                    worker.tasks = deque(task for task in worker.tasks if task.number != number)
                    yield number, message.body["result"]

    def _hand(self, worker: _Worker, task: _Task, numbers: dict[int, int]) -> None:
        packed, blobs = wire.pack_prompts(task.prompts)
        numbers[self._next_number] = task.number
        worker.send(task.kind, {"number": self._next_number, "prompts": packed, **task.options}, blobs)
        self._next_number += 1

    def _messages(self) -> Iterator[tuple[_Worker, wire.Message | None]]:
        """One message of each worker that has something to say, once one has; None of one that is gone."""
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                selector.register(worker.socket, selectors.EVENT_READ, worker)
            ready = [key.data for key, _ in selector.select()]
        for worker in ready:
            message = wire.receive(worker.socket)
            if message is not None:
                _raise_sent(message)
            yield worker, message

    def _bury(self, worker: _Worker, queue: _Queue) -> None:
        """Put what a dead worker had back into the queue.

        Raises:
            ModelError: It was the last one, or its batch has ended another one before.
        """
        obituary = self._obituary(worker)
        self._workers.remove(worker)
        if worker.tasks:
            first = worker.tasks[0]
            queue.give_back(worker.tasks)
            if queue.deaths[first.number] >= MAX_DEATHS:
                names = ", ".join(prompt.id for prompt in first.prompts)
                raise ModelError(f"{MAX_DEATHS} workers ended while they answered the same batch ({names}); {obituary}")
        if not self._workers:
            raise ModelError(
                f"all workers are dead; {obituary} What was answered is kept: run again to go on, with fewer workers "
                "if memory is short."
            )

    def _obituary(self, worker: _Worker) -> str:
        status = worker.end()
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"worker {worker.number} {how}; what it said stands above."


class _Queue:
    """Tasks in their order, those given back first, and how many workers each has ended."""

    def __init__(self, tasks: Iterable[_Given]) -> None:
        self._tasks = iter(tasks)
        self._returned: deque[_Task] = deque()
        self.deaths: Counter[int] = Counter()

    def take(self) -> _Task | None:
        if self._returned:
            return self._returned.popleft()
        task = next(self._tasks, None)
        return None if task is None else _Task(*task)

    def give_back(self, tasks: Sequence[_Task]) -> None:
        """The first of them was being answered."""
        self.deaths[tasks[0].number] += 1
        self._returned.extendleft(reversed(tasks))


def environment(number: int, count: int) -> dict[str, str]:
    """What a worker's process is told: its GPU, or how many threads it may use. Before torch is imported there."""
    told = {**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    devices = gpus()
    if devices:
        told["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    else:
        threads = int(told.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
        told["OMP_NUM_THREADS"] = str(max(1, threads // count))
    return told


def gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, as CUDA numbers or names them, found without CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


def _raise_sent(message: wire.Message) -> None:
    """An error of ours that a worker met is the run's."""
    if message.kind == "error":
        kind = getattr(errors, message.body["kind"], EvalError)
        raise kind(message.body["message"])
