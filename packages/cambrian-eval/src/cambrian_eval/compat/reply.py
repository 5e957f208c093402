"""How the reference cuts a reply down before it compares: four habits that its scripts share, mistakes included."""

from __future__ import annotations

from cambrian_eval.scoring.abstention import AbstainError

_ANNOUNCEMENTS = ("answer is", "answer is:", "answer:")


def announced(reply: str) -> str:
    """What follows the last "answer is" or "answer:", in lower case, else the whole reply."""
    text = reply.lower().strip()
    for announcement in _ANNOUNCEMENTS:
        text = text.split(announcement)[-1]
    return text.strip()


def unbracketed(reply: str, closing: str) -> str:
    """The announced answer without the characters `closing` at its end and without brackets round it."""
    return announced(reply).rstrip(closing).lstrip("(").rstrip(")")


def first_letter(reply: str, closing: str) -> str:
    """The first character of the announced answer, whatever it stands for: "a bus" is "a"."""
    return unbracketed(reply, closing)[:1]


def first_word(text: str) -> str:
    """The first word.

    Raises:
        AbstainError: There is none; the original stops with an IndexError.
    """
    words = text.split()
    if not words:
        raise AbstainError("the original crashes on a reply without words")
    return words[0]
