"""Runs a task on a model: select, prompt, plan, ask in batches, log, score, measure. Resuming is the default.

Batches are a pure function of the prompts (`plan`). A resumed run asks a half-logged batch again as a whole, so every
model call is the one an uninterrupted run makes, and the files at the end are the same bytes, whoever asked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cambrian_eval import hub, torchrun
from cambrian_eval.atomic import write_atomically
from cambrian_eval.conditions import Conditions
from cambrian_eval.crew import Alone
from cambrian_eval.errors import ModelError
from cambrian_eval.jobs import make_jobs
from cambrian_eval.log import SampleLog, claim, hold
from cambrian_eval.models import load_model
from cambrian_eval.plan import Plan, estimate_lengths, make_plan, unique_requests
from cambrian_eval.prompt_forms import score_reply
from cambrian_eval.results import FAILURES, TIMING, identify, provenance, summarise, write_failures, write_result
from cambrian_eval.tasks import TASKS
from cambrian_eval.types import Answer, Failure, ScoredAnswer
from cambrian_eval.verification import verify
from cambrian_eval.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cambrian_eval.crew import Asked, Crew
    from cambrian_eval.jobs import Job
    from cambrian_eval.models.base import Model
    from cambrian_eval.task import Task
    from cambrian_eval.types import Mode, PromptForm, Result, Scoring
    from cambrian_eval.verification import Verification

BATCH_SIZE = 16  # where neither user nor model names one
PREFETCH = 2  # batches prepared ahead


@dataclasses.dataclass(frozen=True)
class _Run:
    """What is asked, of whom and how; what the steps of an evaluation share."""

    task: Task
    conditions: Conditions
    jobs: Sequence[Job]
    crew: Crew
    identity: dict[str, Any]
    provenance: dict[str, Any]
    batch_size: int
    prefetch: int
    output: Path
    progress: Callable[[int, int], None]


class _Planned(NamedTuple):
    """The batches, and what was found if they were verified."""

    plan: Plan
    verification: Verification | None


def evaluate(
    task: Task | str,
    model: Model | Workers | str,
    *,
    data: Path | None = None,
    output: Path,
    split: str | None = None,
    revision: str | None = None,
    limit: int | None = None,
    ids: Sequence[str] | None = None,
    seed: int = 0,
    mode: Mode = "normal",
    prompt: PromptForm = "direct",
    scoring: Scoring = "generate",
    permute: int = 0,
    compat: str | None = None,
    batch_size: int | None = None,
    max_new_tokens: int | None = None,
    workers: int | Literal["torchrun"] = 1,
    verify_batching: int = 0,
    prefetch: int = PREFETCH,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Evaluate a model on a task, or go on with a run that was interrupted.

    Writes `run.json`, `samples.jsonl`, `metrics.json`, `failures.json`, `timing.json` and `report.html` into `output`,
    and the benchmark's submission file where the data keeps its answers secret. All levels in the result are percent.
    Two runs of the same model write the same bytes (but for `timing.json`).

    Args:
        task: A task or its name.
        model: What answers (see `cambrian_eval.models.base`), or the name by which `load_model` knows it.
        data: The benchmark's folder; without it the hub's snapshot is used.
        output: The run's folder, one for each task, model and way to ask.
        split: Of the data; the task's first one if not given.
        revision: Commit, tag or branch of the hub's dataset; by default the one that the task names.
        limit: Ask only so many questions, in proportion to part, task and source.
        ids: Ask only these; see `selection.pick_questions`.
        seed: Decides which questions a limit keeps, which pictures are exchanged and in which orders options stand.
        mode: `normal`, `blind` (no pictures) or `shuffled` (those of another question of the same part).
        prompt: `direct` (the benchmark's format instruction), `cot` (one to think first) or `bare` (none).
        scoring: `generate` (a reply is read) or `logits` (the likeliest of the offered letters).
        permute: Ask each multiple-choice question in so many orders of its options; as many as options is circular.
        compat: Ask and score as another tool does; see `cambrian_eval.compat`.
        batch_size: Prompts handed to the model at once; by default what the model prefers, or 16.
        max_new_tokens: Cap on the task's own budget for a reply; for small models, which may never stop by themselves.
        workers: Processes that answer, each with a model of its own: then `model` is a name. `torchrun` shares the
            batches among the processes that torchrun started, each of which makes this call.
        verify_batching: Ask so many prompts alone and in their batch first; unless all replies agree, the run goes on
            with batches of one.
        prefetch: Batches prepared ahead, where the model can.
        progress: Called with the number of questions answered and the number of all, at the start and after each batch.

    Raises:
        EvalError: The task, the data, the output folder or the model's answers are not usable.
    """
    if batch_size is not None and batch_size < 1:
        raise ModelError(f"found batch size {batch_size}, expected at least 1.")
    conditions = Conditions(
        split=split,
        limit=limit,
        ids=None if ids is None else tuple(ids),
        seed=seed,
        mode=mode,
        prompt=prompt,
        scoring=scoring,
        permute=permute,
        compat=compat,
        max_new_tokens=max_new_tokens,
        verify_batching=verify_batching,
    )
    task = resolve(task, compat)
    conditions = conditions.checked(task)
    folder = hub.locate(task.hub, data, revision, conditions.split)
    questions, jobs = make_jobs(task, folder.path, conditions)
    with _crew(model, workers) as crew:
        _check_can_choose(crew, scoring)
        identity = identify(task, crew.description, conditions, questions, [job.prompt for job in jobs])
        run = _Run(
            task=task,
            conditions=conditions,
            jobs=jobs,
            crew=crew,
            identity=identity,
            provenance=provenance(identity, _dataset(task, data, revision, folder.commit), crew.description),
            batch_size=batch_size or crew.description.batch_size or BATCH_SIZE,
            prefetch=prefetch,
            output=output,
            progress=progress or _silent,
        )
        if workers == "torchrun" and torchrun.num_processes() > 1:
            return _together(run)
        return _alone(run)


