"""What can be guessed without picture or model: by letter, by answer, by category, by place, by wording.

A prior is what a guesser goes by, who knows the right answers of all other questions (never that of the one guessed)
and picks the choice whose cue was right most often where it was offered. The score is compared with what the same
guesser scores when right answers are drawn by lot, so that small groups, where something is always most frequent by
accident, do not look biased. Nothing is trained and no text is understood: a model may find more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from string import ascii_uppercase
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from cambrian_data.cvbench.audit.chance import Interval, Trial, wilson
from cambrian_data.cvbench.audit.items import BOX_WORDS, Item
from cambrian_data.cvbench.lots import lot

DRAWS = 19_999  # at most; a test that finds nothing stops long before
CHUNK = 200  # draws at a time
ENOUGH = 20  # draws that do as well as the truth: more would not change the verdict
MAX_ENTRIES = 4_000_000  # choices x draws held at a time
MIN_GROUP = 5  # a share of fewer questions is not worth a line

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Cues(NamedTuple):
    """What the guesser goes by in one question.

    Attributes:
        context: only questions of the same context are compared.
        of_choice: one for each choice, all different.
    """

    context: Hashable
    of_choice: Sequence[Hashable]


def letter(item: Item) -> Cues:
    """Where among the letters the right choice stands."""
    return Cues(len(item.choices), range(len(item.choices)))


def answer(item: Item) -> Cues:
    """Which of the same choices is right, in whatever order they stand."""
    return Cues(tuple(sorted(item.choices)), item.choices)


def category(item: Item) -> Cues | None:
    """The category asked about and, where choices are categories, which of them is right wherever it is offered."""
    if not item.categories:
        return None
    return Cues("any" if are_categories(item) else item.categories[0], item.choices)


def wording(item: Item) -> Cues:
    """The whole question, boxes left out."""
    return Cues(BOX_WORDS.sub("", item.question), item.choices)


def number(item: Item) -> Cues | None:
    """Where the right number stands among the offered ones by size."""
    if not all(choice.isdecimal() for choice in item.choices):
        return None
    return Cues(len(item.choices), ranks([int(choice) for choice in item.choices]))


def mention(item: Item) -> Cues | None:
    """Which of the choices the question names first: in Depth and Distance also the colour of the box."""
    if not are_categories(item):
        return None
    return Cues("any", ranks([item.categories.index(choice) for choice in item.choices]))


def choice_length(item: Item) -> Cues | None:
    """Which choice is the longest, where they are names and no two are equally long."""
    lengths = [len(choice) for choice in item.choices]
    if not are_categories(item) or len(set(lengths)) < len(lengths):
        return None
    return Cues(len(lengths), ranks(lengths))


def question_length(item: Item) -> Cues:
    """How many words the question has, boxes included."""
    named = mention(item)
    num_words = len(item.question.split())
    return Cues((num_words, *sorted(item.choices)), item.choices) if named is None else Cues(num_words, named.of_choice)


PRIORS: dict[str, Callable[[Item], Cues | None]] = {
    "letter": letter,
    "answer": answer,
    "category": category,
    "wording": wording,
    "number": number,
    "mention": mention,
    "choice length": choice_length,
    "question length": question_length,
}
SHOWN = ("letter", "answer", "number", "mention")
"""Those of which the shares themselves are reported."""


def are_categories(item: Item) -> bool:
    """Whether the choices are things that the question names."""
    return set(item.choices) <= set(item.categories)


def ranks(values: Sequence[int]) -> list[int]:
    """The place of each value among them by size, from 0; values are all different.

    >>> ranks([5, 3, 9])
    [1, 0, 2]
    """
    return [sorted(values).index(value) for value in values]


class PriorResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a guesser scores in one task. Shares are 0 to 1.

    Attributes:
        task: of the questions.
        prior: that the guesser goes by.
        questions: that it applies to.
        score: of the guesser, each question guessed from the others.
        low: lower end of the score's 95 % interval.
        high: upper end.
        chance: of a uniform guess.
        luck_low: what the guesser scores if right answers are drawn by lot, 95 % of the draws, lower end. Below chance
            where answers are even: without the question itself its answer is the rarer one.
        luck_high: upper end.
        trial: of "no better than with answers drawn by lot"; exact up to the number of draws.
    """

    task: str
    prior: str
    questions: int
    score: float
    low: float
    high: float
    chance: float
    luck_low: float
    luck_high: float
    trial: Trial


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """How often one cue is right where it is offered. Shares are 0 to 1.

    Attributes:
        task: of the questions.
        prior: letter, answer, number or mention.
        group: what the questions have in common.
        cue: such as a letter or an answer.
        offered: questions that offer it.
        right: of these, those where it is right.
        low: lower end of the 95 % interval of right / offered.
        high: upper end.
        expected: share that is right if right answers are drawn by lot.
    """

    task: str
    prior: str
    group: str
    cue: str
    offered: int
    right: int
    low: float
    high: float
    expected: float


