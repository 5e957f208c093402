"""What the reference's scripts make of a whole file of answers, their pair rules and counting mistakes included.

Rows hold `answer` (MMBench: `prediction`), `gt_answer`, `model_id` and what the benchmark's rule needs. Shares and
percentages are mixed as the scripts mix them, and "accurcay" is how two of them spell it. Where a script divides by
zero, the number is None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from cambrian_eval.compat.m4c import plain_sum
from cambrian_eval.compat.rule import needed
from cambrian_eval.compat.text import edit_distance
from cambrian_eval.errors import DataError
from cambrian_eval.scoring.edit_distance import LIMITS
from cambrian_eval.tasks import mme, seed
from cambrian_eval.types import Score

Rows = Sequence[Mapping[str, Any]]
ScoreRow = Callable[[Mapping[str, Any]], Score]
"""Scores one row of a file with the benchmark's rule."""

Aggregate = Callable[[Rows, ScoreRow], dict[str, Any]]

_MME_PART_OF = {category: part for part, categories in mme.SUBTASKS.items() for category in categories}
_NOT_SCORED = "add here after submission"


def _category(row: Mapping[str, Any]) -> str:
    return row.get("category", "")


def _seed_category(row: Mapping[str, Any]) -> str:
    number = needed(row, "category", "seed")
    if number not in range(1, len(seed.ABILITIES) + 1):
        raise DataError(f"seed: found category {number!r}, expected a number from 1 to {len(seed.ABILITIES)}.")
    return seed.ABILITIES[number - 1]


def _qbench_category(row: Mapping[str, Any]) -> str:
    return {0: "Yes/No", 1: "What"}.get(_number(row, "type", "qbench"), "How")


def _by_category(
    rows: Rows,
    score: ScoreRow,
    *,
    category: Callable[[Mapping[str, Any]], str] = _category,
    key: str = "accuracy",
) -> dict[str, Any]:
    """Shares of right answers, overall and by category."""
    counts: dict[str, list[int]] = {}
    for row in rows:
        _count(counts, category(row), score(row).value == 1)
    return {**_overall(counts), **{name: {key: _share(*count), "total": count[1]} for name, count in counts.items()}}


def _scienceqa(rows: Rows, score: ScoreRow) -> dict[str, Any]:
    """Rows with a picture are counted twice in the overall accuracy, once under their category and once as such."""
    counts: dict[str, list[int]] = {"is_multimodal": [0, 0]}
    for row in rows:
        right = score(row).value == 1
        _count(counts, _category(row), right)
        if row.get("type", False):
            _count(counts, "is_multimodal", right)
    parts = {name: {"accuracy": _share(*count), "total": count[1]} for name, count in counts.items()}
    return {"multimodal_acc": parts["is_multimodal"]["accuracy"], **_overall(counts), **parts}


def _percent(rows: Rows, score: ScoreRow) -> dict[str, Any]:
    """The percentage of right answers."""
    correct = sum(score(row).value == 1 for row in rows)
    return {"total": len(rows), "correct": correct, "accuracy": 100.0 * correct / len(rows)}


def _mmvp(rows: Rows, score: ScoreRow) -> dict[str, Any]:
    """Pairs by line number; a running counter stands in for them, and an unpaired last hit still counts."""
    correct = 0
    for index, row in enumerate(rows):
        correct = _pair_step(correct, index, score(row).value == 1)
    return {"total": len(rows), "correct": correct, "accuracy": 100.0 * correct / len(rows)}


def _mme(rows: Rows, score: ScoreRow) -> dict[str, Any]:
    """Accuracy and accuracy of pairs by category; pairs go by the line number of the whole file."""
    hits: dict[str, list[int]] = {}
    paired: dict[str, int] = {}
    for index, row in enumerate(rows):
        category, right = _category(row), score(row).value == 1
        if category not in _MME_PART_OF:
            raise DataError(f"mme: found category {category!r}; expected one of {', '.join(_MME_PART_OF)}.")
        _count(hits, category, right)
        paired[category] = _pair_step(paired.get(category, 0), index, right)
    scores = {category: _mme_score(count[0], count[1], paired[category]) for category, count in hits.items()}
    num_right, total = (sum(count[i] for count in hits.values()) for i in (0, 1))
    result = {
        "total_score": plain_sum([one["score"] for one in scores.values()]),
        "accuracy": 100.0 * (num_right / total),
    }
    for part in mme.SUBTASKS:
        result[part] = plain_sum([one["score"] for name, one in scores.items() if _MME_PART_OF[name] == part])
    return {**result, **scores}


def _mme_score(right: int, total: int, paired: int) -> dict[str, float]:
    single, pair = right / total, paired / total
    return {
        "acc_score": 100.0 * single,
        "acc_plus_score": 100.0 * pair,
        "score": 100.0 * (single + pair),
        "size": total,
    }


def _pair_step(correct: int, index: int, right: bool) -> int:
    """On even lines a hit counts up; on odd lines a hit counts only beside one, and a miss takes that one back."""
    if index % 2 == 0:
        return correct + right
    if correct % 2 == 0:
        return correct
    return correct + 1 if right else correct - 1


