"""A run's identity and its result on disk: hashes and versions, but no times and no paths, so that runs compare."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cambrian_eval import permutation
from cambrian_eval.atomic import write_atomically
from cambrian_eval.metrics import Metrics, parse_rate
from cambrian_eval.report.html import write_report
from cambrian_eval.types import Result

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cambrian_eval.conditions import Conditions
    from cambrian_eval.crew import Description
    from cambrian_eval.task import Task
    from cambrian_eval.types import Failure, Prompt, Question, ScoredAnswer

METRICS = "metrics.json"
FAILURES = "failures.json"
REPORT = "report.html"
TIMING = "timing.json"

_PACKAGES = (
    *("cambrian-eval", "cambrian-model", "torch", "transformers", "tokenizers", "timm", "accelerate"),
    *("httpx", "numpy", "pillow", "pyarrow", "rapidfuzz", "scipy"),
)


def identify(
    task: Task,
    model: Description,
    conditions: Conditions,
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
        **conditions.to_dict(),
    }


def measure(task: Task, scored: Sequence[ScoredAnswer]) -> Metrics:
    """The task's metrics; of a split whose answers are secret, only how many replies were read."""
    if all(not answer.question.answers for answer in scored):
        return Metrics(
            summary={"score": None, "parse_rate": parse_rate(scored), "n_unscored": len(scored)},
            rows=(),
        )
    return permutation.measure(task.metrics, scored)


def summarise(
    task: Task,
    conditions: Conditions,
    provenance: dict[str, Any],
    scored: Sequence[ScoredAnswer],
    failures: Mapping[str, Failure],
    checks: dict[str, Any],
    output: Path,
) -> Result:
    """The result of a run, from its answers alone; nothing is written."""
    truncated = 100 * sum(answer.answer.truncated for answer in scored) / len(scored)
    return Result(
        task=task.name,
        task_version=task.version,
        model=provenance["run"]["model"],
        mode=conditions.mode,
        metrics=measure(task, scored),
        num_answered=len(scored),
        num_failed=len(failures),
        output=output,
        provenance=provenance,
        checks={"truncation_rate": truncated, **checks},
    )


def write_result(task: Task, result: Result, scored: Sequence[ScoredAnswer], failures: Mapping[str, Failure]) -> None:
    """Write `metrics.json`, `failures.json`, `report.html` and, where the answers are secret, the server's file."""
    document = {**result.to_dict(), "provenance": result.provenance}
    write_atomically(result.output / METRICS, json.dumps(document, indent=2) + "\n")
    write_failures(result.output, failures)
    write_report(result.output / REPORT, result, scored)
    if task.submission is not None and all(answer.score.value is None for answer in scored):
        firsts = [permutation.restore(answer) for answer in scored]
        write_atomically(result.output / task.submission.file, task.submission.write(firsts))


def write_failures(folder: Path, failures: Mapping[str, Failure]) -> None:
    """Write why questions have no answer: `failures.json`."""
    reasons = {name: failure.reason for name, failure in failures.items()}
    write_atomically(folder / FAILURES, json.dumps(reasons, indent=2) + "\n")


def provenance(identity: dict[str, Any], dataset: dict[str, Any], model: Description) -> dict[str, Any]:
    """What was run, on which data, with which versions, on which machine: no times and no paths."""
    return {
        "run": identity,
        "data": dataset,
        "versions": _versions(),
        "hardware": {"platform": platform.platform(), "cpu": _processor(), "model": model.hardware},
    }


def _question_lines(questions: Iterable[Question]) -> Iterable[str]:
    for q in questions:
        pictures = [picture.sha256 for picture in q.pictures]
        yield json.dumps(
            [q.id, q.text, q.choices, q.answers, pictures, q.part, q.task, q.source, q.group, q.details], sort_keys=True
        )


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
    """Of Python and of the packages that are installed among those that could change a number."""
    from importlib import metadata

    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _processor() -> str:
    """The processor's name, where the system tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