class Layout(NamedTuple):
    """Questions of a task as arrays; the cell of a choice is its context and cue.

    Attributes:
        items: questions that the prior applies to.
        cells: (most choices, questions) number of the cell of each choice, the last one where a question has no more.
        names: context and cue of each cell but the last.
        sizes: (questions,) numbers of choices.
        places: (questions,) of the right choices, from 0.
        offered: (cells,) questions that offer each cell's cue; infinity for the last cell, which is never picked.
    """

    items: Sequence[Item]
    cells: Ints
    names: Sequence[tuple[Hashable, Hashable]]
    sizes: Ints
    places: Ints
    offered: Floats

    @property
    def right(self) -> Ints:
        """(questions,) the cell of each right choice."""
        return self.cells[self.places, np.arange(len(self.places))]


def lay_out(items: Sequence[Item], prior: str) -> Layout | None:
    """The questions that a prior applies to, None if there are fewer than two."""
    found = [(item, cues) for item in items if (cues := PRIORS[prior](item)) is not None]
    if len(found) < 2:
        return None
    number_of: dict[tuple[Hashable, Hashable], int] = {}
    rows = [[number_of.setdefault((cues.context, cue), len(number_of)) for cue in cues.of_choice] for _, cues in found]
    sizes = np.array([len(row) for row in rows])
    cells = np.full((sizes.max(), len(rows)), len(number_of))
    for question, row in enumerate(rows):
        cells[: len(row), question] = row
    offered = np.bincount(cells.ravel(), minlength=len(number_of) + 1).astype(np.float64)
    offered[-1] = np.inf
    places = np.array([item.place for item, _ in found])
    return Layout([item for item, _ in found], cells, list(number_of), sizes, places, offered)


def credits(layout: Layout, places: Ints) -> Floats:
    """What the guesser scores in each question, 1 if right; where several choices seem equally good, a part of it.

    Args:
        layout: of the questions.
        places: of the right choices (draws, questions).

    Returns:
        (draws, questions), 0 to 1.
    """
    draws, questions = np.arange(len(places))[:, None], np.arange(places.shape[1])
    num_cells = len(layout.offered)
    cells = draws * num_cells + layout.cells[places, questions]
    counted = np.bincount(cells.ravel(), minlength=len(places) * num_cells).astype(np.float64)
    right = counted.reshape(-1, num_cells)[:, layout.cells]  # (draws, choices, questions)
    right[draws, places, questions] -= 1.0  # the question that is guessed is not known
    # Right among the others that offer it, and one more question's worth of chance: 0 of 0 is chance, not certainty.
    appeal = (right + 1 / layout.sizes) / layout.offered[layout.cells]
    is_best = appeal >= appeal.max(axis=1, keepdims=True) - 1e-12
    chosen: Floats = is_best[draws, places, questions] / is_best.sum(axis=1)
    return chosen


