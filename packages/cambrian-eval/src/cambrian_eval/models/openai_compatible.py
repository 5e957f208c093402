"""`openai:BASE_URL#MODEL`: any server that answers OpenAI's `/chat/completions`.

The key, if the server wants one, is read from the environment variable OPENAI_API_KEY and written nowhere. Decoding is
greedy (temperature 0 is always sent); what the server does with it is its own affair, so two runs may differ.
"""

from __future__ import annotations

import hashlib
import json
import math
from string import ascii_uppercase
from typing import TYPE_CHECKING

from cambrian_eval.endpoint.address import Address
from cambrian_eval.endpoint.client import CONCURRENCY, ChatClient
from cambrian_eval.endpoint.wire import TEMPERATURE, ChatRequest
from cambrian_eval.errors import ModelError
from cambrian_eval.types import Answer, Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian_eval.endpoint.wire import ChatReply
    from cambrian_eval.types import Prompt

LEAST_LEFT = 1e-12  # of the probability, where rounding leaves nothing to tokens that were not told
TOP_LOGPROBS = 20  # the most that the servers in use give


class OpenAICompatible:
    """A model behind an endpoint.

    Args:
        client: Asks it.

    Attributes:
        client: Its `usage` says what was asked, and `system_fingerprints` what the server called itself.
        batch_size: As many prompts as may be under way at once.
    """

    batch_size = CONCURRENCY

    def __init__(self, client: ChatClient) -> None:
        self.client = client
        self.name = f"openai:{client.address.name}"
        decode = json.dumps({"temperature": TEMPERATURE, "url": client.address.base_url, "model": client.address.model})
        self.fingerprint = f"openai:{hashlib.sha256(decode.encode()).hexdigest()}"

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer | Failure]:
        """One reply for each prompt, in order; a Failure where the endpoint gave none.

        Raises:
            ModelError: The endpoint refuses the key, the address or the model.
            DataError: A picture cannot be decoded.
        """
        replies = self.client.complete([ChatRequest(prompt.content, prompt.max_new_tokens) for prompt in prompts])
        return [reply if isinstance(reply, Failure) else _answer(reply) for reply in replies]

    def choose(self, prompts: Sequence[Prompt]) -> list[Answer | Failure]:
        """The likeliest offered letter as the first token of a reply, with the log-probability of each.

        A server tells the likeliest tokens only. The letters that are not among them share the probability that those
        leave, each with at most that of the least likely token told, which it cannot exceed.

        Raises:
            ModelError: A prompt offers no choices, or the endpoint gives no log-probabilities.
            DataError: A picture cannot be decoded.
        """
        for prompt in prompts:
            if not prompt.choices:
                raise ModelError(f"{self.name}: question {prompt.id} offers no choices; ask it with scoring generate.")
        asked = [ChatRequest(prompt.content, 1, top_logprobs=TOP_LOGPROBS) for prompt in prompts]
        replies = self.client.complete(asked)
        return [
            reply if isinstance(reply, Failure) else self._choose(prompt, reply)
            for prompt, reply in zip(prompts, replies, strict=True)
        ]

    def _choose(self, prompt: Prompt, reply: ChatReply) -> Answer | Failure:
        if reply.top_logprobs is None:
            raise ModelError(
                f"{self.name}: the endpoint gives no log-probabilities (logprobs, top_logprobs); use scoring generate."
            )
        letters = ascii_uppercase[: len(prompt.choices)]
        found = {letter: _logprob(letter, reply.top_logprobs) for letter in letters}
        if all(level is None for level in found.values()):
            told = ", ".join(repr(token) for token, _ in reply.top_logprobs[:5])
            return Failure(f"none of the offered letters is among the likeliest first tokens ({told}, ...)")
        untold = _untold(reply.top_logprobs, sum(level is None for level in found.values()))
        scores = tuple(untold if level is None else level for level in found.values())
        best = max((level, letter) for letter, level in found.items() if level is not None)[0]
        text = next(letter for letter in letters if found[letter] == best)
        return Answer(text, image_tokens=reply.image_tokens, reply_tokens=reply.reply_tokens, option_scores=scores)


def load(argument: str) -> OpenAICompatible:
    """`openai:BASE_URL#MODEL`.

    Raises:
        ModelError: The argument has another form.
    """
    return OpenAICompatible(ChatClient(Address.parse(argument)))


def _answer(reply: ChatReply) -> Answer:
    return Answer(reply.text.strip(), reply.truncated, reply.image_tokens, reply.reply_tokens)


def _logprob(letter: str, told: Sequence[tuple[str, float]]) -> float | None:
    """Log of the summed probability of all tokens that say the letter: "A", " A", "(A"; None if none was told."""
    levels = [level for token, level in told if token.strip().lstrip("(") == letter]
    if not levels:
        return None
    highest = max(levels)
    return highest + math.log(math.fsum(math.exp(level - highest) for level in levels))


def _untold(told: Sequence[tuple[str, float]], num_letters: int) -> float:
    """Log-probability of each of so many letters that were not told."""
    left = max(1 - math.fsum(math.exp(level) for _, level in told), LEAST_LEFT)
    return min(min(level for _, level in told), math.log(left / max(num_letters, 1)))
