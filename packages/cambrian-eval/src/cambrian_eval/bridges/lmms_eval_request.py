"""A chat request of lmms-eval as a prompt of ours, and a reply of ours as lmms-eval wants it; lmms-eval is not needed.

Source: lmms-eval 0.7.3, `protocol.py` (messages) and `api/task.py` (settings of generation).
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from cambrian_eval.errors import ModelError
from cambrian_eval.picture import Picture
from cambrian_eval.types import Prompt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from PIL import Image

MAX_NEW_TOKENS = 1024  # for tasks that name no budget

_GREEDY = {"temperature": (None, 0), "do_sample": (None, False), "num_beams": (None, 1)}


@dataclass(frozen=True)
class DecodedPicture(Picture):
    """A picture that lmms-eval has decoded already; encoding it again only to decode it once more would be a waste.

    Attributes:
        image: The picture.
    """

    image: Image.Image | None = None

    @classmethod
    def from_image(cls, name: str, image: Image.Image) -> DecodedPicture:
        """Its hash is that of mode, size and pixels."""
        digest = hashlib.sha256(f"{image.mode}:{image.size}".encode() + image.tobytes())
        return cls(name, digest.hexdigest(), image=image)

    def read(self) -> bytes:
        """The picture as a PNG file."""
        file = io.BytesIO()
        self.open().save(file, format="PNG")
        return file.getvalue()

    def open(self) -> Image.Image:
        """The picture in RGB."""
        assert self.image is not None
        return self.image.convert("RGB")


class Request(NamedTuple):
    """What is asked, and the texts before which a reply ends."""

    prompt: Prompt
    until: Sequence[str]


def read_request(name: str, messages: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> Request:
    """The prompt of one request.

    Args:
        name: What to call it in messages.
        messages: Turns, each with a role and a content of texts and pictures.
        settings: Of generation.

    Raises:
        ModelError: It asks for something else than one greedy reply to one turn of texts and pictures.
    """
    for setting, greedy in _GREEDY.items():
        if settings.get(setting) not in greedy:
            raise ModelError(f"{name}: found {setting} {settings[setting]}, expected {greedy[1]}: replies are greedy.")
    until = settings.get("until") or ()
    budget = int(settings.get("max_new_tokens") or MAX_NEW_TOKENS)
    return Request(
        Prompt(name, tuple(_content(name, messages)), (), budget), (until,) if isinstance(until, str) else tuple(until)
    )


def cut(text: str, until: Sequence[str]) -> str:
    """The text before the first place where one of the stop texts stands."""
    for stop in until:
        text = text.partition(stop)[0] if stop else text
    return text


def _content(name: str, messages: Sequence[Mapping[str, Any]]) -> Iterator[Picture | str]:
    roles = [str(message["role"]) for message in messages]
    if roles != ["user"]:
        raise ModelError(f"{name}: found turns of {', '.join(roles) or 'nobody'}, expected one turn of the user.")
    for place, part in enumerate(messages[0]["content"]):
        if part["type"] == "text":
            yield part["text"]
        elif part["type"] == "image":
            yield DecodedPicture.from_image(f"{name}/{place}", part["url"])
        else:
            raise ModelError(f"{name}: found {part['type']}, expected texts and pictures only.")
