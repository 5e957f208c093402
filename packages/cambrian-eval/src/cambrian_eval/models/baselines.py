"""Models that do not look: what any result has to beat."""

from __future__ import annotations

import hashlib
import re
from string import ascii_uppercase
from typing import TYPE_CHECKING

from cambrian_eval.errors import ModelError
from cambrian_eval.types import Answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian_eval.types import Prompt

# A question that says so, or one that begins with a verb and offers no alternative: "Is there a cat in the image?"
_ASKS_YES_OR_NO = re.compile(
    r"\byes or no\b|\A(is|are|was|were|do|does|did|has|have|had|can|could|will|would|should)\b(?!.*\bor\b).*\?",
    re.IGNORECASE,
)
_YES_NO = ("Yes", "No")


class RandomChoice:
    """A uniform choice among what is offered, a pure function of seed and question id: batches do not change it.

    Offered are the letters of a question's choices; where these are just yes and no, or there are none and the question
    asks for yes or no, those two words. An open question gets an empty reply: there is nothing to choose from, so it
    scores nothing and counts as not parsed.
    """

    answers_by_id = True

    def __init__(self, seed: int = 0) -> None:
        self.name = f"random:{seed}"
        self.fingerprint = self.name
        self._seed = seed

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """One choice for each prompt."""
        return [Answer(self._choice(prompt)) for prompt in prompts]

    def _choice(self, prompt: Prompt) -> str:
        offered = _offered(prompt)
        if not offered:
            return ""
        digest = hashlib.sha256(f"{self._seed}:{prompt.id}".encode()).digest()
        return offered[int.from_bytes(digest[:8], "big") % len(offered)]


class ConstantReply:
    """The same text for every question, whatever it offers."""

    def __init__(self, text: str = "A") -> None:
        self.name = f"constant:{text}"
        self.fingerprint = self.name
        self._text = text

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """The text, once for each prompt."""
        return [Answer(self._text) for _ in prompts]


def load_random(argument: str) -> RandomChoice:
    """`random` or `random:SEED`.

    Raises:
        ModelError: The seed is not a whole number.
    """
    try:
        return RandomChoice(int(argument or "0"))
    except ValueError as error:
        raise ModelError(f'random: found seed "{argument}", expected a whole number, as in random:7.') from error


def load_constant(argument: str) -> ConstantReply:
    """`constant` (A) or `constant:TEXT`: a letter for multiple choice, or a word for open questions."""
    return ConstantReply(argument or "A")


def _offered(prompt: Prompt) -> Sequence[str]:
    words = {choice.strip().rstrip(".").casefold() for choice in prompt.choices}
    if words == {"yes", "no"} and not _shows_letters(prompt):
        return prompt.choices
    if prompt.choices:
        return ascii_uppercase[: len(prompt.choices)]
    return _YES_NO if _ASKS_YES_OR_NO.search(prompt.text) else ()


def _shows_letters(prompt: Prompt) -> bool:
    """Whether the first choice stands in the prompt behind its letter."""
    return re.search(rf"\(?A[.):]\s*{re.escape(prompt.choices[0])}", prompt.text) is not None