def resolve(task: Task | str, compat: str | None = None) -> Task:
    """The task of that name, as it is or as another tool has it.

    Raises:
        UnknownNameError: No such task.
        DataError: The other tool does not know the task.
    """
    found: Task = TASKS.get(task) if isinstance(task, str) else task
    if compat is None:
        return found
    from cambrian_eval import compat as others

    return others.apply(compat, found)


def _alone(run: _Run) -> Result:
    """All of it in this process, or in workers of this process."""
    with hold(run.output):
        log = SampleLog(run.output, run.identity)
        stopwatch = _Stopwatch(len(log.answers))
        planned = _plan(run, log)

        def tell(_: int) -> None:
            run.progress(len(log.answers), len(run.jobs))

        failures = _ask(run, planned.plan, log, range(len(planned.plan.batches)), tell)
        write_failures(run.output, failures)  # also where there is no score for want of answers
        scored = _scored(run, log)
        result = _result(run, log, scored, failures, planned.verification)
        log.finish(scored)
        write_result(run.task, result, scored, failures)
        stopwatch.write(run, len(log.answers))
        return result


def _together(run: _Run) -> Result:
    """The batches that this process draws, of those that all share; the first process writes the result."""
    with torchrun.Meeting(run.identity) as meeting, contextlib.ExitStack() as held:
        if meeting.rank == 0:
            held.enter_context(hold(run.output))
            claim(run.output, run.identity)
        meeting.begin()
        log = SampleLog(run.output, run.identity, part=meeting.rank)
        before = len(log.answers)
        stopwatch = _Stopwatch(before)
        planned = meeting.first_then_others(lambda: _plan(run, log))

        def tell(fresh: int) -> None:
            run.progress(min(before + meeting.count("answered", fresh), len(run.jobs)), len(run.jobs))

        own = _ask(run, planned.plan, log, meeting.draw(len(planned.plan.batches)), tell)
        failures = meeting.gather(own)
        if meeting.rank > 0:
            meeting.wait_for_result()  # until then the parts of the log are being put together
        log.read()
        failures = _unanswered(run, log, failures)
        if meeting.rank == 0:
            write_failures(run.output, failures)
        scored = _scored(run, log)
        result = _result(run, log, scored, failures, planned.verification)
        if meeting.rank == 0:
            log.finish(scored)
            write_result(run.task, result, scored, failures)
            stopwatch.write(run, len(log.answers))
            meeting.publish()
        return result


def _unanswered(run: _Run, log: SampleLog, failures: Mapping[str, Failure]) -> dict[str, Failure]:
    """Why a question has no answer; one that another process has answered may be missing on a disk that lags behind."""
    lagging = Failure("its answer has not arrived on this machine's disk")
    names = (job.question.id for job in run.jobs if job.question.id not in log.answers)
    return {name: failures.get(name, lagging) for name in names}


def _plan(run: _Run, log: SampleLog) -> _Planned:
    """The batches; none for a run that is whole."""
    wanted = run.conditions.verify_batching
    if not wanted and all(job.question.id in log.answers for job in run.jobs):
        return _Planned(Plan((), {}), None)
    model = run.crew.description
    requests = unique_requests([job.prompt for job in run.jobs], model.answers_by_id)
    firsts = [equal[0] for equal in requests.values()]
    lengths = run.crew.lengths(firsts) if model.can_measure else estimate_lengths(firsts)
    plan = make_plan(requests, lengths, run.batch_size)
    if not wanted:
        return _Planned(plan, None)
    found = verify(run.crew, plan, wanted, run.batch_size, run.conditions.scoring, run.prefetch, run.output)
    return _Planned(make_plan(requests, lengths, 1) if found.different else plan, found)


