"""VLMEvalKit's prompts and parser for CV-Bench, MMVP and MMBench.

Not reproduced: where the parser finds nothing the tool asks a GPT judge three times and then picks an option at
random, without a seed; ours abstains there. An existing file of scores is never returned in place of scoring.

Source: open-compass/VLMEvalKit, commit e8e78f0, vlmeval/utils/matching_util.py, vlmeval/dataset/image_mcq.py and
vlmeval/dataset/utils/multiple_choice.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cambrian_eval.compat.options import letter_of, options_of
from cambrian_eval.compat.rule import Rule, scored
from cambrian_eval.scoring.abstention import AbstainError
from cambrian_eval.types import Score

MAX_NEW_TOKENS = 2048
"""What its adapter of Cambrian allows, whatever the task."""

_FAILURE = "Failed to obtain answer via API"
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_REFUSED = "Z"
_SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_REACH = 4  # words from the end
_ANNOUNCED = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)
_LONGEST = 2  # times the length of all options


def _choice(answer: str, truth: str, row: Mapping[str, Any]) -> Score:
    options = options_of(row, "vlmevalkit")
    letter, rule = _read(answer, options)
    if letter == _REFUSED and _REFUSED not in options:
        raise AbstainError("VLMEvalKit reads Z, its letter for a refusal")
    return scored(letter == letter_of(truth), letter, rule)


def _read(answer: str, options: Mapping[str, str]) -> tuple[str, str]:
    if _FAILURE not in answer:
        if any(refusal in answer for refusal in _REFUSALS):
            return _REFUSED, "refusal"
        words = answer.translate(_SEPARATORS).split()
        alone = [letter for letter in options if letter in words]
        if len(alone) == 1 and words.index(alone[0]) >= len(words) - _REACH:
            return alone[0], "letter as one of the last four words"
        if not alone and _REFUSED in words:
            return _REFUSED, "refusal"
        match = _ANNOUNCED.search(answer)
        if match and match[1].upper() in options:
            return match[1].upper(), "letter after 'answer is'"
    return _mentioned(answer.lower(), options), "only option mentioned"


def _mentioned(answer: str, options: Mapping[str, str]) -> str:
    named = [letter for letter, text in options.items() if str(text).lower() in answer]
    too_long = len(answer) > _LONGEST * sum(len(str(text)) for text in options.values())
    if too_long or len(named) != 1:
        raise AbstainError("VLMEvalKit asks a GPT judge, and picks an option at random where that fails")
    return named[0]


RULES: dict[str, Rule] = dict.fromkeys(("cvbench", "coco", "ade", "omni", "mmvp", "mmbench_en", "mmbench_cn"), _choice)


def cvbench_prompt(row: Mapping[str, Any]) -> str:
    """The published prompt, and nothing that asks for a letter."""
    return row["prompt"]


def choice_prompt(row: Mapping[str, Any]) -> str:
    """Hint, question, options and a request, each on a line; English whatever the question's language."""
    hint = row.get("hint")
    options = options_of(row, "vlmevalkit")
    lines = [
        *([] if hint is None else [f"Hint: {hint}"]),
        f"Question: {row['question']}",
        "Options:",
        *(f"{letter}. {text}" for letter, text in options.items()),
        "Please select the correct answer from the options above. ",
    ]
    return "\n".join(lines) + "\n"


PROMPTS = {"cvbench": cvbench_prompt, **dict.fromkeys(("mmvp", "mmbench_en", "mmbench_cn"), choice_prompt)}
