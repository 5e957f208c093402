"""What runs in a worker's process (`python -m cambrian_eval.worker`): load the model, answer what the socket brings.

A thread reads the socket, so the next batches are prepared while one is answered, and so the process ends at once when
the runner is gone, whatever it is doing.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from cambrian_eval import wire
from cambrian_eval.crew import ask, ask_prepared, describe, measure
from cambrian_eval.errors import EvalError
from cambrian_eval.models import load_model
from cambrian_eval.models.base import Preparing

if TYPE_CHECKING:
    from concurrent.futures import Future

    from cambrian_eval.models.base import Model
    from cambrian_eval.types import Prompt


class _Work(NamedTuple):
    kind: str
    body: Any
    prompts: list[Prompt]
    prepared: Future[Any] | None


def main(descriptor: int, spec: str) -> None:
    """Serve until the other side hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the runner's to handle
    with socket.socket(fileno=descriptor) as connection:
        try:
            model = load_model(spec)
            wire.send(connection, "loaded", {})
            _serve(model, connection)
        except EvalError as error:
            wire.send(connection, "error", {"kind": type(error).__name__, "message": str(error)})


def _serve(model: Model, connection: socket.socket) -> None:
    inbox: queue.SimpleQueue[_Work] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(model, connection, inbox), daemon=True).start()
    while True:
        work = inbox.get()
        if work.kind == "describe":
            wire.send(connection, "description", describe(model)._asdict())
        else:
            wire.send(connection, "result", {"number": work.body["number"], "result": _result(model, work)})


def _read(model: Model, connection: socket.socket, inbox: queue.SimpleQueue[_Work]) -> None:
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare") as thread:
        while (message := wire.receive(connection)) is not None:
            prompts = wire.unpack_prompts(message.body.get("prompts", ()), message.blobs)
            prepared = None
            if message.body.get("scoring") == "generate" and isinstance(model, Preparing):
                prepared = thread.submit(model.prepare, prompts)
            inbox.put(_Work(message.kind, message.body, prompts, prepared))
        os._exit(0)  # the runner is gone; nobody waits for what is being answered


def _result(model: Model, work: _Work) -> Any:
    if work.kind == "measure":
        return measure(model, work.prompts)
    if work.prepared is None:
        asked = ask(model, work.prompts, work.body["scoring"])
    else:
        asked = ask_prepared(model, work.prompts, work.prepared.result())
    return {"answers": [wire.pack_answer(answer) for answer in asked.answers], "num_halved": asked.num_halved}


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
