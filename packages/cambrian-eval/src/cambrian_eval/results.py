"""A run's identity and its result on disk: hashes and versions, but no times and no paths, so that runs compare."""

from __future__ import annotations

import hashlib
import json
import platform
from typing import TYPE_CHECKING, Any

from cambrian_eval.atomic import write_atomically
from cambrian_eval.report.html import write_report
from cambrian_eval.types import Result

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from cambrian_eval.models.base import Model
    from cambrian_eval.task import Task
    from cambrian_eval.types import Failure, Mode, Prompt, Question, ScoredAnswer

METRICS = "metrics.json"
FAILURES = "failures.json"
REPORT = "report.html"

_PACKAGES = ("cambrian-eval", "pillow", "pyarrow", "scipy")


def identify(
    task: Task,
    model: Model,
    mode: Mode,
    limit: int | None,
    seed: int,
    max_new_tokens: int | None,
    questions: Sequence[Question],
    prompts: Sequence[Prompt],
) -> dict[str, Any]:
    """What tells this run from another: a run resumes only where all of it is equal."""
    return {
        "task": task.name,
        "task_version": task.version,
        "data_sha256": _hash(_question_lines(questions)),
        "prompts_sha256": _hash(_prompt_lines(prompts)),
        "model": model.name,
        "model_fingerprint": model.fingerprint,
        "mode": mode,
        "limit": limit,
        "seed": seed,
        "max_new_tokens": max_new_tokens,
    }


def write_result(
    task: Task,
    model: str,
    mode: Mode,
    identity: dict[str, Any],
    commit: str | None,
    scored: Sequence[ScoredAnswer],
    failures: Mapping[str, Failure],
    output: Path,
) -> Result:
    """Measure, and write `metrics.json`, `failures.json` and `report.html`."""
    result = Result(
        task=task.name,
        task_version=task.version,
        model=model,
        mode=mode,
        metrics=task.metrics(scored),
        num_answered=len(scored),
        num_failed=len(failures),
        output=output,
        provenance={"run": identity, "data_commit": commit, "versions": _versions()},
    )
    document = {**result.to_dict(), "provenance": result.provenance}
    reasons = {name: failure.reason for name, failure in failures.items()}
    write_atomically(output / METRICS, json.dumps(document, indent=2) + "\n")
    write_atomically(output / FAILURES, json.dumps(reasons, indent=2) + "\n")
    write_report(output / REPORT, result, scored)
    return result


def _question_lines(questions: Iterable[Question]) -> Iterable[str]:
    for q in questions:
        pictures = [picture.sha256 for picture in q.pictures]
        yield json.dumps([q.id, q.text, q.choices, q.answers, pictures, q.part, q.task, q.source])


def _prompt_lines(prompts: Iterable[Prompt]) -> Iterable[str]:
    for prompt in prompts:
        content = [part if isinstance(part, str) else {"picture": part.sha256} for part in prompt.content]
        yield json.dumps([prompt.id, content, prompt.max_new_tokens])


def _hash(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    from importlib import metadata

    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}}
