"""What travels through an evaluation: Question -> Prompt -> Answer -> Score -> Result.

A Question is what the data says, a Prompt is what a model is shown, an Answer is what it said, a Score is how that was
read. A Failure takes the place of an answer that never came: it is retried by the next run and never scored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cambrian_eval.metrics import Metrics
    from cambrian_eval.picture import Picture

Mode = Literal["normal", "blind", "shuffled"]
"""What pictures the model sees: its own, none, or those of another question of the same part."""

PromptForm = Literal["direct", "cot", "bare"]
"""What stands after a question: the benchmark's format instruction, one to think first, or nothing."""

Scoring = Literal["generate", "logits"]
"""What is read: the reply that a model writes, or which of the offered letters it finds likeliest."""


@dataclass(frozen=True)
class Question:
    """One item of a benchmark.

    Attributes:
        id: Unique in its task.
        text: What is asked, with its choices as the benchmark publishes them, without a format instruction.
        choices: Option texts in order; the first is A. Empty for open questions.
        answers: Accepted answers; for multiple choice one upper-case letter. Empty where the data keeps them secret.
        pictures: In the order in which they are shown.
        part: The part of the benchmark it belongs to, such as `2D`; pictures are shuffled within it.
        task: What ability is asked for, such as `Count`.
        source: The collection its picture comes from.
        group: Questions that share it are not independent: those about one picture, of one pair, of one circular group.
            Empty for a question that stands alone.
        details: What else its rule of scoring needs, plain JSON, such as the precision of a number.
    """

    id: str
    text: str
    choices: tuple[str, ...]
    answers: tuple[str, ...]
    pictures: tuple[Picture, ...]
    part: str
    task: str
    source: str
    group: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stratum(self) -> tuple[str, str, str]:
        """The finest group that a limited run keeps in proportion."""
        return (self.part, self.task, self.source)


@dataclass(frozen=True)
class Prompt:
    """What a model is shown for one question.

    Attributes:
        id: The question's.
        content: Pictures and texts in the order in which they are shown.
        choices: Option texts, for models that answer without reading (the baselines). Empty for open questions.
        max_new_tokens: The task's budget for a reply; decoding is greedy.
        instruction: The format instruction, if there is one: the end of the last text, from a new line on.
    """

    id: str
    content: tuple[Picture | str, ...]
    choices: tuple[str, ...]
    max_new_tokens: int
    instruction: str = ""

    @property
    def text(self) -> str:
        """The texts, joined by newlines."""
        return "\n".join(part for part in self.content if isinstance(part, str))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures, in order."""
        return tuple(part for part in self.content if not isinstance(part, str))

    def messages(self) -> list[dict[str, Any]]:
        """The prompt in the Hugging Face chat form, pictures decoded."""
        content: list[dict[str, Any]] = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part.open()}
            for part in self.content
        ]
        return [{"role": "user", "content": content}]


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        text: The reply.
        truncated: Whether it ran out of its token budget.
        image_tokens: What the pictures cost, in tokens of the model's context; None if the model does not tell.
        reply_tokens: Length of the reply in tokens; None likewise.
        option_scores: Log-probability of each offered letter, in order, where options were scored instead of a reply.
    """

    text: str
    truncated: bool = False
    image_tokens: int | None = None
    reply_tokens: int | None = None
    option_scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why a model could not answer one prompt: an endpoint that was down, say. Never logged as an answer."""

    reason: str


@dataclass(frozen=True)
class Score:
    """How an answer was read.

    Attributes:
        value: From 0 (wrong) to 1 (right); None where the data has no answer to compare with.
        extracted: What the rule read as the answer; None if it abstained.
        rule: The rule's name; a rule that abstains says why.
    """

    value: float | None
    extracted: str | None
    rule: str


@dataclass(frozen=True)
class ScoredAnswer:
    """One line of a run's log: a question, what was shown, what came back and how it was read."""

    question: Question
    prompt: Prompt
    answer: Answer
    score: Score


@dataclass(frozen=True)
class Result:
    """A finished evaluation.

    Attributes:
        task: Name of the task.
        task_version: Its version; it changes whenever a score could.
        model: Name of the model.
        mode: What pictures the model saw.
        metrics: Scores and rows, in percent.
        num_answered: Questions that were answered and scored.
        num_failed: Questions without an answer; the result is complete only when this is 0.
        output: The run's folder.
        provenance: Identity of the run, versions and hashes.
        checks: What a reader has to know beside the scores, plain JSON: rate of truncated replies, halved batches,
            agreement of batches with single prompts, warnings.
    """

    task: str
    task_version: int
    model: str
    mode: Mode
    metrics: Metrics
    num_answered: int
    num_failed: int
    output: Path
    provenance: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: the metrics at the top level, then what was run. Accuracies and rates are percent."""
        return {
            **self.metrics.to_dict(),
            "task": self.task,
            "task_version": self.task_version,
            "model": self.model,
            "mode": self.mode,
            "n": self.num_answered,
            "n_failed": self.num_failed,
            "complete": self.num_failed == 0,
            **self.checks,
        }