def _ask(
    run: _Run, plan: Plan, log: SampleLog, numbers: Iterable[int], tell: Callable[[int], None]
) -> dict[str, Failure]:
    """Ask those of the batches with these numbers that the log does not hold yet; returns failures by question id."""
    jobs = {job.question.id: job for job in run.jobs}
    failures: dict[str, Failure] = {}
    tell(0)
    batches = ((number, plan.batches[number]) for number in numbers if _is_open(plan, number, log))
    with contextlib.closing(run.crew.ask(batches, run.conditions.scoring, run.prefetch)) as given:
        for number, asked in given:
            answers = _by_question(plan, number, asked)
            failures.update({name: one for name, one in answers.items() if isinstance(one, Failure)})
            fresh = {name: one for name, one in answers.items() if isinstance(one, Answer) and name not in log.answers}
            first = next((name for name, one in answers.items() if isinstance(one, Answer)), "")
            log.append([_score(run, jobs[name], one) for name, one in fresh.items()], {first: asked.num_halved})
            tell(len(fresh))
    return {name: failure for name, failure in failures.items() if name not in log.answers}


def _is_open(plan: Plan, number: int, log: SampleLog) -> bool:
    return any(name not in log.answers for prompt in plan.batches[number] for name in plan.served[prompt.id])


def _by_question(plan: Plan, number: int, asked: Asked) -> dict[str, Answer | Failure]:
    """The answers of a batch by question: one request may serve several."""
    pairs = zip(plan.batches[number], asked.answers, strict=True)
    return {name: answer for prompt, answer in pairs for name in plan.served[prompt.id]}


def _score(run: _Run, job: Job, answer: Answer) -> ScoredAnswer:
    score = score_reply(run.task.score, run.conditions.prompt, job.question, answer.text)
    return ScoredAnswer(job.question, job.prompt, answer, score)


def _scored(run: _Run, log: SampleLog) -> list[ScoredAnswer]:
    """What was answered, in the order of the data, read by today's rules."""
    return [_score(run, job, log.answers[job.question.id]) for job in run.jobs if job.question.id in log.answers]


def _result(
    run: _Run,
    log: SampleLog,
    scored: Sequence[ScoredAnswer],
    failures: Mapping[str, Failure],
    verification: Verification | None,
) -> Result:
    _check_coverage(run.jobs, scored, failures)
    num_halved = sum(log.num_halved.values())
    checks = {
        "num_halved": num_halved,
        "verify_batching": verification and verification.to_dict(),
        "warnings": [*filter(None, (verification and verification.warning, _halving_warning(num_halved)))],
    }
    return summarise(run.task, run.conditions, run.provenance, scored, failures, checks, run.output)


def _halving_warning(num_halved: int) -> str | None:
    return f"memory did not hold a batch {num_halved} times; it was halved each time." if num_halved else None


def _check_coverage(jobs: Sequence[Job], scored: Sequence[ScoredAnswer], failures: Mapping[str, Failure]) -> None:
    """A mean over groups must not lose a group because the model failed on all of it."""
    lost = {job.question.stratum for job in jobs} - {answer.question.stratum for answer in scored}
    if lost:
        names = ", ".join(sorted(" ".join(stratum) for stratum in lost))
        reason = next(iter(failures.values())).reason
        raise ModelError(
            f"the model failed on {len(failures)} of {len(jobs)} questions, on all of {names} ({reason}); there is no "
            f"score without them. {FAILURES} holds all reasons; run again to ask the failed ones."
        )


def _dataset(task: Task, data: Path | None, revision: str | None, commit: str | None) -> dict[str, Any]:
    """Where the questions came from; a folder has no name here, for runs in different places compare."""
    if data is not None:
        return {"from": "folder"}
    return {"from": "hub", "repo": task.hub.repo, "revision": revision or task.hub.revision, "commit": commit}


@contextlib.contextmanager
def _crew(model: Model | Workers | str, workers: int | Literal["torchrun"]) -> Iterator[Crew]:
    if isinstance(workers, int) and workers < 1:
        raise ModelError(f"found {workers} workers, expected at least 1.")
    if isinstance(model, Workers):
        yield model
    elif isinstance(workers, int) and workers > 1:
        if not isinstance(model, str):
            raise ModelError(
                f"{model.name}: a model in memory cannot be shared by {workers} workers; give the name that "
                "load_model knows it by, and each of them loads its own."
            )
        with Workers(model, workers) as crew:
            yield crew
    else:
        yield Alone(load_model(model) if isinstance(model, str) else model)


def _check_can_choose(crew: Crew, scoring: Scoring) -> None:
    """Before anything is written."""
    if scoring == "logits" and not crew.description.can_choose:
        raise ModelError(
            f"{crew.description.name}: this model cannot say how likely an option is; use scoring generate."
        )


class _Stopwatch:
    """How long the asking took, for `timing.json`: the only file of a run that differs each time."""

    def __init__(self, num_answered: int) -> None:
        self._start, self._num_answered = time.monotonic(), num_answered

    def write(self, run: _Run, num_answered: int) -> None:
        """Of what was asked since; a run that asked nothing leaves the file as it was."""
        asked, seconds = num_answered - self._num_answered, time.monotonic() - self._start
        if asked:
            timing = {
                "questions": asked,
                "seconds": round(seconds, 3),
                "questions_per_second": round(asked / seconds, 3),
                "batch_size": run.batch_size,
            }
            write_atomically(run.output / TIMING, json.dumps(timing, indent=2) + "\n")


def _silent(done: int, total: int) -> None:
    """No progress is shown."""
