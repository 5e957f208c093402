"""Runs a task on a model: select, prompt, ask in batches, log, score, measure. Resuming is the default.

Batches are fixed slices of the question list. A resumed run asks a half-logged batch again as a whole, so every model
call is the one an uninterrupted run makes, and the files at the end are the same bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Set
from typing import TYPE_CHECKING, NamedTuple

from cambrian_eval import hub
from cambrian_eval.errors import DataError, ModelError
from cambrian_eval.log import SampleLog, hold
from cambrian_eval.results import identify, write_result
from cambrian_eval.selection import select
from cambrian_eval.tasks import TASKS
from cambrian_eval.types import Answer, Failure, ScoredAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cambrian_eval.models.base import Model
    from cambrian_eval.task import Task
    from cambrian_eval.types import Mode, Prompt, Question, Result


class _Job(NamedTuple):
    question: Question
    prompt: Prompt


def evaluate(
    task: Task | str,
    model: Model,
    *,
    data: Path | None = None,
    output: Path,
    revision: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    mode: Mode = "normal",
    batch_size: int = 16,
    max_new_tokens: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Evaluate a model on a task, or go on with a run that was interrupted.

    Writes `run.json`, `samples.jsonl`, `metrics.json`, `failures.json` and `report.html` into `output`. All levels in
    the result are percent. Two runs of the same model write the same bytes.

    Args:
        task: A task or its name.
        model: What answers; see `cambrian_eval.models.base`.
        data: The benchmark's folder; without it the hub's snapshot is used.
        output: The run's folder, one for each task, model and mode.
        revision: Commit, tag or branch of the hub's dataset; by default the one that the task names.
        limit: Ask only so many questions, in proportion to part, task and source.
        seed: Decides which questions a limit keeps and which pictures are exchanged.
        mode: `normal`, `blind` (no pictures) or `shuffled` (those of another question of the same part).
        batch_size: Prompts handed to the model at once.
        max_new_tokens: Cap on the task's own budget for a reply; for small models, which may never stop by themselves.
        progress: Called with the number of questions answered and the number of all, at the start and after each batch.

    Raises:
        EvalError: The task, the data, the output folder or the model's answers are not usable.
    """
    task = TASKS.get(task) if isinstance(task, str) else task
    if batch_size < 1:
        raise ModelError(f"found batch size {batch_size}, expected at least 1.")
    if max_new_tokens is not None and max_new_tokens < 1:
        raise ModelError(f"found a cap of {max_new_tokens} new tokens, expected at least 1.")
    folder = hub.locate(task.hub, data, revision)
    questions = task.questions(folder.path, task.splits[0])
    jobs = [_job(task, question, max_new_tokens) for question in select(questions, mode, limit, seed)]
    identity = identify(task, model, mode, limit, seed, max_new_tokens, questions, [job.prompt for job in jobs])
    with hold(output):
        log = SampleLog(output, identity)
        failures = _ask(task, model, jobs, log, batch_size, progress or _silent)
        scored = [_score(task, job, log.answers[job.question.id]) for job in jobs if job.question.id in log.answers]
        _check_coverage(jobs, scored, failures)
        log.finish(scored)
        return write_result(task, model.name, mode, identity, folder.commit, scored, failures, output)


def _job(task: Task, question: Question, max_new_tokens: int | None) -> _Job:
    prompt = task.prompt(question)
    budget = prompt.max_new_tokens if max_new_tokens is None else min(prompt.max_new_tokens, max_new_tokens)
    return _Job(question, dataclasses.replace(prompt, max_new_tokens=budget))


def _ask(
    task: Task,
    model: Model,
    jobs: Sequence[_Job],
    log: SampleLog,
    batch_size: int,
    progress: Callable[[int, int], None],
) -> dict[str, Failure]:
    """Ask what the log does not hold yet; returns the failures by question id."""
    failures: dict[str, Failure] = {}
    progress(len(log.answers), len(jobs))
    for batch in _open_batches(jobs, log, batch_size):
        fresh: list[ScoredAnswer] = []
        for job, answer in zip(batch, _answers(model, [job.prompt for job in batch]), strict=True):
            if isinstance(answer, Failure):
                failures[job.question.id] = answer
            elif job.question.id not in log.answers:
                fresh.append(_score(task, job, answer))
        log.append(fresh)
        progress(len(log.answers), len(jobs))
    return {name: failure for name, failure in failures.items() if name not in log.answers}


def _open_batches(jobs: Sequence[_Job], log: SampleLog, batch_size: int) -> Iterator[Sequence[_Job]]:
    for start in range(0, len(jobs), batch_size):
        batch = jobs[start : start + batch_size]
        if any(job.question.id not in log.answers for job in batch):
            yield batch


def _answers(model: Model, prompts: Sequence[Prompt]) -> list[Answer | Failure]:
    given = model.answer(prompts)
    if isinstance(given, str | Mapping | Set) or not isinstance(given, Iterable):
        raise ModelError(f"{model.name}: found a {type(given).__name__}, expected a sequence of answers, in order.")
    answers = list(given)
    if len(answers) != len(prompts):
        raise ModelError(
            f"{model.name}: found {len(answers)} answers to {len(prompts)} prompts, expected one for each, in order; "
            "return a Failure for a prompt that cannot be answered."
        )
    for answer in answers:
        if not isinstance(answer, Answer | Failure | str):
            kind = type(answer).__name__
            raise ModelError(f"{model.name}: found an answer of type {kind}, expected a text, an Answer or a Failure.")
        if isinstance(answer, Answer) and not isinstance(answer.text, str):
            kind = type(answer.text).__name__
            raise ModelError(f"{model.name}: found an Answer with a text of type {kind}, expected a str.")
    return [Answer(answer) if isinstance(answer, str) else answer for answer in answers]


def _score(task: Task, job: _Job, answer: Answer) -> ScoredAnswer:
    return ScoredAnswer(job.question, job.prompt, answer, task.score(job.question, answer.text))


def _check_coverage(jobs: Sequence[_Job], scored: Sequence[ScoredAnswer], failures: dict[str, Failure]) -> None:
    """A mean over groups must not lose a group because the model failed on all of it."""
    if not jobs:
        raise DataError("the task has no questions; give a folder that holds some.")
    lost = {job.question.stratum for job in jobs} - {answer.question.stratum for answer in scored}
    if lost:
        names = ", ".join(sorted(" ".join(stratum) for stratum in lost))
        reason = next(iter(failures.values())).reason
        raise ModelError(
            f"the model failed on {len(failures)} of {len(jobs)} questions, on all of {names} ({reason}); there is no "
            "score without them. Run again to ask the failed ones."
        )


def _silent(done: int, total: int) -> None:
    """No progress is shown."""
