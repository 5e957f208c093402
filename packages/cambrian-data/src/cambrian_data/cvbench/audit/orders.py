"""A question in several orders of its choices, and what somebody who sees no picture replies.

Choices go round: in as many orders as there are choices every choice stands under every letter once. Whoever prefers a
letter then picks another choice each time, and only who prefers a *choice* picks the same one throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from cambrian_data.cvbench.audit.items import Item
from cambrian_data.cvbench.questions import list_choices
from cambrian_data.errors import DataError

Picks = tuple[int | None, ...]
"""What was picked in each order: the place of the choice in the published order, None where no letter was given."""


@dataclass(frozen=True, slots=True)
class Ordered:
    """A question with its choices in one of their orders.

    Attributes:
        item: the question as published.
        shift: of the choices; 0 is the published order.
    """

    item: Item
    shift: int

    @property
    def id(self) -> str:
        """Unique in the audit, such as 2d-17@1."""
        return f"{self.item.id}@{self.shift}"

    @property
    def choices(self) -> tuple[str, ...]:
        """Texts in this order."""
        return (*self.item.choices[self.shift :], *self.item.choices[: self.shift])

    @property
    def prompt(self) -> str:
        """The published prompt with its choices in this order."""
        return self.item.stem + list_choices(self.choices)

    @property
    def letter(self) -> str:
        """Of the right choice."""
        return ascii_uppercase[(self.item.place - self.shift) % len(self.item.choices)]

    def place(self, letter: str) -> int:
        """The place in the published order of the choice that has this letter here."""
        return (ascii_uppercase.index(letter) + self.shift) % len(self.item.choices)


Guesser = Callable[[Sequence[Ordered]], Sequence[str | None]]
"""Answers questions it sees no pictures of: a letter for each, in order, or None where it gives none."""


def in_orders(item: Item, most: int | None = None) -> list[Ordered]:
    """The question in as many orders as it has choices, in `most` at most."""
    return [Ordered(item, shift) for shift in range(min(most or len(item.choices), len(item.choices)))]


def check_orders(most: int | None) -> None:
    """Raises DataError for too few orders to tell a preference for a letter from one for a choice."""
    if most is not None and most < 2:
        raise DataError(
            f"the number of orders is {most}; expected at least 2: in one order a preference for a letter looks like "
            "knowledge. Leave it out for as many orders as a question has choices."
        )


def ask(guesser: Guesser, items: Sequence[Item], most: int | None, name: str) -> list[Picks]:
    """What the guesser picks, for each question.

    Args:
        guesser: asked once for everything.
        items: questions.
        most: orders of each.
        name: of the guesser, for messages.

    Raises:
        DataError: if the number of replies is wrong, or one is neither None nor a letter that was offered.
    """
    asked = [in_orders(item, most) for item in items]
    flat = [one for of_item in asked for one in of_item]
    letters = list(guesser(flat))
    if len(letters) != len(flat):
        raise DataError(f"{name}: found {len(letters)} replies to {len(flat)} questions; expected one for each.")
    picked: dict[str, int | None] = {}
    for one, letter in zip(flat, letters, strict=True):
        offered = ascii_uppercase[: len(one.choices)]
        if letter is not None and (len(letter) != 1 or letter not in offered):
            raise DataError(
                f"{name}: question {one.id}: found {letter!r}; expected a letter from A to {offered[-1]}, or None for "
                "a reply without one."
            )
        picked[one.id] = None if letter is None else one.place(letter)
    return [tuple(picked[one.id] for one in of_item) for of_item in asked]
