"""Asks an endpoint many requests at once; a request that no retry saves comes back as a Failure, never as a text.

Overloads (429), failures of the server (5xx), broken or empty bodies, silence and cut connections are tried again after
waits that double and are drawn at random, or as long as the server says; meanwhile other requests take the place. Other
refusals (4xx) come back at once. While the server does not answer at all, one request now and then finds out whether it
is back, and the others fail without being sent.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from cambrian_eval.endpoint.pace import Pace, read_retry_after
from cambrian_eval.endpoint.wire import (
    ChatReply,
    MalformedReplyError,
    WithheldReplyError,
    error_message,
    read_body,
    shorten,
    write_body,
)
from cambrian_eval.errors import ModelError
from cambrian_eval.types import Failure

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    import httpx

    from cambrian_eval.endpoint.address import Address
    from cambrian_eval.endpoint.wire import ChatRequest

CONCURRENCY = 64
LONGEST_BODY = 16 << 20  # bytes; a server that sends more has lost its way, and memory would hold what it sends
BUDGET_FIELDS = ("max_tokens", "max_completion_tokens")

_RETRIED = frozenset({408, 409, 425, 429})  # and all 5xx
_MISTAKES = {
    401: "check the key in the environment variable",
    403: "check the key in the environment variable",
    404: "check the base URL (it usually ends in /v1) and the model's name",
    405: "check the base URL (it usually ends in /v1)",
}


@dataclass(frozen=True)
class Patience:
    """How long an endpoint is waited for.

    Attributes:
        attempts: Times that a request is tried.
        timeout: Seconds that one try may take, from connecting to the last byte.
        first_wait: Seconds before the second try; they double from try to try.
        longest_wait: Seconds that no wait exceeds. A server that asks for a longer one is not waited for.
        outage: After so many seconds of failures without an answer between the endpoint counts as down.
        probe_every: Seconds after which an endpoint that is down is tried again.
    """

    attempts: int = 8
    timeout: float = 180.0
    first_wait: float = 0.5
    longest_wait: float = 60.0
    outage: float = 120.0
    probe_every: float = 30.0


@dataclass
class Usage:
    """What was asked and what it cost, as far as the server tells.

    Attributes:
        requests: Requests sent, retries included.
        retries: Those that were retries.
        prompt_tokens: Tokens of the answered requests, pictures included.
        reply_tokens: Tokens of the replies.
    """

    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0


class _Trouble(NamedTuple):
    """Why one try did not give a reply.

    Attributes:
        reason: For people.
        again: Whether another try may help.
        wait: Seconds that the server asked for, if it did.
        lost: Whether the server failed as a whole; a request that it refuses or a filter says nothing about it.
    """

    reason: str
    again: bool
    wait: float | None = None
    lost: bool = True


@dataclass
class _Job:
    """A request on its way: how often it was tried, and from when on it may be tried again."""

    place: int
    request: ChatRequest
    tries: int = 0
    ready_at: float = float("-inf")


class ChatClient:
    """Asks one model of one server.

    Args:
        address: Where it is.
        concurrency: Most requests under way at once; how many there really are follows the server.
        patience: How long to wait and how often to try.

    Attributes:
        address: Where it is.
        usage: What was asked since the client was made.
        system_fingerprints: What the server called itself, and in how many replies.
    """

    def __init__(self, address: Address, *, concurrency: int = CONCURRENCY, patience: Patience | None = None) -> None:
        if concurrency < 1:
            raise ModelError(f"{address.name}: found concurrency {concurrency}, expected at least 1.")
        self.address = address
        self.usage = Usage()
        self.system_fingerprints: Counter[str] = Counter()
        self._pace = Pace(concurrency)
        self._patience = patience or Patience()
        self._budget_field = BUDGET_FIELDS[0]
        self._any_answered = False
        self._failing_since: float | None = None
        self._last_reason = ""
        self._probe_at = float("-inf")

    def complete(self, requests: Sequence[ChatRequest]) -> list[ChatReply | Failure]:
        """One reply or failure for each request, in order.

        Raises:
            ModelError: The server refuses the key, the address or the model, and has answered nothing before.
            DataError: A picture cannot be decoded.
        """
        return _run(self._complete(requests))

    async def _complete(self, requests: Sequence[ChatRequest]) -> list[ChatReply | Failure]:
        import httpx

        results: dict[int, ChatReply | Failure] = {}
        waiting = [_Job(place, request) for place, request in enumerate(requests)]
        running: dict[asyncio.Task[ChatReply | _Trouble], _Job] = {}
        headers = {"Content-Type": "application/json"}
        if self.address.key:
            headers["Authorization"] = f"Bearer {self.address.key}"
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=CONCURRENCY)
        async with httpx.AsyncClient(headers=headers, timeout=None, limits=limits) as http:
            try:
                while waiting or running:
                    self._give_up(waiting, results)
                    for job in self._startable(waiting, len(running)):
                        waiting.remove(job)
                        running[asyncio.create_task(self._try(http, job))] = job
                    for task in await _next_done(running, self._seconds_to_start(waiting, len(running))):
                        self._settle(running.pop(task), task.result(), waiting, results)
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)
        return [results[place] for place in range(len(requests))]

    # When to try.

    @property
    def _is_down(self) -> bool:
        return self._failing_since is not None and time.monotonic() - self._failing_since >= self._patience.outage

    def _allowed(self) -> int:
        return 1 if self._is_down else self._pace.limit

    def _give_up(self, waiting: list[_Job], results: dict[int, ChatReply | Failure]) -> None:
        """While the endpoint is down and it is not yet time to look again, what waits fails without being sent."""
        if self._is_down and time.monotonic() < self._probe_at:
            results.update((job.place, Failure(f"the endpoint is down: {self._last_reason}")) for job in waiting)
            waiting.clear()

    def _startable(self, waiting: Sequence[_Job], under_way: int) -> list[_Job]:
        if self._pace.rest() > 0:
            return []
        now = time.monotonic()
        return [job for job in waiting if job.ready_at <= now][: max(0, self._allowed() - under_way)]

    def _seconds_to_start(self, waiting: Sequence[_Job], under_way: int) -> float | None:
        """Seconds until another try may start if none of those under way ends before; None if one has to end."""
        if not waiting or under_way >= self._allowed():
            return None
        return max(min(job.ready_at for job in waiting) - time.monotonic(), self._pace.rest(), 0.0)

    def _settle(
        self, job: _Job, reply: ChatReply | _Trouble, waiting: list[_Job], results: dict[int, ChatReply | Failure]
    ) -> None:
        """Keeps a reply; lets a request that another try may save wait for it; fails the others."""
        if isinstance(reply, ChatReply):
            results[job.place] = self._take(reply)
            return
        if reply.lost:
            self._failing_since = self._failing_since or time.monotonic()
            self._last_reason = reply.reason
            self._probe_at = time.monotonic() + self._patience.probe_every
        asked = reply.wait or 0.0
        hopeless = not reply.again or job.tries >= self._patience.attempts or asked > self._patience.longest_wait
        if not hopeless and not self._is_down:
            job.ready_at = time.monotonic() + self._wait(job.tries, reply.wait)
            waiting.insert(0, job)  # before those that were never tried
            return
        results[job.place] = Failure(f"{reply.reason} ({job.tries} tries)" if job.tries > 1 else reply.reason)

    def _wait(self, tries: int, asked: float | None) -> float:
        """Seconds before the next try: what the server asks for, else doubling; drawn, so that retries spread out."""
        longest = min(self._patience.longest_wait, self._patience.first_wait * 2 ** (tries - 1))
        drawn = random.uniform(longest / 2, longest)
        return drawn if asked is None else asked + drawn / 2

    def _take(self, reply: ChatReply) -> ChatReply:
        self._any_answered, self._failing_since = True, None
        self.usage.prompt_tokens += reply.prompt_tokens or 0
        self.usage.reply_tokens += reply.reply_tokens or 0
        if reply.system_fingerprint:
            self.system_fingerprints[reply.system_fingerprint] += 1
        return reply

    # One try.

    async def _try(self, http: httpx.AsyncClient, job: _Job) -> ChatReply | _Trouble:
        job.tries += 1
        self.usage.requests += 1
        self.usage.retries += job.tries > 1
        started = time.monotonic()
        reply = await self._send(http, job.request)
        if isinstance(reply, ChatReply):
            self._pace.answered(started)
        elif reply.lost:
            self._pace.overloaded(started)
            if reply.wait is not None and reply.wait <= self._patience.longest_wait:
                self._pace.pause(reply.wait)
        return reply

    async def _send(self, http: httpx.AsyncClient, request: ChatRequest) -> ChatReply | _Trouble:
        import httpx

        budget_field = self._budget_field
        body = write_body(request, self.address.model, budget_field)
        try:
            async with asyncio.timeout(self._patience.timeout):
                async with http.stream("POST", self.address.url, content=body) as response:
                    content = await _read_all(response)
        except TimeoutError:
            return _Trouble(f"no answer within {self._patience.timeout:g} s", again=True)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ModelError(
                f"{self.address.name}: {self.address.redact(str(error))}; give another base URL."
            ) from None
        except httpx.RequestError as error:
            reason = self.address.redact(str(error)) or type(error).__name__
            return _Trouble(f"the connection failed: {reason}", again=True)
        if content is None:
            return _Trouble(f"the endpoint sent more than {LONGEST_BODY >> 20} MiB", again=True)
        if response.status_code == httpx.codes.OK:
            return self._read(content)
        if response.status_code == httpx.codes.BAD_REQUEST and _wants_other_field(content, budget_field):
            self._budget_field = BUDGET_FIELDS[1]
            return await self._send(http, request)
        return self._refused(response, content)

    def _read(self, body: bytes) -> ChatReply | _Trouble:
        try:
            reply = read_body(body)
        except MalformedReplyError as error:
            return _Trouble(f"the endpoint sent {shorten(self.address.redact(str(error)))}", again=True)
        except WithheldReplyError as error:
            return _Trouble(str(error), again=False, lost=False)
        if self.address.is_told_in(reply.text):
            return _Trouble("the endpoint's reply repeats the key or the credentials", again=False, lost=False)
        return reply

    def _refused(self, response: httpx.Response, body: bytes) -> _Trouble:
        """What another status than 200 means.

        Raises:
            ModelError: A mistake in the key, the address or the model's name, which no request survives.
        """
        status, said = response.status_code, shorten(self.address.redact(error_message(body)))
        reason = f"status {status}: {said or response.reason_phrase}"
        if status in _RETRIED or status >= 500:
            return _Trouble(reason, again=True, wait=read_retry_after(response.headers.get("Retry-After")))
        if response.has_redirect_location:
            reason = f"status {status}: the endpoint points elsewhere, and redirects are not followed"
        if status in _MISTAKES and not self._any_answered:
            raise ModelError(f"{self.address.name}: {reason}; {_MISTAKES[status]}.")
        return _Trouble(reason, again=False, lost=False)


async def _read_all(response: httpx.Response) -> bytes | None:
    """The body; None if it is too long."""
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > LONGEST_BODY:
            return None
    return bytes(body)


def _wants_other_field(body: bytes, budget_field: str) -> bool:
    """Newer models of some servers take the most tokens of a reply only under another name, and say so."""
    return budget_field == BUDGET_FIELDS[0] and BUDGET_FIELDS[1].encode() in body


async def _next_done(
    running: dict[asyncio.Task[ChatReply | _Trouble], _Job], seconds: float | None
) -> set[asyncio.Task[ChatReply | _Trouble]]:
    """The tries that have ended, once there are any; none if the seconds pass before."""
    if not running:
        await asyncio.sleep(seconds or 0.0)
        return set()
    done, _ = await asyncio.wait(running, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    return done


def _run(asking: Coroutine[Any, Any, list[ChatReply | Failure]]) -> list[ChatReply | Failure]:
    """Runs to the end, also where an event loop is running already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(asking)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, asking).result()