def _mmbench(rows: Rows, score: ScoreRow, *, name: str) -> dict[str, Any]:
    """Accuracy and circular accuracy; circles are closed within a category. Rows without a truth are submitted only.

    The Chinese script submits the letter that it read, the English one the reply as it came.
    """
    counts: dict[str, list[int]] = {}
    circles: dict[str, dict[Any, bool]] = {}
    submitted = []
    for row in rows:
        found = score({**row, "gt_answer": row.get("gt_answer") or ""})
        submitted.append({**row, "prediction": found.extracted or ""} if name == "mmbench_cn" else dict(row))
        counts.setdefault(_category(row), [0, 0])
        circle = circles.setdefault(_category(row), {})
        if not row.get("gt_answer"):
            continue
        _count(counts, _category(row), found.value == 1)
        source = row.get("source_id", "")
        circle[source] = circle.get(source, True) and found.value == 1
    whole, number = (sum(map(size, circles.values())) for size in (_whole, len))
    parts = {
        part: {
            "accurcay": _share(*counts[part]),
            "total": counts[part][1],
            "circular_accuracy": _share(_whole(circle), len(circle)),
            "circular_count": len(circle),
        }
        for part, circle in circles.items()
    }
    return {
        **_overall(counts),
        "circular_accuracy": _share(whole, number),
        "circular_count": number,
        **parts,
        "submission_files": {f"{_model(rows)}_{name}_submission.xlsx": submitted},
    }


def _whole(circle: Mapping[Any, bool]) -> int:
    return sum(circle.values())


def _ocrbench(rows: Rows, score: ScoreRow) -> dict[str, Any]:
    counts: dict[str, list[int]] = {}
    for row in rows:
        _count(counts, _category(row), score(row).value == 1)
    total = [sum(count[i] for count in counts.values()) for i in (0, 1)]
    return {
        name: {"accuracy": 100.0 * (right / number), "total": number}
        for name, (right, number) in {**counts, "total_accuracy": total}.items()
    }


def _synthdog(rows: Rows, _score: ScoreRow) -> dict[str, Any]:
    """Shares within so many edits; a distance in place of a score."""
    distances = [
        edit_distance(row.get("answer", "").lower().strip(), needed(row, "gt_answer", "synthdog").lower().strip())
        for row in rows
    ]
    return {
        f"accuracy_edit_distance_{limit}": {
            "accuracy": 100.0 * (sum(distance <= limit for distance in distances) / len(rows)),
            "total": len(rows),
        }
        for limit in LIMITS
    }


def _textvqa(rows: Rows, score: ScoreRow) -> dict[str, Any]:
    values = [score(row).value or 0.0 for row in rows]
    return {"accuracy": 100.0 * (plain_sum(values) / len(values))}


def _vizwiz(rows: Rows, score: ScoreRow) -> dict[str, Any]:
    """Rows of the validation split are scored, all others submitted, in lower case."""
    scored = [row for row in rows if _category(row) == "val"]
    submitted = [
        {"image": row.get("image_id", ""), "answer": row.get("answer", "").lower()}
        for row in rows
        if _category(row) != "val"
    ]
    accuracy = _textvqa(scored, score)["accuracy"] if scored else None
    return {"accuracy": accuracy, "submission_files": {f"{_model(rows)}_vizwiz_submission.json": submitted}}


def _submission(rows: Rows, _score: ScoreRow, *, name: str, key: str) -> dict[str, Any]:
    """Nothing is scored; the replies go to a server as they came."""
    submitted = [{key: _number(row, key, name), "answer": row.get("answer", "")} for row in rows]
    return {"accuracy": _NOT_SCORED, "submission_files": {f"{_model(rows)}_{name}_submission.json": submitted}}


def _mmvet(rows: Rows, _score: ScoreRow) -> dict[str, Any]:
    submitted = {str(needed(row, "question_id", "mmvet")): row.get("answer", "") for row in rows}
    return {"accuracy": _NOT_SCORED, "submission_files": {f"{_model(rows)}_mmvet_submission.json": submitted}}


def _number(row: Mapping[str, Any], column: str, benchmark: str) -> int:
    value = needed(row, column, benchmark)
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{benchmark}: found {column} {value!r}, expected a whole number.") from error


def _model(rows: Rows) -> str:
    return rows[-1].get("model_id", "")


def _count(counts: dict[str, list[int]], name: str, right: bool) -> None:
    count = counts.setdefault(name, [0, 0])
    count[0] += right
    count[1] += 1


def _overall(counts: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    right, total = (sum(count[i] for count in counts.values()) for i in (0, 1))
    return {"accuracy": _share(right, total), "total_count": total}


def _share(right: int, total: int) -> float | None:
    return right / total if total else None


AGGREGATES: dict[str, Aggregate] = {
    "coco": _by_category,
    "ade": _by_category,
    "omni": _by_category,
    "blink": _by_category,
    "mmmu": _by_category,
    "seed": partial(_by_category, category=_seed_category, key="accurcay"),
    "qbench": partial(_by_category, category=_qbench_category),
    "mathvista": partial(_by_category, key="accurcay"),
    "scienceqa": _scienceqa,
    **dict.fromkeys(("vstar", "ai2d", "gqa", "chartqa", "pope", "realworldqa", "mmstar"), _percent),
    "mmvp": _mmvp,
    "mme": _mme,
    "mmbench_en": partial(_mmbench, name="mmbench_en"),
    "mmbench_cn": partial(_mmbench, name="mmbench_cn"),
    "ocrbench": _ocrbench,
    "synthdog": _synthdog,
    "textvqa": _textvqa,
    "vizwiz": _vizwiz,
    "docvqa": partial(_submission, name="docvqa", key="questionId"),
    "infovqa": partial(_submission, name="infovqa", key="questionId"),
    "stvqa": partial(_submission, name="stvqa", key="question_id"),
    "mmvet": _mmvet,
}


def aggregate_rows(aggregate: Aggregate, rows: Rows, score: ScoreRow) -> dict[str, Any]:
    """Put the model's name in front of what a script says about a file.

    Raises:
        DataError: There are no rows.
    """
    if not rows:
        raise DataError("found a file without answers; expected at least one row.")
    return {"model": _model(rows), **aggregate(rows, score)}
