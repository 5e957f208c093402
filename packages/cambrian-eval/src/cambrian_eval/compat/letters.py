"""The reference's multiple-choice scripts: one reading a benchmark, no two alike.

A truth is written as the benchmark's file writes it: `(A)`, `A` or, for AI2D, the option's index.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from cambrian_eval.compat.reply import announced, first_letter, first_word, unbracketed
from cambrian_eval.compat.rule import Rule, needed, scored
from cambrian_eval.errors import DataError
from cambrian_eval.scoring.abstention import AbstainError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cambrian_eval.types import Score

_AI2D_INDEX = {"a": "0", "b": "1", "c": "2", "d": "3"}


def _first_letter(answer: str, truth: str, _row: Mapping[str, Any], *, closing: str) -> Score:
    """MMBench-EN, SEED and V*."""
    letter = first_letter(answer, closing)
    return scored(letter == truth.lower(), letter, "first letter")


def _bracketed_first_letter(answer: str, truth: str, _row: Mapping[str, Any], *, closing: str) -> Score:
    """CV-Bench 2D: COCO and ADE20K."""
    letter = first_letter(answer, closing)
    return scored(letter == _bracketed(truth), letter, "first letter")


def _omni(answer: str, truth: str, row: Mapping[str, Any]) -> Score:
    """CV-Bench 3D; the option's text is compared with a single character, so it hardly ever counts."""
    letter, wanted = first_letter(answer, ".:,"), _bracketed(truth)
    text = _option(needed(row, "options", "omni"), wanted)
    return scored(letter in (wanted, text), letter, "first letter or option text")


def _mmvp(answer: str, truth: str, row: Mapping[str, Any]) -> Score:
    """The whole text after the announcement must be the letter or the option; "b" is also an option called "B"."""
    text, wanted = unbracketed(answer, ".:,"), _bracketed(truth)
    option = _option([option.lower() for option in needed(row, "text_options", "mmvp")], wanted)
    return scored(text in (wanted, option), text, "letter or option text")


def _ai2d(answer: str, truth: str, _row: Mapping[str, Any]) -> Score:
    letter = first_letter(answer, ".:,")
    return scored(_AI2D_INDEX.get(letter, letter) == truth.lower(), letter, "first letter")


def _first_word(answer: str, truth: str, _row: Mapping[str, Any]) -> Score:
    """POPE and MMStar; MMStar also looks for "(A)" in text that it has lower-cased, which is never there."""
    word = first_word(answer.lower()).rstrip(".:,")
    return scored(word == truth.lower(), word, "first word")


def _mmbench_cn(answer: str, truth: str, _row: Mapping[str, Any]) -> Score:
    """As MMStar; what was read is submitted in upper case."""
    word = first_word(answer.lower()).rstrip(".:,")
    return scored(word == truth.lower(), word.upper(), "first word")


def _realworldqa(answer: str, truth: str, _row: Mapping[str, Any]) -> Score:
    """The comma stays: "Yes, it is" reads "yes,"."""
    word = first_word(announced(answer).rstrip("."))
    return scored(word == truth.lower(), word, "first word after the announcement")


def _before_stop(answer: str) -> str:
    return answer.split(".")[0].lower().strip()


def _qbench(answer: str, truth: str, _row: Mapping[str, Any]) -> Score:
    text = _before_stop(answer)
    return scored(text == truth.lower(), text, "text before the first full stop")


def _blink(answer: str, truth: str, _row: Mapping[str, Any]) -> Score:
    word = _before_stop(answer).split(" ")[0].lstrip("(").rstrip(")")
    return scored(word == _bracketed(truth), word, "first word before the first full stop")


def _bracketed(truth: str) -> str:
    """The letter of "(A)", in lower case."""
    if len(truth) < 2:
        raise DataError(f'found the truth {truth!r}, expected a letter in brackets such as "(A)", as the data has it.')
    return truth.lower()[1]


def _option(options: list[str], letter: str) -> str:
    index = ord(letter) - ord("a")
    if not 0 <= index < len(options):
        raise AbstainError(f"the original crashes where the truth {letter!r} is none of {len(options)} options")
    return options[index]


LETTERS: dict[str, Rule] = {
    "coco": partial(_bracketed_first_letter, closing="."),
    "ade": partial(_bracketed_first_letter, closing="."),
    "omni": _omni,
    "mmvp": _mmvp,
    "ai2d": _ai2d,
    "seed": partial(_first_letter, closing="."),
    "vstar": partial(_first_letter, closing="."),
    "mmbench_en": partial(_first_letter, closing=".:,"),
    "mmbench_cn": _mmbench_cn,
    "mmstar": _first_word,
    "pope": _first_word,
    "realworldqa": _realworldqa,
    "qbench": _qbench,
    "blink": _blink,
}
