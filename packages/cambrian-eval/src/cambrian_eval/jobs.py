"""What a run asks: the questions that are selected, each with the prompt that is shown for it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from cambrian_eval import permutation, prompt_forms
from cambrian_eval.errors import DataError
from cambrian_eval.plan import estimate_lengths, make_plan, unique_requests
from cambrian_eval.selection import select

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian_eval.conditions import Conditions
    from cambrian_eval.task import Task
    from cambrian_eval.types import Prompt, Question


class Job(NamedTuple):
    """A question and what is shown for it."""

    question: Question
    prompt: Prompt


class Jobs(NamedTuple):
    """All questions that the data has, and what is asked, in the order of the data."""

    questions: Sequence[Question]
    jobs: list[Job]


class Preview(NamedTuple):
    """What a run would ask, for people to see before a model is loaded.

    Attributes:
        first: The first prompt.
        num_questions: Prompts in all.
        num_requests: How many of them differ.
        num_pictures: How many of the pictures differ.
        num_batches: Batches, with estimated lengths.
        max_new_tokens: The most tokens that replies may have, added up.
    """

    first: Prompt
    num_questions: int
    num_requests: int
    num_pictures: int
    num_batches: int
    max_new_tokens: int


def make_jobs(task: Task, folder: Path, conditions: Conditions) -> Jobs:
    """Read the data and select, permute and render.

    Args:
        task: Whose questions.
        folder: Holds the data.
        conditions: Checked ones.

    Raises:
        DataError: There is nothing to ask, or the data do not allow what is wanted.
    """
    assert conditions.split is not None
    questions = task.questions(folder, conditions.split)
    asked = select(questions, conditions.mode, conditions.limit, conditions.seed, conditions.ids)
    if not asked:
        raise DataError("the task has no questions; give a folder that holds some.")
    if conditions.permute:
        asked = permutation.permute(asked, conditions.permute, conditions.seed)
    jobs = [_job(task, question, conditions) for question in asked]
    _check_unique(jobs)
    _check_choices(jobs, conditions)
    return Jobs(questions, jobs)


def preview(jobs: Sequence[Job], batch_size: int) -> Preview:
    """What these jobs amount to."""
    requests = unique_requests([job.prompt for job in jobs])
    firsts = [equal[0] for equal in requests.values()]
    plan = make_plan(requests, estimate_lengths(firsts), batch_size)
    return Preview(
        first=jobs[0].prompt,
        num_questions=len(jobs),
        num_requests=len(requests),
        num_pictures=len({picture.sha256 for prompt in firsts for picture in prompt.pictures}),
        num_batches=len(plan.batches),
        max_new_tokens=sum(prompt.max_new_tokens for prompt in firsts),
    )


def _check_unique(jobs: Sequence[Job]) -> None:
    counts = Counter(job.question.id for job in jobs)
    name, count = counts.most_common(1)[0]
    if count > 1:
        raise DataError(f"question id {name} occurs {count} times; answers are kept by id, so each must be unique.")


def _check_choices(jobs: Sequence[Job], conditions: Conditions) -> None:
    open_ids = [job.question.id for job in jobs if not job.prompt.choices]
    if conditions.scoring == "logits" and open_ids:
        raise DataError(
            f"scoring logits compares letters, and {len(open_ids)} of {len(jobs)} questions have no options, the first "
            f"is {open_ids[0]}. Use scoring generate, or choose questions with options by their ids."
        )


def _job(task: Task, question: Question, conditions: Conditions) -> Job:
    prompt = prompt_forms.put(task.prompt(question), conditions.prompt)
    permutation.check_shown(question, prompt)
    cap = conditions.max_new_tokens
    budget = prompt.max_new_tokens if cap is None else min(prompt.max_new_tokens, cap)
    return Job(question, dataclasses.replace(prompt, max_new_tokens=budget))
