"""What the reviewers together say of each question.

Those who decided a question vote: to accept it, to reject it, or for one changed form of it (two who changed it
differently cast different votes). By `unanimous` all votes must be the same, by `majority` more than half of them. A
question without such a vote is disputed; one that nobody decided is undecided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from cambrian_data.cvbench.review.benchmark import Benchmark, Item
from cambrian_data.cvbench.review.changes import Changes, changed
from cambrian_data.cvbench.review.decisions import Decision
from cambrian_data.records import Row

Decisions = Mapping[str, Mapping[int, Decision]]
"""By reviewer and `idx`."""


class Rule(StrEnum):
    """How several reviewers come to one verdict."""

    UNANIMOUS = "unanimous"
    MAJORITY = "majority"


class Outcome(StrEnum):
    """A verdict, in a word."""

    ACCEPTED = "accepted"
    MODIFIED = "modified"
    REJECTED = "rejected"
    DISPUTED = "disputed"
    UNDECIDED = "undecided"


OUTCOMES = {"accept": Outcome.ACCEPTED, "modify": Outcome.MODIFIED, "reject": Outcome.REJECTED}
KEPT = (Outcome.ACCEPTED, Outcome.MODIFIED)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a question.

    Attributes:
        item: the question.
        outcome: of the vote.
        decisions: the votes, by reviewer.
        changes: the question as it should be, if it is modified.
    """

    item: Item
    outcome: Outcome
    decisions: Mapping[str, Decision]
    changes: Changes | None = None

    @property
    def row(self) -> Row:
        """The row of the reviewed set."""
        return self.item.row if self.changes is None else changed(self.item.row, self.changes)


def reach_verdicts(benchmark: Benchmark, decisions: Decisions, rule: Rule) -> list[Verdict]:
    """The verdict on every question, in the order of the tables."""
    return [
        reach_verdict(item, {name: of[idx] for name, of in sorted(decisions.items()) if idx in of}, rule)
        for idx, item in benchmark.items.items()
    ]


def reach_verdict(item: Item, decisions: Mapping[str, Decision], rule: Rule) -> Verdict:
    """The verdict on one question, from the decisions of those who decided it."""
    if not decisions:
        return Verdict(item, Outcome.UNDECIDED, decisions)
    votes = Counter((decision.decision, decision.changes) for decision in decisions.values())
    (kind, changes), count = votes.most_common(1)[0]
    wins = count == len(decisions) if rule is Rule.UNANIMOUS else count > len(decisions) / 2
    return Verdict(item, OUTCOMES[kind], decisions, changes) if wins else Verdict(item, Outcome.DISPUTED, decisions)
