"""The record: one conversation about zero or more images, in the Hugging Face chat form that training reads.

`{"id", "source", "messages": [{"role", "content": [{"type": "image"} | {"type": "text", "text"}]}], "images": [path]}`.
A record is checked when it is made, so whoever holds one need not check again, and keeps every key it does not know.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from cambrian_data.errors import RecordError

ROLES = ("system", "user", "assistant")
FIELDS = ("id", "source", "messages", "images")

Message = dict[str, Any]
Row = dict[str, Any]
"""A parsed JSON object, as it stands in a file."""


@dataclass(frozen=True, slots=True)
class Record:
    """One conversation and its images.

    Attributes:
        id: names the record in its source; None where the source has none.
        source: the data set it comes from; None where unknown.
        messages: an optional system message, then user and assistant in turn; content is a list of parts,
            `{"type": "image"}` or `{"type": "text", "text": str}`. Unknown keys of messages and parts are kept.
        images: one path (relative to the images' folder) or encoded picture (bytes) for each image part, in order.
        extra: the unknown keys of the row it was read from.
        location: `file:line` it was read from, for messages; not part of its value.

    Raises:
        RecordError: if any of this does not hold.
    """

    id: str | int | None
    source: str | None
    messages: list[Message]
    images: list[str | bytes]
    extra: Row = field(default_factory=dict)
    location: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        check_names(self.id, self.source)
        check_messages(self.messages)
        check_images(self.images, self.messages)
        for key in FIELDS:
            if key in self.extra:
                raise RecordError(f'extra key "{key}" is a field of the record; set the field instead.')

    def to_dict(self) -> Row:
        """The plain chat dictionary that training reads, unknown keys included; shares the record's lists."""
        return {
            "id": self.id,
            "source": self.source,
            "messages": self.messages,
            "images": self.images,
            **self.extra,
        }


def shown(value: object) -> str:
    """The value as a short piece of JSON, for messages."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."


def check_names(id: object, source: object) -> None:
    """Raises RecordError unless id and source are of their types."""
    if id is not None and (isinstance(id, bool) or not isinstance(id, str | int)):
        raise RecordError(f'"id" is {shown(id)}; expected a string or a whole number.')
    if source is not None and not isinstance(source, str):
        raise RecordError(f'"source" is {shown(source)}; expected a string.')


def check_messages(messages: object) -> None:
    """Raises RecordError unless the messages are well formed and their roles alternate."""
    if not isinstance(messages, list) or not messages:
        raise RecordError(f'"messages" is {shown(messages)}; expected a list with at least one user turn.')
    for number, message in enumerate(messages, start=1):
        check_message(message, number)
    check_roles([message["role"] for message in messages])


def check_message(message: object, number: int) -> None:
    """Raises RecordError unless turn `number` (from 1) is a message."""
    if not isinstance(message, dict):
        raise RecordError(f'turn {number} is {shown(message)}; expected an object with "role" and "content".')
    if message.get("role") not in ROLES:
        raise RecordError(
            f'turn {number} has role {shown(message.get("role"))}; expected "user", "assistant" or "system".'
        )
    content = message.get("content")
    if not isinstance(content, list) or not content:
        raise RecordError(
            f"turn {number} has content {shown(content)}; "
            'expected a list of parts such as {"type": "text", "text": ...}.'
        )
    for part in content:
        check_part(part, number)


def check_part(part: object, number: int) -> None:
    """Raises RecordError unless it is an image or a text part."""
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or kind not in ("image", "text"):
        raise RecordError(f'turn {number} has the part {shown(part)}; expected one of type "image" or "text".')
    if kind == "text":
        text = part.get("text")
        if not isinstance(text, str):
            raise RecordError(f"turn {number} has a text part with text {shown(text)}; expected a string.")
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise RecordError(
                f"turn {number} holds half of a surrogate pair, which is no character (an emoji cut in two?). "
                "Fix the text."
            )


def alternate(roles: list[str], names: tuple[str, str, str] = ROLES) -> bool:
    """Whether user and assistant alternate after an optional system message, and there is a user."""
    system, user, assistant = names
    offset = 1 if roles[:1] == [system] else 0
    users, answers = roles[offset::2], roles[offset + 1 :: 2]
    return users.count(user) == len(users) > 0 and answers.count(assistant) == len(answers)


def check_roles(roles: list[str], names: tuple[str, str, str] = ROLES) -> None:
    """Raises RecordError unless user and assistant alternate after an optional system message.

    Args:
        roles: of the turns.
        names: what the form calls system, user and assistant.
    """
    if alternate(roles, names):
        return
    system, user, assistant = names
    offset = 1 if roles[:1] == [system] else 0
    if len(roles) == offset:
        raise RecordError(f"the conversation has {len(roles)} turns without a {user} turn; expected one.")
    for index in range(offset, len(roles)):
        if roles[index] == (user, assistant)[(index - offset) % 2]:
            continue
        if index == offset:
            raise RecordError(f'turn {index + 1} has role "{roles[index]}"; a conversation begins with "{user}".')
        raise RecordError(
            f'turn {index + 1} has role "{roles[index]}" after role "{roles[index - 1]}"; turns must alternate. '
            "Fix or remove the record."
        )


def check_images(images: object, messages: list[Message]) -> None:
    """Raises RecordError unless there is one image for each image part."""
    if not isinstance(images, list):
        raise RecordError(f'"images" is {shown(images)}; expected a list of paths, [] for text alone.')
    for image in images:
        if not isinstance(image, str | bytes) or not image:
            raise RecordError(f'"images" holds {shown(image)}; expected the path of a picture.')
    parts = sum(part["type"] == "image" for message in messages for part in message["content"])
    if parts != len(images):
        raise RecordError(
            f"the conversation shows {parts} image{'s' * (parts != 1)} but names {len(images)}; the two must agree. "
            "Fix or remove the record."
        )
