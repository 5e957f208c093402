"""Models that do not look: what any result has to beat."""

from __future__ import annotations

import hashlib
from string import ascii_uppercase
from typing import TYPE_CHECKING

from cambrian_eval.errors import ModelError
from cambrian_eval.types import Answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian_eval.types import Prompt


class RandomLetter:
    """A uniform letter from the offered ones, a pure function of seed and question id: batches do not change it."""

    def __init__(self, seed: int = 0) -> None:
        self.name = f"random:{seed}"
        self.fingerprint = self.name
        self._seed = seed

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """One letter for each prompt."""
        return [Answer(self._letter(prompt)) for prompt in prompts]

    def _letter(self, prompt: Prompt) -> str:
        if not prompt.choices:
            raise ModelError(f"{self.name}: question {prompt.id} offers no choices; a random letter needs some.")
        digest = hashlib.sha256(f"{self._seed}:{prompt.id}".encode()).digest()
        return ascii_uppercase[int.from_bytes(digest[:8], "big") % len(prompt.choices)]


class ConstantLetter:
    """The same letter for every question, offered or not."""

    def __init__(self, letter: str = "A") -> None:
        if len(letter) != 1 or letter not in ascii_uppercase:
            raise ModelError(f'constant: found "{letter}", expected one letter from A to Z, as in constant:B.')
        self.name = f"constant:{letter}"
        self.fingerprint = self.name
        self._letter = letter

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """The letter, once for each prompt."""
        return [Answer(self._letter) for _ in prompts]


def load_random(argument: str) -> RandomLetter:
    """`random` or `random:SEED`.

    Raises:
        ModelError: The seed is not a whole number.
    """
    try:
        return RandomLetter(int(argument or "0"))
    except ValueError as error:
        raise ModelError(f'random: found seed "{argument}", expected a whole number, as in random:7.') from error


def load_constant(argument: str) -> ConstantLetter:
    """`constant` (A) or `constant:LETTER`."""
    return ConstantLetter(argument or "A")
