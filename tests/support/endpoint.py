"""A chat endpoint on loopback that really answers, fails, stalls, refuses, sends rubbish, cuts the line and recovers.

What it does with a request is decided by `behave(number, body)`, requests counted from 0; it returns a `Reply`.
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Reply(NamedTuple):
    """What the server does with one request.

    Attributes:
        status: Of the answer.
        body: Text, or an object to be sent as JSON.
        headers: Further ones.
        seconds: Wait before answering; a stalled request ends when the client lets go or the server stops.
        cut: Bytes of the body after which the connection is cut; None to send it whole.
    """

    status: int = 200
    body: Any = ""
    headers: dict[str, str] = {}  # noqa: RUF012
    seconds: float = 0.0
    cut: int | None = None


class Seen(NamedTuple):
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float


def say(text: str | None, *, ended: str = "stop", usage: dict[str, Any] | None = None, **more: Any) -> Reply:
    """A completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": ended}
    choice |= {key: more.pop(key) for key in ("logprobs",) if key in more}
    return Reply(body={"choices": [choice], "usage": usage or {"prompt_tokens": 9, "completion_tokens": 2}, **more})


def fail(status: int, message: str = "overloaded", **headers: str) -> Reply:
    """An error in OpenAI's form; `Retry_After="1"` becomes the header."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {"error": {"message": message}}, named)


STALL = Reply(seconds=60.0)
BROKEN = Reply(body='{"choices": [{"message": {"content": "A"')
NO_CHOICES = Reply(body={"choices": []})
CUT = Reply(body={"choices": [{"message": {"content": "A"}}]}, cut=20)


@dataclass
class Endpoint:
    """The server's address, what it was asked, and how many requests it had at once."""

    behave: Callable[[int, dict[str, Any]], Reply]
    seen: list[Seen] = field(default_factory=list)
    most_at_once: int = 0
    port: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @contextlib.contextmanager
    def _counted(self, seen: Seen) -> Iterator[int]:
        with self._lock:
            number = len(self.seen)
            self.seen.append(seen)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield number
        finally:
            with self._lock:
                self._at_once -= 1


@contextlib.contextmanager
def serve(behave: Callable[[int, dict[str, Any]], Reply]) -> Iterator[Endpoint]:
    """Runs a server for the time of the block."""
    endpoint = Endpoint(behave)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60
        wbufsize = -1  # header and body leave together

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with endpoint._counted(Seen(self.path, dict(self.headers), body, time.monotonic())) as number:
                self._send(endpoint.behave(number, body))

        def _send(self, reply: Reply) -> None:
            endpoint._stopped.wait(reply.seconds)
            content = (reply.body if isinstance(reply.body, str) else json.dumps(reply.body)).encode()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client did not wait
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(content)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content if reply.cut is None else content[: reply.cut])
                if reply.cut is not None:
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Nothing is printed."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

        def handle_error(self, *_: Any) -> None:
            """A client that let go is no news."""

    with Server(("127.0.0.1", 0), Handler) as server:
        endpoint.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield endpoint
        finally:
            endpoint._stopped.set()
            server.shutdown()
            thread.join()
