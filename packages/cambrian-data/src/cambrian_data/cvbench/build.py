"""Annotations -> candidates -> questions. Pure; writing them is the business of layout and training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cambrian_data.cvbench.annotations import Annotations, Cuboid, Instance
from cambrian_data.cvbench.balance import Chosen, arrange, choose, left_over, places
from cambrian_data.cvbench.candidates import Candidate, Task
from cambrian_data.cvbench.lots import lot
from cambrian_data.cvbench.makers import count_candidates, depth_candidates, distance_candidates, relation_candidates
from cambrian_data.cvbench.questions import Question, choice_text
from cambrian_data.cvbench.rejections import Rejections
from cambrian_data.cvbench.rules import CountRules, RelationRules, Rules, SpaceRules
from cambrian_data.errors import DataError

Candidates = list[Candidate[Any]]


class TaskSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked in a task, and how evenly.

    Attributes:
        questions: asked.
        pictures: they are about.
        candidates: that the rules allowed.
        answers: how often each answer is right; in Depth and Distance, the box of which colour.
        letters: how often each letter is right.
        categories: how often the category of the first subject is each.
    """

    questions: int
    pictures: int
    candidates: int
    answers: dict[str, int]
    letters: dict[str, int]
    categories: dict[str, int]


def candidates_2d(
    annotations: Annotations[Instance], rules: Rules, rejected: Mapping[Task, Rejections] | None = None
) -> dict[Task, Candidates]:
    """What Count and Relation could ask.

    Args:
        annotations: complete for their categories, unless a picture says for which it is.
        rules: of the tasks.
        rejected: for each task, counts what its rules refuse.
    """
    counts, relations = tallies(rejected, Task.COUNT, Task.RELATION)
    found: dict[Task, Candidates] = {Task.COUNT: [], Task.RELATION: []}
    most = rules.relation.pool_per_picture
    for picture in annotations.pictures:
        found[Task.COUNT] += count_candidates(picture, annotations.categories, rules.count, counts)
        found[Task.RELATION] += pool(list(relation_candidates(picture, rules.relation, relations)), most, relations)
    return found


def candidates_3d(
    annotations: Annotations[Cuboid], rules: Rules, rejected: Mapping[Task, Rejections] | None = None
) -> dict[Task, Candidates]:
    """What Depth and Distance could ask; the arguments are those of `candidates_2d`."""
    depths, distances = tallies(rejected, Task.DEPTH, Task.DISTANCE)
    found: dict[Task, Candidates] = {Task.DEPTH: [], Task.DISTANCE: []}
    for picture in annotations.pictures:
        of_depth = list(depth_candidates(picture, rules.depth, depths))
        of_distance = list(distance_candidates(picture, rules.distance, distances))
        found[Task.DEPTH] += pool(of_depth, rules.depth.pool_per_picture, depths)
        found[Task.DISTANCE] += pool(of_distance, rules.distance.pool_per_picture, distances)
    return found


def tallies(rejected: Mapping[Task, Rejections] | None, *tasks: Task) -> list[Rejections]:
    """The counts of these tasks, or some that nobody reads."""
    return [Counter() if rejected is None else rejected[task] for task in tasks]


def pool(found: Candidates, most: int | None, rejected: Rejections) -> Candidates:
    """At most so many of the candidates of one picture, by a lot that each draws for what it asks.

    So what is drawn depends neither on the order of choices nor on which side is right, and a candidate that is drawn
    stays so under stricter rules.
    """
    if most is None or len(found) <= most:
        return found
    rejected["candidate: pool_per_picture"] += len(found) - most
    return sorted(found, key=lambda one: lot(0, "pool", one.task, one.fact))[:most]


def task_rules(rules: Rules, task: Task) -> CountRules | RelationRules | SpaceRules:
    """The rules of a task."""
    of_task: dict[Task, CountRules | RelationRules | SpaceRules] = {
        Task.COUNT: rules.count,
        Task.RELATION: rules.relation,
        Task.DEPTH: rules.depth,
        Task.DISTANCE: rules.distance,
    }
    return of_task[task]


def select(
    candidates: Candidates,
    task: Task,
    *,
    count: int | None,
    seed: int,
    rules: Rules,
    rejected: Rejections | None = None,
) -> list[Question]:
    """Chooses what a task asks, and how, so that answers, letters and the order of choices are balanced.

    Args:
        candidates: of the task, in any order.
        task: of the candidates.
        count: wanted; fewer if no more can be balanced, None for as many as can.
        seed: same candidates, same seed, same questions.
        rules: caps, and whether choices are shuffled.
        rejected: counts the candidates that are not asked, by rule.
    """
    caps = task_rules(rules, task)
    chosen = choose(candidates, count, caps.per_picture, seed, caps.per_category)
    if rejected is not None:
        rejected.update(left_over(candidates, chosen, count, caps.per_picture, caps.per_category))
    if task is not Task.COUNT and not rules.shuffle_choices:
        return [to_question(one, list(one.group)) for one in chosen]
    return [
        to_question(one, arrange(one, place, seed)) for one, place in zip(chosen, places(chosen, seed), strict=True)
    ]


def to_question(one: Chosen, answers: Sequence[str]) -> Question:
    """The chosen candidate with its choices in this order."""
    texts = tuple(choice_text(one.candidate, answer) for answer in answers)
    return Question(one.candidate, texts, answers.index(one.candidate.answer))


def build(
    file: Path, candidates: Mapping[Task, Candidates], *, count_per_task: int | None, seed: int, rules: Rules
) -> dict[Task, list[Question]]:
    """The questions of several tasks that were made from one file.

    Raises:
        DataError: if a task has none.
    """
    questions = {
        task: select(found, task, count=count_per_task, seed=seed, rules=rules) for task, found in candidates.items()
    }
    for task, made in questions.items():
        if not made:
            raise DataError(
                f"{file}: no {task} question can be asked; the rules allow {len(candidates[task])} candidates, which "
                "cannot be balanced over the answers. Use more pictures, or wider rules."
            )
    return questions


def summarise(questions: Sequence[Question], num_candidates: int) -> TaskSummary:
    """Counts what was asked."""
    return TaskSummary(
        questions=len(questions),
        pictures=len({question.candidate.picture.file_name for question in questions}),
        candidates=num_candidates,
        answers=tally(question.candidate.answer for question in questions),
        letters=tally(question.letter for question in questions),
        categories=tally(question.candidate.category[0] for question in questions),
    )


def tally(values: Iterable[str]) -> dict[str, int]:
    """How often each value occurs, in alphabetical order."""
    return dict(sorted(Counter(values).items()))
