"""The profiles by name, and what each can do with a benchmark: read a reply, score a file, build a prompt."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from cambrian_eval.compat import lmms_eval, reference, vlmevalkit
from cambrian_eval.compat.aggregates import AGGREGATES, Rows, aggregate_rows
from cambrian_eval.compat.prompts import SETTINGS, Setting
from cambrian_eval.compat.rule import Rule, needed
from cambrian_eval.errors import DataError, UnknownNameError
from cambrian_eval.scoring.abstention import AbstainError
from cambrian_eval.types import Score

PROFILES = ("reference", "lmms-eval", "vlmevalkit")

_RULES: dict[str, dict[str, Rule]] = {
    "reference": reference.RULES,
    "lmms-eval": lmms_eval.RULES,
    "vlmevalkit": vlmevalkit.RULES,
}
_PROMPTS = {"lmms-eval": lmms_eval.PROMPTS, "vlmevalkit": vlmevalkit.PROMPTS}
_REPLY_COLUMN = {"mmbench_en": "prediction", "mmbench_cn": "prediction"}
_WITH_SEVERAL_TRUTHS = (
    "ocrbench",
    "textvqa",
    "vizwiz",
    "vizwiz_end_to_end",
    "m4c_stvqa_accuracy_bundled_but_unused",
    "anls_bundled_evaluator",
)
_COLUMNS_OF_RULES = ("options", "text_options", "type", "text_answer", "category")


def score(profile: str, benchmark: str, answer: str, truth: Any, **row: Any) -> Score:
    """Read one reply as another tool does.

    Args:
        profile: One of `PROFILES`.
        benchmark: The tool's name for it: `coco`, `ade` and `omni` are the parts of CV-Bench.
        answer: The reply.
        truth: As the benchmark's file writes it: "(A)" for CV-Bench, MMVP and BLINK, "A" or a text for others, a list
            where there are several accepted answers.
        row: The columns of the row that the rule looks at, such as `options`.

    Returns:
        The value is the share of the full score, 0 to 1, whatever scale the tool prints. `extracted` is the text that
        the tool compares, even where that is empty; None where it crashes, guesses or asks a judge, and then the rule
        says so.

    Raises:
        UnknownNameError: No such profile, or a benchmark that it does not score.
        DataError: The truth is not written as the benchmark's file writes it, or a column is missing.
    """
    rule = _find(known_profile(profile, _RULES), benchmark, f"{profile} benchmark")
    _check_texts(benchmark, answer, truth)
    try:
        return rule(answer, truth, row)
    except AbstainError as reason:
        return Score(0.0, None, f"abstain: {reason}")


def aggregate(profile: str, benchmark: str, rows: Rows, **options: Any) -> dict[str, Any]:
    """Score a whole file as the reference's script does; other tools' metrics are part of `apply`.

    Args:
        profile: "reference".
        benchmark: Its name for the benchmark.
        rows: The file's rows: reply, truth and the columns that the rule looks at.
        options: The script's own, such as OCRBench's `extra_penalization`.

    Returns:
        What the script appends to its table, without the time, and what it submits, by file name.

    Raises:
        UnknownNameError: No such profile, or a benchmark that it does not score.
        DataError: There are no rows.
    """
    whole = _find(known_profile(profile, {"reference": AGGREGATES}), benchmark, f"{profile} benchmark")
    column = _REPLY_COLUMN.get(benchmark, "answer")

    def score_row(row: Mapping[str, Any]) -> Score:
        columns = {name: row[name] for name in _COLUMNS_OF_RULES if name in row}
        truth = needed(row, "gt_answer", benchmark)
        return score(profile, benchmark, row.get(column, ""), truth, **columns, **options)

    return aggregate_rows(whole, rows, score_row)


def prompt(profile: str, benchmark: str, row: Mapping[str, Any]) -> str:
    """The user's turn that a tool makes of a row of the published data.

    For "reference" it begins with the picture's place, `<image>` and a new line, if the row has a picture. For the
    other two it is the text that follows the picture.

    Raises:
        UnknownNameError: No such profile, or a benchmark that it does not ask.
        DataError: A column is missing.
    """
    if profile == "reference":
        build = setting(benchmark).prompt
    else:
        build = _find(known_profile(profile, _PROMPTS), benchmark, f"{profile} benchmark")
    try:
        return build(row)
    except KeyError as missing:
        raise DataError(
            f"{benchmark}: the row holds {', '.join(map(str, row)) or 'nothing'}; its prompt also needs {missing}."
        ) from missing


def setting(benchmark: str) -> Setting:
    """The reference's settings for a benchmark: instruction, budget, defaults, data sets.

    Raises:
        UnknownNameError: It has no such benchmark.
    """
    return _find(SETTINGS, benchmark, "reference benchmark")


def known_profile(profile: str, table: Mapping[str, Any]) -> Any:
    """What a table by profile holds for one.

    Raises:
        UnknownNameError: No such profile.
        DataError: The table has nothing for it.
    """
    if profile in PROFILES and profile not in table:
        raise DataError(f'found the profile "{profile}"; this is known of {", ".join(table)} only.')
    return _find(table, profile, "compatibility profile")


def _check_texts(benchmark: str, answer: Any, truth: Any) -> None:
    if not isinstance(answer, str):
        raise DataError(f"{benchmark}: found the reply {answer!r}, expected a text.")
    if benchmark in _WITH_SEVERAL_TRUTHS:
        if not isinstance(truth, list | tuple) or not all(isinstance(one, str) for one in truth):
            raise DataError(f"{benchmark}: found the truth {truth!r}, expected a list of texts.")
    elif not isinstance(truth, str):
        raise DataError(f"{benchmark}: found the truth {truth!r}, expected a text.")


def _find(table: Mapping[str, Any], name: str, kind: str) -> Any:
    if name not in table:
        raise UnknownNameError(f'unknown {kind} "{name}"; {_hint(name, table)}')
    return table[name]


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f'did you mean "{close[0]}"?' if close else f"known: {', '.join(known)}."
