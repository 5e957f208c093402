"""A task as another tool would run it: its prompt, its parser, its metrics, on our questions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from string import ascii_uppercase
from typing import Any

from cambrian_eval.compat import lmms_eval, vlmevalkit
from cambrian_eval.compat.profiles import known_profile, prompt, score, setting
from cambrian_eval.compat.prompts import IMAGE
from cambrian_eval.compat.questions import (
    KEYS,
    ToKey,
    cvbench_row,
    mmbench_row_of_hub,
    mmbench_row_of_table,
    mmmu_row,
    mmvp_row,
)
from cambrian_eval.errors import DataError
from cambrian_eval.metrics import Metrics, mean_row, measure, parse_rate, unit_row
from cambrian_eval.task import Task
from cambrian_eval.types import Prompt, Question, Score, ScoredAnswer
from cambrian_eval.whole_units import whole_units

Render = Callable[[Question], Prompt]


def apply(profile: str, task: Task) -> Task:
    """Replace a task's prompt, score and metrics by another tool's; name, version and questions stay.

    Where a tool makes the same metrics of values that ours does, or none at all (nobody combines CV-Bench's sources),
    the task's own stay, so that the two results differ by prompt and parser alone.

    Raises:
        UnknownNameError: No such profile.
        DataError: The profile does not know the task.
    """
    known: Iterable[str] = known_profile(profile, {"reference": KEYS, **_FORMS})
    if task.name not in known:
        raise DataError(
            f'the profile "{profile}" does not know the task "{task.name}"; it knows {", ".join(sorted(known))}.'
        )
    return _as_reference(task) if profile == "reference" else _as_tool(profile, _FORMS[profile][task.name], task)


# The reference.


def _as_reference(task: Task) -> Task:
    render = {"mmmu": _render_mmmu, "blink": _render_blink}.get(task.name, _render_again)
    return dataclasses.replace(
        task,
        prompt=partial(render, task.prompt, KEYS[task.name]),
        score=partial(_score_reference, KEYS[task.name]),
        rule="reference",
        submission=None,
    )


def _render_again(own: Render, key: ToKey, question: Question) -> Prompt:
    """Our prompt is the reference's; the budget is its own."""
    rendered = own(question)
    return dataclasses.replace(rendered, max_new_tokens=setting(_benchmark(key, question)).max_new_tokens)


def _render_blink(own: Render, key: ToKey, question: Question) -> Prompt:
    """Whatever the question says about several pictures, the first is shown."""
    rendered = _render_again(own, key, question)
    return dataclasses.replace(rendered, content=(*rendered.pictures[:1], rendered.text))


def _render_mmmu(own: Render, key: ToKey, question: Question) -> Prompt:
    """Options cut at apostrophes, marks of pictures deleted, the first picture alone."""
    rendered = _render_again(own, key, question)
    text = prompt("reference", "mmmu", mmmu_row(question)).removeprefix(IMAGE)
    return dataclasses.replace(rendered, content=(*question.pictures[:1], text))


def _benchmark(key: ToKey, question: Question) -> str:
    return key(_with_some_answer(question)).benchmark


def _with_some_answer(question: Question) -> Question:
    """A question whose answer is secret still has the form that its benchmark's questions have."""
    return question if question.answers else dataclasses.replace(question, answers=("A",))


def _score_reference(key: ToKey, question: Question, reply: str) -> Score:
    benchmark, truth, row = key(_with_some_answer(question))
    return _finish(question, score("reference", benchmark, reply, truth, **row))


# The two other tools.


def _published(question: Question) -> str:
    return question.answers[0]


def _corrected(question: Question) -> str:
    """MMVP's label as lmms-eval's copy of the data has it: four are corrected."""
    return question.details.get("corrected", question.answers[0])


@dataclass(frozen=True)
class _Form:
    """How a tool runs a task.

    Attributes:
        benchmark: Its name among the profile's rules and prompts.
        row_of: Question -> the columns that the tool reads.
        max_new_tokens: Its budget for a reply.
        metrics: Its metrics, where they are not the task's own.
        headline: What its score is, likewise.
        truth_of: Question with an answer -> the label that the tool's data has.
    """

    benchmark: str
    row_of: Callable[[Question], Mapping[str, Any]]
    max_new_tokens: int
    metrics: Callable[[Sequence[ScoredAnswer]], Metrics] | None = None
    headline: str | None = None
    truth_of: Callable[[Question], str] = _published


def _as_tool(profile: str, form: _Form, task: Task) -> Task:
    return dataclasses.replace(
        task,
        prompt=partial(_render_row, profile, form),
        score=partial(_score_row, profile, form),
        metrics=form.metrics or task.metrics,
        headline=form.headline or task.headline,
        rule=profile,
        submission=None,
    )


def _render_row(profile: str, form: _Form, question: Question) -> Prompt:
    text = prompt(profile, form.benchmark, form.row_of(question))
    return Prompt(question.id, (*question.pictures, text), question.choices, form.max_new_tokens)


def _score_row(profile: str, form: _Form, question: Question, reply: str) -> Score:
    truth = form.truth_of(_with_some_answer(question))
    return _finish(question, score(profile, form.benchmark, reply, truth, **form.row_of(question)))


def _finish(question: Question, found: Score) -> Score:
    """A score as our reports expect it: letters in upper case, None where nothing was read or nothing is known."""
    return Score(found.value if question.answers else None, _letter(question, found.extracted), found.rule)


def _letter(question: Question, extracted: str | None) -> str | None:
    if not extracted:
        return None
    if len(extracted) == 1 and question.choices:
        return extracted.upper()
    texts = [choice.lower() for choice in question.choices]
    return ascii_uppercase[texts.index(extracted)] if extracted in texts else extracted


def _measure_mmvp(answers: Sequence[ScoredAnswer]) -> Metrics:
    """Pairs and single questions, with the labels that the answers were scored with."""
    whole, num_broken = whole_units(answers)
    pairs = [unit_row("scores", "score", "MMVP, pairs with both right (lmms-eval's labels)", whole)] if whole else []
    return Metrics(
        summary={
            "score": pairs[0].accuracy if pairs else None,
            "parse_rate": parse_rate(answers),
            "n_unscored": 0,
            "n_incomplete_pairs": num_broken,
            "labels": "corrected",
        },
        rows=(*pairs, mean_row("scores", "single", "single questions (lmms-eval's labels)", answers)),
    )


_CVBENCH = ("cvbench", "cvbench-2d", "cvbench-3d")
_MMBENCH = {"mmbench-en": "mmbench_en", "mmbench-cn": "mmbench_cn"}

_FORMS: dict[str, dict[str, _Form]] = {
    "lmms-eval": {
        **dict.fromkeys(
            _CVBENCH,
            _Form(
                "cvbench",
                cvbench_row,
                lmms_eval.MAX_NEW_TOKENS["cvbench"],
                metrics=partial(measure, label="CV-Bench, mean over questions (lmms-eval)"),
                headline="accuracy over questions, %",
            ),
        ),
        "mmvp": _Form("mmvp", mmvp_row, lmms_eval.MAX_NEW_TOKENS["mmvp"], metrics=_measure_mmvp, truth_of=_corrected),
        **{
            task: _Form(benchmark, mmbench_row_of_hub, lmms_eval.MAX_NEW_TOKENS[benchmark])
            for task, benchmark in _MMBENCH.items()
        },
    },
    "vlmevalkit": {
        **dict.fromkeys(_CVBENCH, _Form("cvbench", cvbench_row, vlmevalkit.MAX_NEW_TOKENS)),
        "mmvp": _Form("mmvp", mmvp_row, vlmevalkit.MAX_NEW_TOKENS),
        **{
            task: _Form(benchmark, mmbench_row_of_table, vlmevalkit.MAX_NEW_TOKENS)
            for task, benchmark in _MMBENCH.items()
        },
    },
}
