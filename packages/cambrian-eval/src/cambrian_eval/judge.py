"""A language model judges what was answered: beside the rule's score, never in its place.

Verdicts are logged batch by batch in `judge.jsonl` and asked for only once: the same judge, told the same, is not asked
again. A verdict that cannot be read is logged and counted; a judge that does not answer is a failure, which is not
logged and is asked again by the next call.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from cambrian_eval import statistics
from cambrian_eval.endpoint.wire import ChatReply, ChatRequest
from cambrian_eval.errors import DataError, EvalError
from cambrian_eval.rubric import MATCH, MAX_NEW_TOKENS
from cambrian_eval.types import Failure, Score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cambrian_eval.endpoint.client import ChatClient
    from cambrian_eval.rubric import Rubric
    from cambrian_eval.types import ScoredAnswer

VERDICTS = "judge.jsonl"
BATCH_SIZE = 64
RIGHT = 0.5  # a value from here on counts as right where rule and judge are compared


class Verdict(NamedTuple):
    """What the judge said of one answer.

    Attributes:
        value: From 0 (wrong) to 1 (right); None where its words are no verdict.
        words: Its words.
    """

    value: float | None
    words: str


@dataclass(frozen=True)
class Judgement:
    """The verdicts on a run.

    Attributes:
        judge: Address of the judging model, without credentials.
        rubric: Name and version of what it was told.
        verdicts: By question id.
        failures: Why there is none, by question id.
    """

    judge: str
    rubric: str
    verdicts: dict[str, Verdict]
    failures: dict[str, str]

    @property
    def num_unread(self) -> int:
        """Verdicts that could not be read."""
        return sum(verdict.value is None for verdict in self.verdicts.values())


@dataclass(frozen=True)
class Agreement:
    """How rule and judge compare on the questions on which both have a value; levels in percent.

    Attributes:
        n: Number of such questions.
        rate: Share on which both say right or both say wrong.
        low: Lower end of its 95 % interval.
        high: Upper end.
        kappa: Cohen's kappa, agreement beyond what chance gives; None where both always say the same.
        rule_score: Mean of the rule's values.
        judge_score: Mean of the judge's values.
        judge_only: Ids of questions that only the judge finds right.
        rule_only: Ids of questions that only the rule finds right.
        n_unread: Verdicts that could not be read.
        n_failed: Answers that the judge did not answer on.
    """

    n: int
    rate: float
    low: float
    high: float
    kappa: float | None
    rule_score: float
    judge_score: float
    judge_only: tuple[str, ...]
    rule_only: tuple[str, ...]
    n_unread: int
    n_failed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return dataclasses.asdict(self)


def judge(
    answers: Sequence[ScoredAnswer],
    client: ChatClient,
    *,
    log: Path | None = None,
    rubric: Rubric = MATCH,
    max_new_tokens: int = MAX_NEW_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> Judgement:
    """Ask a judge about every answer on which the log holds no verdict of it yet.

    Args:
        answers: A run's, as `log.read_answers` gives them.
        client: The judge.
        log: The run's `judge.jsonl`; several judges and rubrics may share it. Without it nothing is kept.
        rubric: What the judge is told.
        max_new_tokens: Most tokens of a verdict; a judge that thinks aloud needs more.
        progress: Called with the number of answers judged and the number of all.

    Raises:
        DataError: A question's accepted answer is not known.
        EvalError: The log is damaged, or the endpoint refuses the key or the address.
    """
    asked = [_Case(answer.question.id, rubric.render(_with_truth(answer))) for answer in answers]
    known = _read(log, client.address.name)
    open_cases = [case for case in asked if case.key not in known]
    failures: dict[str, str] = {}
    for start in range(0, len(open_cases), BATCH_SIZE):
        batch = open_cases[start : start + BATCH_SIZE]
        if progress:
            progress(len(asked) - len(open_cases) + start, len(asked))
        replies = client.complete([ChatRequest((case.text,), max_new_tokens) for case in batch])
        said = list(zip(batch, replies, strict=True))
        failures.update((case.id, reply.reason) for case, reply in said if isinstance(reply, Failure))
        fresh = {case.key: _verdict(rubric, reply) for case, reply in said if isinstance(reply, ChatReply)}
        _append(log, client.address.name, rubric, fresh)
        known.update(fresh)
    if progress:
        progress(len(asked), len(asked))
    verdicts = {case.id: known[case.key] for case in asked if case.key in known}
    return Judgement(client.address.name, rubric.label, verdicts, failures)


def judged(answers: Sequence[ScoredAnswer], judgement: Judgement) -> list[ScoredAnswer]:
    """The answers on which there is a verdict, with the judge's value as their score, for a task's `metrics`."""
    return [
        dataclasses.replace(answer, score=_score(judgement, judgement.verdicts[answer.question.id]))
        for answer in answers
        if answer.question.id in judgement.verdicts
    ]


def agreement(answers: Sequence[ScoredAnswer], judgement: Judgement) -> Agreement | None:
    """Compare rule and judge; None where no question has a value of both, as on a task that only a judge can score."""
    both = [
        (answer.question.id, answer.score.value, verdict.value)
        for answer in answers
        if (verdict := judgement.verdicts.get(answer.question.id)) is not None
        and verdict.value is not None
        and answer.score.value is not None
    ]
    if not both:
        return None
    pairs = [(rule >= RIGHT, verdict >= RIGHT) for _, rule, verdict in both]
    same = sum(rule == verdict for rule, verdict in pairs)
    ends = statistics.wilson(same, len(both))
    return Agreement(
        n=len(both),
        rate=100 * same / len(both),
        low=100 * ends.low,
        high=100 * ends.high,
        kappa=_kappa(pairs),
        rule_score=100 * sum(rule for _, rule, _ in both) / len(both),
        judge_score=100 * sum(verdict for _, _, verdict in both) / len(both),
        judge_only=tuple(name for name, rule, verdict in both if rule < RIGHT <= verdict),
        rule_only=tuple(name for name, rule, verdict in both if verdict < RIGHT <= rule),
        n_unread=judgement.num_unread,
        n_failed=len(judgement.failures),
    )


class _Case(NamedTuple):
    """One answer to be judged, and what the judge is told about it."""

    id: str
    text: str

    @property
    def key(self) -> tuple[str, str]:
        return self.id, hashlib.sha256(self.text.encode("utf-8", errors="replace")).hexdigest()


def _with_truth(answer: ScoredAnswer) -> ScoredAnswer:
    if not answer.question.answers:
        raise DataError(
            f"question {answer.question.id}: found no accepted answer to judge by, expected at least one. Judge a "
            "split whose answers are published."
        )
    return answer


def _verdict(rubric: Rubric, reply: ChatReply) -> Verdict:
    """A verdict that ran out of tokens says nothing, whatever stands there."""
    return Verdict(None if reply.truncated else rubric.read(reply.text), reply.text)


def _score(judgement: Judgement, verdict: Verdict) -> Score:
    if verdict.value is None:
        return Score(None, None, "judge: verdict not read")
    return Score(verdict.value, verdict.words.strip(), f"judge: {judgement.rubric}")


def _kappa(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    """Source: Cohen, "A Coefficient of Agreement for Nominal Scales" (1960)."""
    rule, verdict = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
    expected = rule * verdict + (1 - rule) * (1 - verdict)
    observed = sum(one == other for one, other in pairs) / len(pairs)
    return None if expected == 1 else (observed - expected) / (1 - expected)


# The log.


def _append(log: Path | None, name: str, rubric: Rubric, verdicts: dict[tuple[str, str], Verdict]) -> None:
    if log is None or not verdicts:
        return
    entries = [
        {"id": key[0], "judge": name, "rubric": rubric.label, "asked_sha256": key[1], **verdict._asdict()}
        for key, verdict in verdicts.items()
    ]
    with log.open("ab") as file:
        file.write(b"".join(json.dumps(entry).encode() + b"\n" for entry in entries))
        file.flush()
        os.fsync(file.fileno())


def _read(log: Path | None, name: str) -> dict[tuple[str, str], Verdict]:
    """The verdicts of one judge; a line torn by a kill is cut off."""
    if log is None or not log.exists():
        return {}
    written = log.read_bytes()
    whole = written[: written.rfind(b"\n") + 1]
    if len(whole) < len(written):
        os.truncate(log, len(whole))
    entries = (_parse(log, number, line) for number, line in enumerate(whole.split(b"\n")[:-1], start=1))
    return dict(_of_judge(entries, name))


def _of_judge(entries: Iterator[dict[str, Any]], name: str) -> Iterator[tuple[tuple[str, str], Verdict]]:
    for entry in entries:
        if entry["judge"] == name:
            yield (entry["id"], entry["asked_sha256"]), Verdict(entry["value"], entry["words"])


def _parse(log: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
        missing = {"id", "judge", "rubric", "asked_sha256", "value", "words"} - entry.keys()
    except (ValueError, AttributeError, RecursionError) as error:
        raise EvalError(f"{log}:{number}: not a verdict ({error}). Delete the line to have it asked again.") from error
    if missing or not isinstance(entry["value"], int | float | None):
        found = f"no {min(missing)}" if missing else f"value {entry['value']!r}"
        raise EvalError(f"{log}:{number}: found {found}. Delete the line to have its verdict asked again.")
    return dict(entry)
