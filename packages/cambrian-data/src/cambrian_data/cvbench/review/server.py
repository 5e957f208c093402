"""The page of a review over HTTP, for one reviewer on this machine.

What protects it: it listens on the loopback address unless told otherwise; the Host header must be an address or a name
of this machine, so that no foreign name can be pointed here (DNS rebinding); a decision must come from our own page,
which alone can read the token that every POST carries; the page's policy allows no script but ours; and what is served
is found by the number of a question, never by a path.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from cambrian_data.cvbench.review.changes import Changes
from cambrian_data.cvbench.review.decisions import Kind
from cambrian_data.cvbench.review.session import Review
from cambrian_data.errors import DataError

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.datastructures import Headers
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = "127.0.0.1"
REACHED_AT = {"0.0.0.0": LOOPBACK, "::": "::1"}
"""Where this machine finds a server that listens on all of its addresses."""
TOKEN_HEADER = "x-review-token"
MAX_BODY_BYTES = 1 << 16
SECONDS_TO_CLOSE = 2  # for requests under way when the server is told to stop

PAGE_FILES = {
    "index.html": "text/html; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "style.css": "text/css; charset=utf-8",
    "main.js": "text/javascript; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "browser.js": "text/javascript; charset=utf-8",
    "picture.js": "text/javascript; charset=utf-8",
    "panel.js": "text/javascript; charset=utf-8",
    "dialogs.js": "text/javascript; charset=utf-8",
    "dom.js": "text/javascript; charset=utf-8",
}

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Added to every reply that does not say otherwise."""

PICTURE_CACHING = "private, max-age=600"
"""For a picture that is fetched ahead. Its address names the run of the server, so no other run's is ever shown."""


class Wish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A decision as the page sends it."""

    idx: int
    decision: Kind
    reason: str = ""
    changes: Changes | None = None


@dataclass(frozen=True, slots=True)
class ReviewServer:
    """A server that listens already and answers once it runs.

    Attributes:
        url: of the page.
        is_local: whether only this machine reaches it.
    """

    url: str
    is_local: bool
    _server: uvicorn.Server
    _socket: socket.socket

    def run(self) -> None:
        """Serves until the process is interrupted (Ctrl-C) or `stop` is called, and closes the socket."""
        try:
            self._server.run(sockets=[self._socket])
        except KeyboardInterrupt:
            pass  # uvicorn hands the signal on after it has closed everything
        finally:
            self._socket.close()

    def stop(self) -> None:
        """Ends `run`, from another thread."""
        self._server.should_exit = True


def open_server(review: Review, *, host: str = LOOPBACK, port: int = 0) -> ReviewServer:
    """Takes a port for a review's page.

    Args:
        review: that is shown.
        host: address or name to listen on.
        port: 0 for any that is free.

    Raises:
        DataError: if the address cannot be had, or the extra `review` is not installed.
    """
    try:
        import starlette  # noqa: F401  (what make_app needs)
        import uvicorn
    except ImportError as error:
        raise DataError(f"the review page needs a server ({error}); install cambrian-data[review].") from error
    app = make_app(review, host)
    listening = listen(host, port)
    address, taken = listening.getsockname()[:2]
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="error",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=SECONDS_TO_CLOSE,
    )
    shown = REACHED_AT.get(address, host)
    url = f"http://[{shown}]:{taken}/" if ":" in shown else f"http://{shown}:{taken}/"
    return ReviewServer(url, ipaddress.ip_address(address).is_loopback, uvicorn.Server(config), listening)


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections.

    Raises:
        DataError: if the address is not ours, or the port is taken.
    """
    if not 0 <= port <= 65535:
        raise DataError(f"port {port} does not exist; expected 0 (any that is free) to 65535.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"cannot listen on {host}, port {port}: {reason}. Choose another port, or 0 for any that "
            f"is free, and an address of this machine such as {LOOPBACK}."
        ) from error


