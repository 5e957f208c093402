"""The same question with its format instruction, with one to think first, or with none.

A benchmark's own instruction is the `direct` form: published scores are made with it. Reasoning ends with a line that
names the answer, and only that line is read where the answer is a text; letters are found by their own rule.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from cambrian_eval.errors import DataError
from cambrian_eval.scoring.abstention import AbstainError
from cambrian_eval.scoring.unwrapping import unwrap_transcript
from cambrian_eval.types import Score

if TYPE_CHECKING:
    from collections.abc import Callable

    from cambrian_eval.types import Prompt, PromptForm, Question

THINK_LETTER = (
    'Think step by step. Then end with a line of the form "Answer: X", where X is the letter of the right option.'
)
THINK_TEXT = 'Think step by step. Then end with a line of the form "Answer: X", where X is the answer and nothing else.'
MAX_THINKING_TOKENS = 1024

_ANSWER_LINE = re.compile(r"^[ \t*_#>]{0,9}answer[ \t*_]{0,9}[::][ \t*_]{0,9}(?=\S)", re.IGNORECASE | re.MULTILINE)


def put(prompt: Prompt, form: PromptForm) -> Prompt:
    """The prompt in another form.

    Raises:
        DataError: An unknown form, or a prompt that does not end with what it names as its instruction.
    """
    if form == "direct":
        return prompt
    if form == "bare":
        return _end_with(prompt, "")
    if form == "cot":
        thinking = _end_with(prompt, THINK_LETTER if prompt.choices else THINK_TEXT)
        return dataclasses.replace(thinking, max_new_tokens=max(prompt.max_new_tokens, MAX_THINKING_TOKENS))
    raise DataError(f'found prompt form "{form}", expected direct, cot or bare.')


def score_reply(score: Callable[[Question, str], Score], form: PromptForm, question: Question, reply: str) -> Score:
    """How a reply to a prompt of this form is read: of reasoning about an open question, its answer line alone."""
    if form != "cot" or question.choices:
        return score(question, reply)
    try:
        answer = answer_line(unwrap_transcript(reply))
    except AbstainError as reason:
        return Score(_nothing(question), None, f"abstain: {reason}")
    if answer is None:
        return Score(_nothing(question), None, "abstain: no answer line")
    read = score(question, answer)
    return dataclasses.replace(read, rule=f"answer line, {read.rule}")


def _nothing(question: Question) -> float | None:
    return 0.0 if question.answers else None


def answer_line(reply: str) -> str | None:
    """What stands after the last "Answer:" that begins a line, to the end of that line; None if there is none."""
    matches = list(_ANSWER_LINE.finditer(reply))
    if not matches:
        return None
    return reply[matches[-1].end() :].split("\n", 1)[0].strip(" \t\r*_")


def _end_with(prompt: Prompt, instruction: str) -> Prompt:
    last = prompt.content[-1] if prompt.content else ""
    if not isinstance(last, str) or not last.endswith(prompt.instruction):
        raise DataError(
            f"question {prompt.id}: its prompt does not end with its instruction ({prompt.instruction!r}), so no other "
            "can take its place. Ask it in the direct form."
        )
    text = last.removesuffix(prompt.instruction).removesuffix("\n") if prompt.instruction else last
    ended = f"{text}\n{instruction}" if instruction else text
    return dataclasses.replace(prompt, content=(*prompt.content[:-1], ended), instruction=instruction)
