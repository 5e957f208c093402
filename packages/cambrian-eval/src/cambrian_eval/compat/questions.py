"""From our questions back to the rows that other tools read: truths and columns as their files write them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from string import ascii_uppercase
from typing import Any, NamedTuple

from cambrian_eval.compat.options import EMPTY
from cambrian_eval.compat.text import HANDWRITTEN
from cambrian_eval.errors import DataError
from cambrian_eval.prompts import options
from cambrian_eval.types import Question


class Key(NamedTuple):
    """What a tool compares a reply with: the benchmark's name, the truth, and columns of the row."""

    benchmark: str
    truth: Any
    row: dict[str, Any]


_CVBENCH_SOURCES = {"ADE20K": "ade", "COCO": "coco", "Omni3D": "omni"}
_CVBENCH_PARTS = {"2D": "coco", "3D": "omni"}  # by which the pictures of other collections go


def _cvbench(question: Question) -> Key:
    part = _CVBENCH_SOURCES.get(question.source, _CVBENCH_PARTS[question.part])
    return Key(part, f"({question.answers[0]})", {"options": list(question.choices)})


def _mmvp(question: Question) -> Key:
    return Key("mmvp", f"({question.answers[0]})", {"text_options": list(question.choices)})


def _ai2d(question: Question) -> Key:
    return Key("ai2d", str(ascii_uppercase.index(question.answers[0])), {})


def _blink(question: Question) -> Key:
    return Key("blink", f"({question.answers[0]})", {})


def _scienceqa(question: Question) -> Key:
    right = question.choices[ascii_uppercase.index(question.answers[0])]
    return Key("scienceqa", question.answers[0], {"text_answer": right})


def _mmmu(question: Question) -> Key:
    return Key("mmmu", question.answers[0], {"type": "multiple-choice" if question.choices else "open"})


def _mathvista(question: Question) -> Key:
    return Key("mathvista", question.answers[0], {"type": "multi_choice" if question.choices else "free_form"})


def _ocrbench(question: Question) -> Key:
    category = HANDWRITTEN if question.details.get("formula") else question.task
    return Key("ocrbench", list(question.answers), {"category": category})


def _first(benchmark: str, question: Question) -> Key:
    """For benchmarks with one accepted answer, written as ours is."""
    return Key(benchmark, question.answers[0], {})


def _all(benchmark: str, question: Question) -> Key:
    """For benchmarks with the answers of several people."""
    return Key(benchmark, list(question.answers), {})


_WITH_ONE_ANSWER = ("seed", "vstar", "mmstar", "qbench", "pope", "realworldqa", "gqa", "mme", "chartqa")

ToKey = Callable[[Question], Key]

KEYS: dict[str, ToKey] = {
    **dict.fromkeys(("cvbench", "cvbench-2d", "cvbench-3d"), _cvbench),
    "mmvp": _mmvp,
    "mmbench-en": partial(_first, "mmbench_en"),
    "mmbench-cn": partial(_first, "mmbench_cn"),
    "ai2d": _ai2d,
    "blink": _blink,
    "scienceqa": _scienceqa,
    "mmmu": _mmmu,
    "mathvista": _mathvista,
    "ocrbench": _ocrbench,
    **{name: partial(_first, name) for name in _WITH_ONE_ANSWER},
    **{name: partial(_all, name) for name in ("textvqa", "vizwiz")},
}
"""By the name of our task: what the reference compares a reply with. The question must have an answer."""


def asked(question: Question) -> str:
    """The question's text without the options that our tasks put below it.

    Raises:
        DataError: Its options do not stand there.
    """
    listed = f" Options:\n{options(question.choices)}"
    if not question.text.endswith(listed):
        raise DataError(
            f"question {question.id}: found the text {question.text[-80:]!r}, expected it to end with its options, so "
            "that another tool's form can be made of it."
        )
    return question.text.removesuffix(listed)


def cvbench_row(question: Question) -> dict[str, Any]:
    """The columns of CV-Bench."""
    return {"prompt": question.text, "choices": list(question.choices)}


def mmvp_row(question: Question) -> dict[str, Any]:
    """The columns of MMVP, options cut already."""
    return {"question": asked(question), "options": list(question.choices)}


def mmbench_row(question: Question, *, empty: str | None) -> dict[str, Any]:
    """The columns of MMBench.

    Args:
        question: Ours.
        empty: What stands in columns of options that the question does not have.
    """
    whole, plain = asked(question), question.details["asked"]
    hint = whole.removesuffix(plain).removesuffix("\n") or None
    cells = [*question.choices, *[empty] * (4 - len(question.choices))]
    return {"question": plain, "hint": hint, **dict(zip("ABCD", cells, strict=True))}


def mmbench_row_of_hub(question: Question) -> dict[str, Any]:
    """The columns of the hub's MMBench, whose empty cells hold the text "nan"."""
    return mmbench_row(question, empty=EMPTY)


def mmbench_row_of_table(question: Question) -> dict[str, Any]:
    """The columns of VLMEvalKit's own table, whose empty cells are null."""
    return mmbench_row(question, empty=None)


def mmmu_row(question: Question) -> dict[str, Any]:
    """The columns of MMMU; options are one text, a list as Python writes it."""
    return {
        "question": asked(question) if question.choices else question.text,
        "question_type": "multiple-choice" if question.choices else "open",
        "options": repr(list(question.choices)),
        "image_1": question.pictures[0] if question.pictures else None,
    }
