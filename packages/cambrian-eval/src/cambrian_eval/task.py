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
        questions: Folder -> questions.
        prompt: Question -> what a model is shown.
        score: Question and reply -> score.
        metrics: Scored answers -> metrics, in percent.
    """

    name: str
    version: int
    description: str
    hub: HubDataset
    questions: Callable[[Path], Sequence[Question]]
    prompt: Callable[[Question], Prompt]
    score: Callable[[Question, str], Score]
    metrics: Callable[[Sequence[ScoredAnswer]], Metrics]
