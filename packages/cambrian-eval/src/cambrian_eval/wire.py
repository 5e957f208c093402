"""How the runner and its workers speak: JSON, and pictures as they are encoded, over a socket. Nothing is pickled.

A message is the length of a list, the list of its parts' lengths, then the parts: JSON first, then the bytes of
pictures that are in no file.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cambrian_eval.picture import Picture
from cambrian_eval.types import Answer, Failure, Prompt

if TYPE_CHECKING:
    from collections.abc import Sequence
    from socket import socket

PREFIX = 4  # bytes of the first length


class Message(NamedTuple):
    """What kind it is, its JSON, and the bytes that the JSON counts."""

    kind: str
    body: Any
    blobs: list[bytes]


def send(connection: socket, kind: str, body: Any, blobs: Sequence[bytes] = ()) -> None:
    """Write one message.

    Raises:
        OSError: The other side is gone.
    """
    text = json.dumps([kind, body]).encode()
    sizes = json.dumps([len(text), *map(len, blobs)]).encode()
    connection.sendall(len(sizes).to_bytes(PREFIX) + sizes + text)
    for blob in blobs:
        connection.sendall(blob)


def receive(connection: socket) -> Message | None:
    """Read one message, and not a byte beyond it; None where the other side is gone, be it in the middle of one."""
    try:
        sizes = json.loads(_read(connection, int.from_bytes(_read(connection, PREFIX))))
        text, *blobs = [_read(connection, size) for size in sizes]
    except (EOFError, OSError):
        return None
    kind, body = json.loads(text)
    return Message(kind, body, blobs)


def _read(connection: socket, size: int) -> bytes:
    parts = bytearray(size)
    view, done = memoryview(parts), 0
    while done < size:
        count = connection.recv_into(view[done:])
        if count == 0:
            raise EOFError
        done += count
    return bytes(parts)


def pack_prompts(prompts: Sequence[Prompt]) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Prompts as JSON, and the pictures that it does not name a file for, each once."""
    blobs: dict[str, bytes] = {}
    packed = [
        {
            "id": prompt.id,
            "content": [part if isinstance(part, str) else _pack_picture(part, blobs) for part in prompt.content],
            "choices": prompt.choices,
            "max_new_tokens": prompt.max_new_tokens,
            "instruction": prompt.instruction,
        }
        for prompt in prompts
    ]
    return packed, list(blobs.values())


def unpack_prompts(packed: Sequence[dict[str, Any]], blobs: Sequence[bytes]) -> list[Prompt]:
    """What was packed."""
    return [
        Prompt(
            id=entry["id"],
            content=tuple(part if isinstance(part, str) else _unpack_picture(part, blobs) for part in entry["content"]),
            choices=tuple(entry["choices"]),
            max_new_tokens=entry["max_new_tokens"],
            instruction=entry["instruction"],
        )
        for entry in packed
    ]


def pack_answer(answer: Answer | Failure) -> dict[str, Any]:
    """An answer or a failure as JSON."""
    return dataclasses.asdict(answer)


def unpack_answer(packed: dict[str, Any]) -> Answer | Failure:
    """What was packed."""
    if "reason" in packed:
        return Failure(packed["reason"])
    return Answer(**{**packed, "option_scores": tuple(packed["option_scores"])})


def _pack_picture(picture: Picture, blobs: dict[str, bytes]) -> dict[str, Any]:
    if picture.data is None:
        return {"name": picture.name, "sha256": picture.sha256, "path": str(Path(picture.path or "").absolute())}
    blobs.setdefault(picture.sha256, picture.data)
    return {"name": picture.name, "sha256": picture.sha256, "blob": list(blobs).index(picture.sha256)}


def _unpack_picture(packed: dict[str, Any], blobs: Sequence[bytes]) -> Picture:
    if "path" in packed:
        return Picture(packed["name"], packed["sha256"], path=Path(packed["path"]))
    return Picture(packed["name"], packed["sha256"], data=blobs[packed["blob"]])