def guess(items: Sequence[Item], prior: str) -> dict[int, float]:
    """What the guesser scores in each question that the prior applies to, by idx; `items` are of one task."""
    layout = lay_out(items, prior)
    if layout is None:
        return {}
    return {
        item.idx: float(credit)
        for item, credit in zip(layout.items, credits(layout, layout.places[None])[0], strict=True)
    }


def measure(layout: Layout, prior: str, seed: int) -> PriorResult:
    """What a guesser scores, and what luck gives.

    Args:
        layout: of questions of one task.
        prior: that they are laid out by.
        seed: of the draws; the same gives the same result.
    """
    task, count = layout.items[0].task, len(layout.items)
    score = float(credits(layout, layout.places[None]).sum())
    trial, luck = by_lot(layout, score, lot(seed, "audit", task, prior))
    interval = wilson(score, count)
    return PriorResult(
        task=task,
        prior=prior,
        questions=count,
        score=score / count,
        low=interval.low,
        high=interval.high,
        chance=float(np.mean(1 / layout.sizes)),
        luck_low=luck.low / count,
        luck_high=luck.high / count,
        trial=trial,
    )


def by_lot(layout: Layout, score: float, seed: int) -> tuple[Trial, Interval]:
    """The test of a score against right answers drawn by lot, and the middle 95 % of the draws.

    Drawing ends when enough draws have done as well as the truth, which keeps the test exact.

    Source: Besag and Clifford, "Sequential Monte Carlo p-values" (1991).
    """
    generator = np.random.default_rng(seed)
    chunk = max(1, min(CHUNK, MAX_ENTRIES // layout.cells.size))
    drawn: list[Floats] = []
    num_drawn = num_reached = 0
    while num_drawn < DRAWS and num_reached < ENOUGH:
        places = generator.integers(0, layout.sizes, size=(min(chunk, DRAWS - num_drawn), len(layout.sizes)))
        drawn.append(credits(layout, places).sum(axis=1))
        num_drawn += len(places)
        num_reached += int((drawn[-1] >= score - 1e-9).sum())
    luck = np.concatenate(drawn)
    reached = np.flatnonzero(luck >= score - 1e-9)
    p = ENOUGH / (reached[ENOUGH - 1] + 1) if len(reached) >= ENOUGH else (len(reached) + 1) / (len(luck) + 1)
    low, high = np.quantile(luck, [0.025, 0.975])
    return Trial(p=float(p), least_p=1 / (DRAWS + 1)), Interval(float(low), float(high))


def shares(items: Sequence[Item], prior: str) -> list[Share]:
    """How often each cue of a prior is right in one task, groups of few questions left out."""
    layout = lay_out(items, prior)
    if layout is None:
        return []
    in_context = Counter(layout.names[cell][0] for cell in layout.cells[0])
    right = np.bincount(layout.right, minlength=len(layout.names))
    of_choices = np.broadcast_to(1 / layout.sizes, layout.cells.shape)
    luck = np.bincount(layout.cells.ravel(), weights=of_choices.ravel())
    found = []
    for cell, (context, cue) in enumerate(layout.names):
        if in_context[context] < MIN_GROUP:
            continue
        offered = int(layout.offered[cell])
        interval = wilson(int(right[cell]), offered)
        found.append(
            Share(
                task=items[0].task,
                prior=prior,
                group=group_words(prior, context),
                cue=cue_words(prior, cue),
                offered=offered,
                right=int(right[cell]),
                low=interval.low,
                high=interval.high,
                expected=float(luck[cell]) / offered,
            )
        )
    return sorted(found, key=lambda share: (share.group, share.cue))


def group_words(prior: str, context: Hashable) -> str:
    """What the questions of a context have in common, in words."""
    if isinstance(context, tuple):
        return " / ".join(map(str, context))
    return f"{context} choices" if prior in ("letter", "number") else "all"


def cue_words(prior: str, cue: Hashable) -> str:
    """A cue in words."""
    if prior == "letter":
        return ascii_uppercase[int(str(cue))]
    if prior in ("number", "mention"):
        return f"{int(str(cue)) + 1}. {'by size' if prior == 'number' else 'named'}"
    return str(cue)
