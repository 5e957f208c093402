"""Rows as most files have them, read and checked in one go, which takes a fraction of the time.

A row that holds anything else, right or wrong, is None here and left to the form's `to_record`, which keeps it or says
what is wrong. What is given here is what `to_record(row).to_dict()` gives.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from cambrian_data.records import ROLES, Message, Row, alternate

LLAVA_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
IMAGE_MARK = "<image>"
Known = TypeVar("Known")


class Part(Struct, forbid_unknown_fields=True, gc=False):
    """A picture or a text."""

    type: Literal["image", "text"]
    text: str | UnsetType = UNSET


class ChatTurn(Struct, forbid_unknown_fields=True, gc=False):
    """A message."""

    role: Literal["system", "user", "assistant"]
    content: list[Part]


class ChatRow(Struct, forbid_unknown_fields=True, gc=False):
    """A row in chat form."""

    messages: list[ChatTurn]
    images: list[str]
    id: int | str | UnsetType = UNSET
    source: str | UnsetType = UNSET


class LlavaTurn(Struct, forbid_unknown_fields=True, gc=False, rename={"speaker": "from"}):
    """A turn."""

    speaker: Literal["system", "human", "gpt"]
    value: str


class LlavaRow(Struct, forbid_unknown_fields=True, gc=False):
    """A row in LLaVA's form."""

    conversations: list[LlavaTurn]
    image: str | list[str] | UnsetType = UNSET
    id: int | str | UnsetType = UNSET
    source: str | UnsetType = UNSET


_CHAT_ROW, _LLAVA_ROW = msgspec.json.Decoder(ChatRow), msgspec.json.Decoder(LlavaRow)


def read_chat(content: bytes) -> Row | None:
    """A row of JSON in chat form as `{"id", "source", "messages", "images"}`, None unless it is a plain one."""
    row = _decode(content, _CHAT_ROW)
    if row is None:
        return None
    messages: list[Message] = []
    num_marks = 0
    for turn in row.messages:
        parts: list[dict[str, Any]] = []
        for part in turn.content:
            is_image = part.type == "image"
            if is_image != (part.text is UNSET):
                return None
            num_marks += is_image
            parts.append({"type": "image"} if is_image else {"type": "text", "text": part.text})
        if not parts:
            return None
        messages.append({"role": turn.role, "content": parts})
    return _checked(row.id, row.source, messages, row.images, num_marks)


def read_llava(content: bytes) -> Row | None:
    """A row of JSON in LLaVA's form as `{"id", "source", "messages", "images"}`, None unless it is a plain one."""
    row = _decode(content, _LLAVA_ROW)
    if row is None:
        return None
    images = row.image if isinstance(row.image, list) else [] if row.image is UNSET else [row.image]
    if isinstance(row.image, list) and len(images) < 2:
        return None  # that there was a list is to be kept
    messages: list[Message] = []
    num_marks = 0
    for turn in row.conversations:
        text = turn.value
        if IMAGE_MARK in text:
            num_marks += text.count(IMAGE_MARK)
            parts = split(text)
        else:
            parts = [{"type": "text", "text": text}]
        messages.append({"role": LLAVA_ROLES[turn.speaker], "content": parts})
    return _checked(row.id, row.source, messages, images, num_marks)


def split(value: str) -> list[dict[str, Any]]:
    """A turn's text as parts: `<image>` becomes an image, what stands between becomes texts, to the byte."""
    content: list[dict[str, Any]] = []
    for number, text in enumerate(value.split(IMAGE_MARK)):
        if number:
            content.append({"type": "image"})
        if text:
            content.append({"type": "text", "text": text})
    return content or [{"type": "text", "text": ""}]


def _decode(content: bytes, decoder: msgspec.json.Decoder[Known]) -> Known | None:
    try:
        return decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _checked(
    id: int | str | UnsetType,
    source: str | UnsetType,
    messages: list[Message],
    images: list[str],
    num_marks: int,
) -> Row | None:
    if num_marks != len(images) or "" in images or not alternate([message["role"] for message in messages], ROLES):
        return None
    return {
        "id": None if id is UNSET else id,
        "source": None if source is UNSET else source,
        "messages": messages,
        "images": images,
    }
