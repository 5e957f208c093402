"""lmms-eval's prompts and parsers for CV-Bench, MMVP and MMBench.

Not reproduced: model adapters, which may cut a reply at the first blank line where a task names no other stop string
(CV-Bench and MMVP do not). MMBench's published score asks a GPT judge where its two rules find nothing; ours abstains
there, and does not fall back on the random letter that follows when the judge fails.

Source: EvolvingLMMs-Lab/lmms-eval 0.7.2, commit 75571cf, lmms_eval/tasks/{cv_bench,mmvp,mmbench}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cambrian_eval.compat.options import EMPTY, letter_of, options_of
from cambrian_eval.compat.rule import Rule, scored
from cambrian_eval.scoring.abstention import AbstainError
from cambrian_eval.suffixes import LETTER
from cambrian_eval.types import Score

_FAILURE = "Failed to obtain answer via API"
_OPENING = re.compile(r"[(\s]*([A-Z])", re.IGNORECASE)


def _cvbench(answer: str, truth: str, _row: Mapping[str, Any]) -> Score:
    """The first letter of the reply, whatever it belongs to: "The answer is (B)" is T."""
    match = _OPENING.match(answer.strip())
    if match is None:
        raise AbstainError("no letter at the start")
    letter = match[1].upper()
    return scored(letter == truth.strip("()"), letter, "first letter")


# Tried in turn, anywhere in the reply but the first two. The last one finds the end of any word: "camera " is A.
_MMVP_FORMS = tuple(
    (re.compile(pattern, re.IGNORECASE), rule)
    for pattern, rule in (
        (r"\A\s*\(?([AB])\)?\.?\s*\Z", "letter alone"),
        (r"\A\s*\(?([AB])\)?[.\s]", "letter at the start"),
        (r"answer\s+is\s+\(?([AB])", "letter after 'answer is'"),
        (r"option\s+\(?([AB])", "letter after 'option'"),
        (r"([AB])\)?(?:\s|\Z)", "letter at the end of a word"),
        (r"\A([AB])", "first character"),
    )
)


def _mmvp(answer: str, truth: str, _row: Mapping[str, Any]) -> Score:
    for form, rule in _MMVP_FORMS:
        match = form.search(answer.strip())
        if match:
            letter = match[1].upper()
            return scored(letter == letter_of(truth), letter, rule)
    raise AbstainError("neither A nor B found")


_MMBENCH_LETTERS = "ABCDE"
_MMBENCH_OPTIONS = "ABCD"
_DRESSES = ("{}.", "{},", "{}:", "{})", "{}).", "({})", "({}).", ":{}", ":{},", ":{}.", ":{})", ":{}).")
_ARTICLE_FROM = 4  # words; in a reply so long an A alone is taken for an article


def _mmbench(answer: str, truth: str, row: Mapping[str, Any]) -> Score:
    """A letter as a word of its own, then the only option whose text occurs, "nan" of an empty column included."""
    options = {key: text for key, text in options_of(row, "mmbench").items() if key in _MMBENCH_OPTIONS}
    letter = _letter_word(answer.strip())
    if letter:
        return scored(letter == truth, letter, "letter as a word")
    named = [key for key, text in options.items() if str(text).lower() in answer.strip().lower()]
    if len(named) != 1:
        raise AbstainError("lmms-eval asks a GPT judge, and takes a random letter where that fails")
    return scored(named[0] == truth, named[0], "only option mentioned")


def _letter_word(answer: str) -> str | None:
    if _FAILURE in answer:
        return None
    words = answer.split()
    alone = [letter for letter in _MMBENCH_LETTERS if letter in words]
    if len(alone) == 1 and not (alone == ["A"] and len(words) >= _ARTICLE_FROM):
        return alone[0]
    for dress in _DRESSES:
        dressed = [letter for letter in _MMBENCH_LETTERS if dress.format(letter) in words]
        if len(dressed) == 1:
            return dressed[0]
    return None


RULES: dict[str, Rule] = {
    **dict.fromkeys(("cvbench", "coco", "ade", "omni"), _cvbench),
    "mmvp": _mmvp,
    **dict.fromkeys(("mmbench_en", "mmbench_cn"), _mmbench),
}


# Prompts: the text that follows the picture.

_CN_INSTRUCTION = "请直接使用所提供的选项字母作为答案回答。"
_MMVP_OPTION = re.compile(r"\([a-z]\)\s*([^(]+?)(?=\s*\([a-z]\)|$)", re.IGNORECASE)


def cvbench_prompt(row: Mapping[str, Any]) -> str:
    """A note on the letters, an empty line, the published prompt."""
    letters = ", ".join(options_of(row, "cvbench"))
    note = f"Note: You only need to respond with {letters} without providing any additional information."
    return f"{note}\n\n{row['prompt']}"


def mmvp_prompt(row: Mapping[str, Any]) -> str:
    """Question, options with letters, the instruction."""
    given = row["options"]
    texts = [text.strip() for text in _MMVP_OPTION.findall(given)] if isinstance(given, str) else given
    return "\n".join([row["question"], *_lines(dict(zip("ABCDEFGH", texts, strict=False))), LETTER])


def mmbench_en_prompt(row: Mapping[str, Any]) -> str:
    """Hint and question on one line, options, an empty line, the instruction."""
    return _mmbench_prompt(row, LETTER, hidden_hints=(None, EMPTY))


def mmbench_cn_prompt(row: Mapping[str, Any]) -> str:
    """As the English one, with its English words; a hint that is the text "nan" is shown."""
    return _mmbench_prompt(row, _CN_INSTRUCTION, hidden_hints=(None,))


def _mmbench_prompt(row: Mapping[str, Any], instruction: str, hidden_hints: Sequence[str | None]) -> str:
    hint = row.get("hint")
    hinted = "" if hint in hidden_hints else f"{hint} "
    options = {key: text for key, text in options_of(row, "mmbench").items() if text and text != EMPTY}
    return "\n".join([f"{hinted}{row['question']} There are several options:", *_lines(options), "", instruction])


def _lines(options: Mapping[str, str]) -> list[str]:
    return [f"{letter}. {text}" for letter, text in options.items()]


PROMPTS = {
    "cvbench": cvbench_prompt,
    "mmvp": mmvp_prompt,
    "mmbench_en": mmbench_en_prompt,
    "mmbench_cn": mmbench_cn_prompt,
}
MAX_NEW_TOKENS = {"cvbench": 1024, "mmvp": 16, "mmbench_en": 1024, "mmbench_cn": 256}
