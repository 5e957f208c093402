"""LLaVA's form, that of Cambrian-10M: `{"id", "image", "conversations": [{"from", "value"}]}`, `<image>` in the text.

The image mark splits a turn's text into parts; every other character, white space too, stays where it is. Whatever the
chat form has no place for (an image that is "" or null, an image in a list of one, an id that is null) is kept under
the key "llava" of the chat row, so that the way there and back is the identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from cambrian_data.errors import RecordError
from cambrian_data.formats.plain import IMAGE_MARK, LLAVA_ROLES, split
from cambrian_data.formats.rows import read_rows, write_rows
from cambrian_data.formats.stream import to_records
from cambrian_data.records import FIELDS, Message, Record, Row, check_roles, shown

KEY = "conversations"
"""The key by which a row of this form is known."""

ROLES = LLAVA_ROLES
NAMES = {role: name for name, role in ROLES.items()}
NOTE = "llava"
"""Key of a chat row that holds what only LLaVA's form can say, as `{key of the LLaVA row: its value}`."""


def to_record(row: Row, location: str | None = None) -> Record:
    """A parsed row as a record; unknown keys of the row and of its turns are kept.

    Raises:
        RecordError: if the row is not in LLaVA's form, or its marks and images differ in number.
    """
    if KEY not in row:
        raise RecordError(f'the record has no "{KEY}"; add the conversation.')
    turns = row[KEY]
    if not isinstance(turns, list) or not turns:
        raise RecordError(f'"conversations" is {shown(turns)}; expected a list with at least one turn.')
    for number, turn in enumerate(turns, start=1):
        check_turn(turn, number)
    check_roles([turn["from"] for turn in turns], ("system", "human", "gpt"))
    messages = [to_message(turn) for turn in turns]
    images = to_images(row.get("image"))
    plain = {"id": row.get("id"), "source": row.get("source"), "image": from_images(images), "conversations": turns}
    held = {key: value for key, value in plain.items() if value is not None}
    ours = {*plain, *FIELDS, NOTE}
    note = {key: value for key, value in row.items() if key in ours and not (key in held and held[key] == value)}
    extra = {key: value for key, value in row.items() if key not in plain and key not in note}
    if note:
        extra[NOTE] = note
    return Record(row.get("id"), row.get("source"), messages, images, extra, location)


def check_turn(turn: object, number: int) -> None:
    """Raises RecordError unless turn `number` (from 1) is one."""
    if not isinstance(turn, dict) or "from" not in turn or not isinstance(turn.get("value"), str):
        raise RecordError(f'turn {number} is {shown(turn)}; expected an object with "from" and the text "value".')
    if not isinstance(turn["from"], str) or turn["from"] not in ROLES:
        raise RecordError(f'turn {number} is from {shown(turn["from"])}; expected "human", "gpt" or "system".')
    for key in ("role", "content"):
        if key in turn:
            raise RecordError(f'turn {number} has the key "{key}" of the chat form beside "from" and "value".')


def to_message(turn: Row) -> Message:
    """`{"from", "value"}` -> `{"role", "content"}`."""
    rest = {key: value for key, value in turn.items() if key not in ("from", "value")}
    return {"role": ROLES[turn["from"]], "content": split(turn["value"]), **rest}


def join(content: list[dict[str, Any]]) -> str:
    """The inverse of split.

    Raises:
        RecordError: if LLaVA's form has no text for these parts.
    """
    value = "".join(IMAGE_MARK if part["type"] == "image" else part["text"] for part in content)
    if split(value) != content:
        raise RecordError(
            f"LLaVA's form cannot hold the content {shown(content)}: texts that meet, empty texts, texts that spell "
            f"{IMAGE_MARK} and further keys of parts would be lost. Keep this record in chat form."
        )
    return value


def to_images(image: object) -> list[str | bytes]:
    """The value of "image" (a path, a list of paths, "" or null for none) as a list."""
    if image is None or image == "":
        return []
    if isinstance(image, str):
        return [image]
    if isinstance(image, list):
        return list(image)
    raise RecordError(f'"image" is {shown(image)}; expected a path or a list of paths.')


def from_images(images: list[Any]) -> Any:
    """How "image" is usually written: None (no key) for none, a path for one, a list for several."""
    return images if len(images) > 1 else images[0] if images else None


def from_record(record: Record) -> Row:
    """The row of a record: the inverse of to_record.

    Raises:
        RecordError: if LLaVA's form cannot hold the record.
    """
    if any(isinstance(image, bytes) for image in record.images):
        raise RecordError(
            f"record {record.id!r} holds a picture as bytes; save it and name its path to write JSON Lines."
        )
    plain = {
        "id": record.id,
        "source": record.source,
        "image": from_images(record.images),
        "conversations": [from_message(message) for message in record.messages],
    }
    note = record.extra.get(NOTE, {})
    extra = {key: value for key, value in record.extra.items() if key != NOTE}
    row = {key: value for key, value in plain.items() if value is not None} | extra
    if isinstance(note, dict):
        row |= note
    check_expressible(record, row)
    return row


def check_expressible(record: Record, row: Row) -> None:
    """Raises RecordError unless the row gives the record back."""
    try:
        same = to_record(row) == record
    except RecordError:
        same = False
    if not same:
        lost = sorted({*record.extra} & {*row, NOTE} & {"image", "conversations", NOTE})
        raise RecordError(
            f"LLaVA's form cannot hold record {record.id!r}: its extra keys {shown(lost)} mean something else there. "
            "Rename them or keep this record in chat form."
        )


def from_message(message: Message) -> Row:
    """`{"role", "content"}` -> `{"from", "value"}`."""
    rest = {key: value for key, value in message.items() if key not in ("role", "content")}
    if clash := {"from", "value"} & {*rest}:
        raise RecordError(f"LLaVA's form cannot hold a message with the further keys {shown(sorted(clash))}.")
    return {"from": NAMES[message["role"]], "value": join(message["content"]), **rest}


def read(path: Path, on_invalid: Callable[[RecordError], None] | None = None) -> Iterator[Record]:
    """Streams the records of a file.

    Args:
        path: JSON Lines, or one JSON array as LLaVA ships it.
        on_invalid: called with the error of each record that is dropped; without it the first error is raised.

    Raises:
        RecordError: with file and line.
        DataError: if the file cannot be read.
    """
    return to_records(Path(path), read_rows(Path(path)), to_record, on_invalid)


def write(path: Path, records: Iterable[Record]) -> int:
    """Writes JSON Lines; gives the number of records."""
    return write_rows(Path(path), map(from_record, records))
