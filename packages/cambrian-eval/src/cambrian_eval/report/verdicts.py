"""What judges have said of a run's answers, read from its `judge.jsonl`: no judge is asked."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from cambrian_eval.errors import EvalError
from cambrian_eval.judge import VERDICTS, Judgement, Verdict
from cambrian_eval.rubric import RUBRICS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian_eval.rubric import Rubric
    from cambrian_eval.types import ScoredAnswer


def read_judgements(folder: Path, answers: Sequence[ScoredAnswer]) -> list[Judgement]:
    """The verdicts on these answers, one judgement for each judge and rubric.

    A verdict on another reply, or by a rubric of another version, does not count.

    Raises:
        EvalError: The log is damaged.
    """
    log = folder / VERDICTS
    if not log.is_file():
        return []
    rubrics = {rubric.label: rubric for rubric in RUBRICS.values()}
    found: dict[tuple[str, str], dict[str, Verdict]] = {}
    asked: dict[str, dict[str, str]] = {}
    for entry in _entries(log):
        label = entry["rubric"]
        if label not in rubrics:
            continue
        hashes = asked.setdefault(label, {})
        if not hashes:
            hashes.update(_hashes(rubrics[label], answers))
        if hashes.get(entry["id"]) == entry["asked_sha256"]:
            verdicts = found.setdefault((entry["judge"], label), {})
            verdicts[entry["id"]] = Verdict(entry["value"], entry["words"])
    return [Judgement(judge, label, verdicts, {}) for (judge, label), verdicts in found.items()]


def _hashes(rubric: Rubric, answers: Sequence[ScoredAnswer]) -> dict[str, str]:
    """What the judge is told about each answer, as the log knows it."""
    texts = {answer.question.id: rubric.render(answer) for answer in answers}
    return {name: hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest() for name, text in texts.items()}


def _entries(log: Path) -> list[dict[str, Any]]:
    """Its whole lines; the last one may have been torn by a kill."""
    entries = []
    for number, line in enumerate(log.read_bytes().split(b"\n")[:-1], start=1):
        try:
            entry = json.loads(line)
            missing = {"id", "judge", "rubric", "asked_sha256", "value", "words"} - entry.keys()
        except (ValueError, AttributeError) as error:
            raise EvalError(f"{log}:{number}: not a verdict ({error}). Delete the line.") from error
        if missing:
            raise EvalError(f"{log}:{number}: found no {min(missing)}, expected a verdict. Delete the line.")
        entries.append(entry)
    return entries
