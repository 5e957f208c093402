"""What travels: a request as the body of `/chat/completions`, and a server's body as a reply.

Pictures go as data URIs. A JPEG or PNG file is sent as it is; re-encoding would change what the model sees. A server's
body is believed only where it has the form of a completion.
"""

from __future__ import annotations

import base64
import io
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cambrian_eval.picture import Picture

if TYPE_CHECKING:
    from collections.abc import Sequence

TEMPERATURE = 0  # always sent: servers have defaults of their own, and a checkpoint's generation_config may sample
QUOTED = 300  # characters of a server's message that are kept
ROUNDING = 1e-2  # by which a log-probability may exceed that of certainty

_BROKEN_OFF = ("error", "abort")  # how gateways and serving engines end a reply that failed on the way
_SENT_AS_THEY_ARE = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


@dataclass(frozen=True)
class ChatRequest:
    """One user turn.

    Attributes:
        content: Pictures and texts in order.
        max_new_tokens: Most tokens of the reply.
        top_logprobs: How many likeliest tokens to give with each token of the reply; 0 for none.
    """

    content: Sequence[Picture | str]
    max_new_tokens: int
    top_logprobs: int = 0


@dataclass(frozen=True)
class ChatReply:
    """A completion.

    Attributes:
        text: What the model said.
        truncated: Whether it ran out of tokens.
        prompt_tokens: Tokens of the request, if the server tells.
        reply_tokens: Tokens of the reply, likewise.
        image_tokens: Tokens of the pictures, likewise.
        top_logprobs: Likeliest tokens at the first place of the reply, with log-probabilities; None if the server gives
            none.
        system_fingerprint: The server's own word for what answered; empty if it gives none.
    """

    text: str
    truncated: bool
    prompt_tokens: int | None = None
    reply_tokens: int | None = None
    image_tokens: int | None = None
    top_logprobs: tuple[tuple[str, float], ...] | None = None
    system_fingerprint: str = ""


class MalformedReplyError(Exception):
    """A body that is no completion: broken off, empty, or an error under status 200. Asking again may help."""


class WithheldReplyError(Exception):
    """The server's content filter kept the reply back. Asking again does not help."""


def write_body(request: ChatRequest, model: str, budget_field: str) -> bytes:
    """The body of a request, in ASCII: half a surrogate pair in a data set's text is no reason to fail.

    Args:
        request: What to ask.
        model: Name of the model.
        budget_field: What this server calls the most tokens of a reply.

    Raises:
        DataError: A picture cannot be decoded.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": _content(request.content)}],
        "temperature": TEMPERATURE,
        budget_field: request.max_new_tokens,
        "stream": False,
    }
    if request.top_logprobs:
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    return json.dumps(body).encode()


def read_body(body: bytes) -> ChatReply:
    """A server's body as a reply. What an error quotes of it may be long, and holds what the server repeated.

    Raises:
        MalformedReplyError: It is no completion.
        WithheldReplyError: It says that the reply was filtered.
    """
    document = _object(body)
    if document.get("error"):
        raise MalformedReplyError(f"an error under status 200: {error_message(body)}")
    choice = _first(document.get("choices"), "choices")
    if choice.get("error") or choice.get("finish_reason") in _BROKEN_OFF:
        told = f"finish_reason {choice.get('finish_reason')!r}, error {choice.get('error')!r}"
        raise MalformedReplyError(f"a reply that the server broke off: {told}")
    message, ended = choice.get("message"), choice.get("finish_reason")
    if ended == "content_filter":
        raise WithheldReplyError("the endpoint's content filter withheld the reply")
    if not isinstance(message, dict):
        raise MalformedReplyError(f"a choice whose message is {message!r}")
    usage = document.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    return ChatReply(
        text=_text(message, truncated=ended == "length"),
        truncated=ended == "length",
        prompt_tokens=_count(usage.get("prompt_tokens")),
        reply_tokens=_count(usage.get("completion_tokens")),
        image_tokens=_count(details.get("image_tokens")) if isinstance(details, dict) else None,
        top_logprobs=_top_logprobs(choice.get("logprobs")),
        system_fingerprint=str(document.get("system_fingerprint") or ""),
    )


def error_message(body: bytes) -> str:
    """What a server says went wrong, in one line, whatever form it has."""
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        document = body.decode("utf-8", errors="replace")
    for key in ("error", "message", "detail"):
        if isinstance(document, dict) and document.get(key):
            document = document[key]
    return " ".join((document if isinstance(document, str) else json.dumps(document)).split())


def shorten(line: str) -> str:
    """So much of a message as is kept; secrets are taken out before, for half of one would not be found."""
    return f"{line[:QUOTED]}..." if len(line) > QUOTED else line


# Requests.


def _content(content: Sequence[Picture | str]) -> str | list[dict[str, Any]]:
    """Texts alone as one string, which every server takes; with pictures, as a list of parts."""
    texts = [part for part in content if isinstance(part, str)]
    if len(texts) == len(content):
        return "\n".join(texts)
    return [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image_url", "image_url": _data_uri(part)}
        for part in content
    ]


def _data_uri(picture: Picture) -> dict[str, str]:
    data = picture.read()
    kind = next((kind for start, kind in _SENT_AS_THEY_ARE.items() if data.startswith(start)), None)
    if kind is None:
        kind, file = "image/png", io.BytesIO()
        picture.open().save(file, format="PNG")
        data = file.getvalue()
    return {"url": f"data:{kind};base64,{base64.b64encode(data).decode()}"}


# Replies.


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedReplyError(f"a body that is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise MalformedReplyError(f"a body that is a {type(document).__name__}")
    return document


def _first(value: object, field: str) -> dict[str, Any]:
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        raise MalformedReplyError(f"a completion whose {field} are {value!r}")
    return value[0]


def _text(message: dict[str, Any], *, truncated: bool) -> str:
    """The content; a refusal is what the model said, too. All tokens spent on thinking leave an empty reply."""
    content = message.get("content")
    if isinstance(content, str) and (content or not message.get("refusal")):
        return content
    if isinstance(content, list) and (texts := [text for part in content if (text := _text_of(part)) is not None]):
        return "".join(texts)
    if isinstance(message.get("refusal"), str):
        return str(message["refusal"])
    if truncated and not content:
        return ""
    raise MalformedReplyError(f"a message whose content is {content!r}")


def _text_of(part: object) -> str | None:
    """The text of one part of a content; None of what is no text."""
    text = part.get("text") if isinstance(part, dict) else None
    return text if isinstance(text, str) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _top_logprobs(value: object) -> tuple[tuple[str, float], ...] | None:
    """Those of the first token, if there are any; impossible tokens, which some servers list, are left out."""
    places = value.get("content") if isinstance(value, dict) else None
    if not isinstance(places, list) or not places:
        return None
    try:
        told = [(str(one["token"]), float(one["logprob"])) for one in places[0]["top_logprobs"]]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise MalformedReplyError(f"log-probabilities of another form ({error!r})") from error
    if any(level > ROUNDING or math.isnan(level) for _, level in told):
        raise MalformedReplyError(f"log-probabilities that are none: {told}")
    return tuple((token, level) for token, level in told if math.isfinite(level)) or None
