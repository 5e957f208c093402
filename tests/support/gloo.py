"""Runs a function in several processes that talk over gloo, as one run on several devices would, on the CPU.

    losses = run_ranks(train_two_steps, 2, tmp_path)

The function must be one of a module's own (each process imports it), and is called with `args` on every rank, where
`torch.distributed` is initialised and the environment is that of `torchrun`. A process ends with the test run, however
that ends.

Processes are forked from a server that has only imported the libraries, once per test process: to start one by itself
takes seconds, of which all but a few milliseconds are imports. They have the environment that the server began with.
"""

import multiprocessing
import os
import pickle
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch.distributed as dist

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
IMPORTED = [
    "cambrian_model.training",
    "pytest",
    "torch._dynamo",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
]


class RankError(Exception):
    """A rank raised, ended or did not end in time; says which, with what it raised."""


def run_ranks(function: Callable[..., Any], world_size: int, *args: Any, timeout: float = 120) -> list[Any]:
    """Returns what `function(*args)` returned on each rank.

    Args:
        function: Importable; its arguments and its result travel between processes.
        world_size: Number of processes.
        args: The same for every rank.
        timeout: Seconds that all of them together may take.

    Raises:
        RankError: A rank raised, ended or took too long; the others are ended.
    """
    # The store lives here and takes its port from the OS, which no process has to find free and then lose.
    store = dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
    context = _context()
    processes: dict[Connection, BaseProcess] = {}
    try:
        for rank in range(world_size):
            receiver, sender = context.Pipe(duplex=False)
            place = (rank, world_size, store.port, timeout)
            process: BaseProcess = context.Process(
                target=_run_rank, args=(sender, place, function, args), name=f"rank {rank}"
            )
            process.start()
            sender.close()  # this end: the receiver then sees it when the process ends
            processes[receiver] = process
        return _collect(processes, time.monotonic() + timeout)
    finally:
        for receiver, process in processes.items():
            process.kill()
            process.join()
            process.close()
            receiver.close()


def start_process(function: Callable[..., Any], *args: Any) -> BaseProcess:
    """Starts a process that calls `function(*args)`, for whoever wants to kill it; it ends with the test run."""
    process = _context().Process(target=_run, args=(function, args))
    process.start()
    return process


def _context() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))  # a new process imports from where this one does
    return context


def _collect(processes: dict[Connection, BaseProcess], deadline: float) -> list[Any]:
    results: dict[Connection, Any] = {}
    failures: list[str] = []
    while len(results) < len(processes):
        waiting = [receiver for receiver in processes if receiver not in results]
        ready = wait(waiting, timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            names = ", ".join(processes[receiver].name for receiver in waiting)
            raise RankError("\n".join([f"{names} did not end in time", *failures]))
        for receiver in ready:
            assert isinstance(receiver, Connection)
            is_fine, results[receiver] = _receive(receiver, processes[receiver])
            if not is_fine:
                failures.append(results[receiver])
                deadline = min(deadline, time.monotonic() + 10)  # the others fail of it, or wait forever
    if failures:
        raise RankError("\n".join(failures))
    return [results[receiver] for receiver in processes]


def _receive(receiver: Connection, process: BaseProcess) -> tuple[bool, Any]:
    try:
        return pickle.loads(receiver.recv_bytes())
    except EOFError:
        process.join()
        return False, f"{process.name} ended with exit code {process.exitcode}"


def _run_rank(
    sender: Connection, place: tuple[int, int, int, float], function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    """What each process of a run does."""
    _begin()
    rank, world_size, port, timeout = place
    os.environ |= {
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is there: no rank opens one
        "TORCHELASTIC_RESTART_COUNT": "0",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
    }
    try:
        dist.init_process_group("gloo", timeout=timedelta(seconds=timeout))
        reply = True, function(*args)
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:  # noqa: BLE001 - told to the test
        reply = False, f"rank {rank}: {traceback.format_exc()}"
    # Not `send`, which leaves the content of tensors in the memory of a process that is about to end.
    sender.send_bytes(pickle.dumps(reply))
    sender.close()


def _run(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    _begin()
    function(*args)


def _begin() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    warnings.simplefilter("error")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
