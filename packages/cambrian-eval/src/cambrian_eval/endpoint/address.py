"""Where an endpoint is: `BASE_URL#MODEL`, and what of it may be shown."""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from cambrian_eval.errors import ModelError

KEY_VARIABLE = "OPENAI_API_KEY"
FORM = "BASE_URL#MODEL, as in http://127.0.0.1:8000/v1#my-model"
HIDDEN = "***"
TELLING = 12  # characters from which on a secret is no word that a reply might hold by itself


@dataclass(frozen=True)
class Address:
    """One model of one server.

    Attributes:
        url: Where completions are asked for, with the user's credentials, if the base URL had any.
        base_url: The base URL without credentials and query; the only form that is ever shown or written.
        model: Name of the model there.
        key: What the server knows the user by, from an environment variable; empty if that is not set.
    """

    url: str = field(repr=False)
    base_url: str
    model: str
    key: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str, key_variable: str = KEY_VARIABLE) -> Address:
        """Read `BASE_URL#MODEL`; the key is taken from the environment variable of that name.

        Raises:
            ModelError: It has another form, or the key cannot be sent.
        """
        base, _, model = text.partition("#")
        parts = _split(base)
        if parts is None or not model:
            raise ModelError(f'endpoint: found "{_shown(base)}" and model "{model}", expected {FORM}.')
        key = os.environ.get(key_variable, "").strip()
        if not key.isascii() or not key.isprintable():
            raise ModelError(f"endpoint: {key_variable} holds characters that no key has; set it again.")
        path = parts.path.rstrip("/").removesuffix("/chat/completions")
        return cls(
            url=parts._replace(path=f"{path}/chat/completions", fragment="").geturl(),
            base_url=parts._replace(netloc=_host(parts), path=path, query="", fragment="").geturl(),
            model=model,
            key=key,
        )

    @property
    def name(self) -> str:
        """What reports call it, without credentials."""
        return f"{self.base_url}#{self.model}"

    def redact(self, text: str) -> str:
        """The text without the key and without the credentials of the URL, should a server have repeated them."""
        for secret in sorted({secret for secret in self._secrets() if secret}, key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return text

    def is_told_in(self, text: str) -> bool:
        """Whether a text holds the key or the credentials. Short ones, such as "EMPTY", are words like others."""
        return any(len(secret) >= TELLING and secret in text for secret in self._secrets())

    def _secrets(self) -> list[str]:
        parts = urlsplit(self.url)
        user, password = parts.username or "", parts.password or ""
        given = password or user  # a token may stand where the user does
        header = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode() if given else ""
        return [self.key, given, unquote(given), header, *(value for _, value in parse_qsl(parts.query))]


def _split(base: str) -> SplitResult | None:
    try:
        parts = urlsplit(base)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half of an IPv6 address
        return None
    return parts if usable else None


def _host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _shown(base: str) -> str:
    """A base URL that could not be read, without what stands before an @ and without its query."""
    place, *query = re.split("[?&]", base.rpartition("@")[2], maxsplit=1)
    return (f"{HIDDEN}@" if "@" in base else "") + place + (f"?{HIDDEN}" if query else "")
