"""The original evaluation scripts of Cambrian-1: what they make of one reply.

Source: cambrian-mllm/cambrian, commit 539ffc3, eval/eval; checked against what those scripts returned, row by row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian_eval.compat.letters import LETTERS
from cambrian_eval.compat.numbers import NUMBERS
from cambrian_eval.compat.text import TEXT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cambrian_eval.compat.rule import Rule
    from cambrian_eval.types import Score


def _typed(benchmark: str, kind: str) -> Rule:
    """A benchmark's rule for questions of one type."""

    def rule(answer: str, truth: Any, _row: Mapping[str, Any]) -> Score:
        return NUMBERS[benchmark](answer, truth, {"type": kind})

    return rule


RULES: dict[str, Rule] = {
    **LETTERS,
    **NUMBERS,
    **TEXT,
    "mathvista_free_form": _typed("mathvista", "free_form"),
    "mathvista_multiple-choice_label": _typed("mathvista", "multiple-choice"),
    "mmmu_open": _typed("mmmu", "open"),
    "vizwiz_end_to_end": TEXT["vizwiz"],
}
"""By the benchmark's name; the last four are single branches of a benchmark's rule under names of their own."""
