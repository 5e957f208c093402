"""Which questions to drop so that a blind model is left with its luck.

Dropping everything that is flagged would be wrong: what luck flags is right by luck, and without it the model would be
wrong in every question in which it is settled, so that the opposite guess would be right. So only groups with more
than luck lose questions, and only the excess: those flagged by most models first, then by lot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cambrian_data.cvbench.audit.blind import LEVELS, BlindResult, Guess, groups
from cambrian_data.cvbench.audit.chance import hits
from cambrian_data.cvbench.lots import lot


class Drop(NamedTuple):
    """A question to drop, and why."""

    idx: int
    reason: str


def to_drop(
    guesses: Mapping[str, Sequence[Guess]], results: Mapping[str, Sequence[BlindResult]], alpha: float, seed: int
) -> list[Drop]:
    """The excess of every group in which a test found one, small groups first, by rising idx.

    Args:
        guesses: of each model.
        results: of each model, tests corrected.
        alpha: level at which a group that has lost some questions to a smaller one must still show an excess.
        seed: of the lots.
    """
    votes = Counter(guess.item.idx for of_model in guesses.values() for guess in of_model if guess.flagged)
    dropped: dict[int, str] = {}
    for model, of_model in guesses.items():
        members = {(level, name): found for level, name, found in groups(of_model)}
        found = [result for result in results[model] if result.flagged_trial.finds]
        for result in sorted(found, key=lambda one: LEVELS.index(one.level), reverse=True):
            reason = (
                f"blind: {model} is right in every order of the choices ({result.group}: right in {result.flagged} of "
                f"{result.settled} questions in which it always picks the same choice, {result.expected:.1f} by luck)"
            )
            settled = [guess for guess in members[result.level, result.group] if guess.settled]
            left = [guess for guess in settled if guess.item.idx not in dropped]
            if len(left) == len(settled) or is_excessive(left, alpha):
                dropped |= dict.fromkeys(excess_of(left, votes, seed), reason)
    return [Drop(idx, reason) for idx, reason in sorted(dropped.items())]


def is_excessive(settled: Sequence[Guess], alpha: float) -> bool:
    """Whether more of the questions are flagged than luck explains."""
    luck = hits(guess.item.chance for guess in settled)
    return luck.at_least(sum(guess.flagged for guess in settled)) <= alpha


def excess_of(settled: Sequence[Guess], votes: Mapping[int, int], seed: int) -> list[int]:
    """The flagged questions without which no more are flagged than luck flags on average."""
    flagged = sorted(
        (guess for guess in settled if guess.flagged),
        key=lambda guess: (-votes[guess.item.idx], lot(seed, "drop", guess.item.idx)),
    )
    expected = sum(guess.item.chance for guess in settled)
    found: list[int] = []
    for guess in flagged:
        if len(flagged) - len(found) <= expected:
            break
        found.append(guess.item.idx)
        expected -= guess.item.chance
    return found
