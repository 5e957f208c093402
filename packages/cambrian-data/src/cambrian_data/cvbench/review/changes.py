"""What a reviewer may change of a question, and the row with it changed: question, choices, answer and prompt agree."""

from __future__ import annotations

from string import ascii_uppercase

import msgspec

from cambrian_data.cvbench.questions import prompt
from cambrian_data.errors import DataError
from cambrian_data.records import Row


class Changes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question as a reviewer wants it; always whole, so that a line of the log says what is exported.

    Attributes:
        question: without the choices.
        choices: texts.
        answer: the letter of the right choice, like (A).
    """

    question: str
    choices: tuple[str, ...]
    answer: str


def tidy(changes: Changes) -> Changes:
    """The same without white space around the texts."""
    return Changes(
        question=changes.question.strip(),
        choices=tuple(choice.strip() for choice in changes.choices),
        answer=changes.answer.strip(),
    )


def check_changes(changes: Changes, row: Row) -> None:
    """Raises DataError unless the changed question can be asked, and differs from the row."""
    if not changes.question:
        raise DataError("the question is empty; write one, or reject it.")
    if not 2 <= len(changes.choices) <= len(ascii_uppercase):
        raise DataError(f"there are {len(changes.choices)} choices; expected 2 to 26.")
    for text in (changes.question, *changes.choices):
        if not text.isprintable():
            raise DataError(f"{text!r} holds a line break or another control character; each text is one line.")
    seen: dict[str, str] = {}
    for letter, choice in zip(ascii_uppercase, changes.choices, strict=False):
        if not choice:
            raise DataError(f"choice ({letter}) is empty; write one, or remove it.")
        if choice.casefold() in seen:
            raise DataError(
                f'choices ({seen[choice.casefold()]}) and ({letter}) are both "{choice}"; each must differ.'
            )
        seen[choice.casefold()] = letter
    letters = [f"({letter})" for letter in ascii_uppercase[: len(changes.choices)]]
    if changes.answer not in letters:
        raise DataError(f'the answer is "{changes.answer}"; expected one of {", ".join(letters)}.')
    if (changes.question, list(changes.choices), changes.answer) == (row["question"], row["choices"], row["answer"]):
        raise DataError("nothing is changed; accept the question, or change it.")


def changed(row: Row, changes: Changes) -> Row:
    """The row with these changes; its other fields tell of the picture and its source, which are the same."""
    return {
        **row,
        "question": changes.question,
        "choices": list(changes.choices),
        "answer": changes.answer,
        "prompt": prompt(changes.question, changes.choices),
    }
