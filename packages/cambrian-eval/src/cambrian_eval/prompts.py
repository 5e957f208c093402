"""The form that every benchmark's prompt takes: pictures, question, a new line, the format instruction.

Source: the reference's evaluation scripts, which put "<image>" and a new line in front and the instruction behind.
"""

from __future__ import annotations

from string import ascii_uppercase
from typing import TYPE_CHECKING, Literal

from cambrian_eval.types import Prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian_eval.types import Question

OptionStyle = Literal["A. x", "(A) x"]
"""How an option is written, shown on its first one."""


def ask(question: Question, instruction: str, max_new_tokens: int, *, text: str | None = None) -> Prompt:
    """The prompt of a question: its pictures, its text, and from a new line on the instruction.

    Args:
        question: What is asked.
        instruction: The format instruction; empty for benchmarks that have none.
        max_new_tokens: The budget of the reply.
        text: What stands between pictures and instruction, where it is more than the question's own text.
    """
    asked = question.text if text is None else text
    shown = f"{asked}\n{instruction}" if instruction else asked
    return Prompt(question.id, (*question.pictures, shown), question.choices, max_new_tokens, instruction)


def options(choices: Sequence[str], style: OptionStyle = "A. x") -> str:
    """The options, one a line, each with its letter."""
    before, after = ("(", ")") if style == "(A) x" else ("", ".")
    return "\n".join(
        f"{before}{letter}{after} {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False)
    )
