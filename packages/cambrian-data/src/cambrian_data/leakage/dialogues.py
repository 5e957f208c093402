"""Questions and answers in rows of any form: CV-Bench's, conversations, or a question beside its answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from string import ascii_uppercase
from typing import Any

from cambrian_data.errors import RecordError
from cambrian_data.leakage.pictures import Exchange
from cambrian_data.records import Record, Row, shown

TEXT_FIELDS = ("conversations", "messages", "question", "answer", "answers", "choices", "options")
"""Columns of a table in which questions and answers may stand."""

ROLES = {"human": "user", "gpt": "assistant"}
IMAGE_MARK = "<image>"
LETTER = re.compile(r"\(?([A-Z])\)?\.?")
LETTERED_CHOICE = re.compile(r"^\s*\(?([A-Z])[).:]\s*(.+?)\s*$", re.MULTILINE)


def exchanges_of_record(record: Record, location: str) -> Iterator[Exchange]:
    """Each question of a conversation with the answer that follows it, about all of its pictures."""
    links = tuple(image for image in record.images if isinstance(image, str))
    turns = [(message["role"], text_of(message["content"])) for message in record.messages]
    return exchanges_of_turns(turns, location, links)


def exchanges_of_row(row: Row, location: str, links: tuple[str, ...]) -> Iterator[Exchange]:
    """The same of a row of a table.

    Raises:
        RecordError: if what stands there is no text.
    """
    for field in ("conversations", "messages"):
        if row.get(field) is not None:
            turns = [to_turn(turn, field) for turn in as_turns(row[field], field)]
            yield from exchanges_of_turns(turns, location, links)
            return
    question = row.get("question")
    if question is None:
        return
    if not isinstance(question, str):
        raise RecordError(f'"question" is {shown(question)}; expected a text.')
    yield Exchange(location, question, answers_of_row(row), links)


def exchanges_of_turns(turns: Sequence[tuple[str, str]], location: str, links: tuple[str, ...]) -> Iterator[Exchange]:
    """Each turn of the user with the answer that follows it."""
    for index, (role, text) in enumerate(turns):
        if role != "user" or not text.strip():
            continue
        follows = turns[index + 1 : index + 2]
        replies = [spoken_choice(reply, text) for who, reply in follows if who == "assistant"]
        yield Exchange(location, text, tuple(replies), links)


def as_turns(value: Any, field: str) -> list[Any]:
    """The turns of a conversation."""
    if not isinstance(value, list):
        raise RecordError(f'"{field}" is {shown(value)}; expected a list of turns.')
    return value


def to_turn(turn: Any, field: str) -> tuple[str, str]:
    """Role and text of a turn in LLaVA's or chat form."""
    names = ("from", "value") if field == "conversations" else ("role", "content")
    role, content = (turn.get(name) for name in names) if isinstance(turn, dict) else (None, None)
    if not isinstance(role, str) or not isinstance(content, str | list):
        raise RecordError(f'a turn of "{field}" is {shown(turn)}; expected "{names[0]}" and "{names[1]}".')
    return ROLES.get(role, role), text_of(content)


def text_of(content: Any) -> str:
    """The text of a turn, without its pictures."""
    if isinstance(content, str):
        return content.replace(IMAGE_MARK, " ")
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return " ".join(text for text in texts if isinstance(text, str))


def answers_of_row(row: Row) -> tuple[str, ...]:
    """The right answers of a row; a letter or a number that names a choice becomes the words of the choice."""
    choices = row.get("choices") or row.get("options") or []
    answer = row.get("answer") if row.get("answer") is not None else row.get("answers")
    found = answer if isinstance(answer, list) else [] if answer is None else [answer]
    return tuple(chosen(value, choices) for value in found)


def chosen(answer: Any, choices: Any) -> str:
    """The words of the choice that an answer names; the answer itself where it names none.

    An answer that is the text of a choice is that choice: of the choices 1, 0, 3, 2 the answer 1 is the first, not the
    second. Else a number counts the choices from 0, and a letter from A.
    """
    if isinstance(answer, dict):  # as in VQAv2: {"answer", "answer_confidence", "answer_id"}
        answer = answer.get("answer")
    if not isinstance(choices, list):
        return str(answer)
    words = [str(choice) for choice in choices]
    if str(answer) in words:
        return str(answer)
    match = LETTER.fullmatch(str(answer).strip())
    place = answer if isinstance(answer, int) else ascii_uppercase.index(match[1]) if match else -1
    return words[place] if 0 <= place < len(words) else str(answer)


def spoken_choice(reply: str, question: str) -> str:
    """The words of the choice, where the reply is a letter and the question lists lettered choices."""
    match = LETTER.fullmatch(reply.strip())
    choices = dict(LETTERED_CHOICE.findall(question)) if match else {}
    return choices.get(match[1], reply) if match else reply