def make_app(review: Review, host: str = LOOPBACK) -> Starlette:
    """The routes of a review.

    Args:
        review: that is shown.
        host: it listens on; requests may name it.
    """
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware
    from starlette.responses import Response
    from starlette.routing import Route

    token, run = secrets.token_urlsafe(32), secrets.token_hex(8)
    page = {name: (files(__package__) / "page" / name).read_bytes() for name in PAGE_FILES}

    def to_response(value: Any, status: int = 200) -> Response:
        return Response(msgspec.json.encode(value), status, media_type="application/json")

    def index(request: Request) -> Response:
        return Response(page["index.html"], media_type=PAGE_FILES["index.html"])

    def page_file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in page:
            return to_response({"error": "there is no such page."}, 404)
        return Response(page[name], media_type=PAGE_FILES[name])

    def overview(request: Request) -> Response:
        return to_response({"token": token, "run": run, **msgspec.structs.asdict(review.overview())})

    def details(request: Request) -> Response:
        return to_response(review.details(request.path_params["idx"]))

    def picture(request: Request) -> Response:
        content = review.png(request.path_params["idx"])
        return Response(content, media_type="image/png", headers={"cache-control": PICTURE_CACHING})

    async def decide(request: Request) -> Response:
        try:
            wish = msgspec.json.decode(await request.body(), type=Wish)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataError(f"the page sent no decision ({error}); load it anew.") from error
        stored = await run_in_threadpool(review.decide, wish.idx, wish.decision, wish.reason, wish.changes)
        return to_response(stored)

    def undo(request: Request) -> Response:
        return to_response(review.undo())

    def refuse(request: Request, error: Exception) -> Response:
        return to_response({"error": str(error)}, 400)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/page/{name}", page_file),
            Route("/api/questions", overview),
            Route("/api/questions/{idx:int}", details),
            Route("/pictures/{idx:int}", picture),
            Route("/api/decisions", decide, methods=["POST"]),
            Route("/api/undo", undo, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, token=token, host=host)],
        exception_handlers={DataError: refuse},
    )


class Guard:
    """Turns away what does not come from our own page on this machine, and adds the security headers to every reply."""

    def __init__(self, app: ASGIApp, token: str, host: str) -> None:
        self._app = app
        self._token = token
        self._host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers or hands on one request."""
        from starlette.datastructures import Headers
        from starlette.responses import JSONResponse

        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = {name for name, _ in message["headers"]}
                more = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
                message["headers"] = [*message["headers"], *(one for one in more if one[0] not in said)]
            await send(message)

        refusal = self.refusal(scope["method"], Headers(scope=scope))
        if refusal is None:
            await self._app(scope, receive, send_guarded)
        else:
            status, problem = refusal
            await JSONResponse({"error": problem}, status)(scope, receive, send_guarded)

    def refusal(self, method: str, headers: Headers) -> tuple[int, str] | None:
        """Status and reason for which a request is turned away, or None."""
        host = headers.get("host", "")
        if not is_own_name(host, self._host):
            return 421, f'host "{host}" is no name of this server; open the address that the command printed.'
        if method != "POST":
            return None
        origin = headers.get("origin")
        if origin is not None and not is_own_origin(origin, host):
            return 403, f'origin "{origin}" is another page; decide on the page that this server gives.'
        if not secrets.compare_digest(headers.get(TOKEN_HEADER, "").encode(), self._token.encode()):
            return 403, "the server was started anew since this page was loaded; load the page again."
        if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return 415, "expected application/json."
        length = headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            return 413, f"expected a decision of at most {MAX_BODY_BYTES} bytes, with its length."
        return None


def is_own_origin(header: str, host: str) -> bool:
    """Whether an Origin header names the server that the request's Host header names."""
    try:
        return urlsplit(header).netloc == host
    except ValueError:
        return False


def is_own_name(header: str, host: str) -> bool:
    """Whether a Host header names this server: by an address, as localhost, or as it was told to listen.

    An address cannot be pointed elsewhere, so any will do; the port may be that of a tunnel.
    """
    try:
        name = urlsplit(f"//{header}").hostname
    except ValueError:
        return False
    if name is None:
        return False
    if name in ("localhost", host.lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
