"""A benchmark is four functions and a version: questions, prompt, score, metrics; and the place of its data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cambrian_eval.hub import HubDataset
    from cambrian_eval.metrics import Metrics
    from cambrian_eval.types import Prompt, Question, Score, ScoredAnswer


@dataclass(frozen=True)
class Task:
    """One benchmark.

    Attributes:
        name: What users call it.
        version: Raised whenever prompt, scoring or metrics change, so that old and new scores are told apart.
        description: One line for lists.
        hub: Where the published data lies.
        questions: Folder and split -> questions.
        prompt: Question -> what a model is shown.
        score: Question and reply -> score.
        metrics: Scored answers -> metrics.
        splits: Those it can ask; the first one is asked unless another is named.
        fields: Columns that it reads.
        rule: Name of the rule that reads replies, for lists.
        headline: What its `score` is, for lists: "pair accuracy, %".
        num_questions: Published size of the first split; None where it is not known.
        submission: Scored answers -> text of the file that the benchmark's server takes, and that file's name; None for
            benchmarks without a server.
    """

    name: str
    version: int
    description: str
    hub: HubDataset
    questions: Callable[[Path, str], Sequence[Question]]
    prompt: Callable[[Question], Prompt]
    score: Callable[[Question, str], Score]
    metrics: Callable[[Sequence[ScoredAnswer]], Metrics]
    splits: tuple[str, ...] = ("test",)
    fields: tuple[str, ...] = ()
    rule: str = ""
    headline: str = "accuracy, %"
    num_questions: int | None = None
    submission: Submission | None = None


@dataclass(frozen=True)
class Submission:
    """The file that a benchmark's server takes."""

    file: str
    write: Callable[[Sequence[ScoredAnswer]], str]
