"""Which of a benchmark's questions a training set asks too: in what words, about which picture, with which answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cambrian_data.leakage.ngrams import Hit, WordingIndex, same_answer
from cambrian_data.leakage.pictures import Exchange
from cambrian_data.leakage.summary import QuestionOverlap

MAX_WITH_PICTURE = 20
"""Training questions listed for one question of a benchmark that share its picture; all are counted."""

Shared = dict[str, set[str]]
"""By link of a training picture: the links of the benchmark's pictures that it is a near-duplicate of."""


class Found(NamedTuple):
    """A question of a benchmark and a training question that holds it.

    Attributes:
        question: number of the benchmark's question.
        exchange: the training question.
        hit: how much of the wording occurs.
        same_picture: whether it is asked about a near-duplicate of the question's picture; None if either has none.
        same_answer: whether it is answered the same; None if either is unknown.
    """

    question: int
    exchange: Exchange
    hit: Hit
    same_picture: bool | None
    same_answer: bool | None

    @property
    def rank(self) -> tuple[bool, bool, float, bool, float]:
        """The larger, the more of a leak."""
        return (
            bool(self.same_picture),
            bool(self.same_picture and self.same_answer),
            self.hit.containment,
            self.hit.same,
            self.hit.own or 0.0,
        )


class QuestionSearch:
    """Finds a benchmark's questions in one training set.

    Args:
        questions: of the benchmark.
        index: of their wordings.
        shared: near-duplicate pictures.
    """

    def __init__(self, questions: list[Exchange], index: WordingIndex, shared: Shared) -> None:
        self._questions, self._index, self._shared = questions, index, shared
        self._by_wording: dict[int, list[int]] = defaultdict(list)
        for number, question in enumerate(questions):
            wording = index.wording_of(question.question)
            if wording is not None:
                self._by_wording[wording].append(number)
        self._best: dict[int, tuple[Exchange, Hit]] = {}
        self._same: set[int] = set()
        self._with_picture: dict[int, list[Found]] = defaultdict(list)
        self._pictured: set[int] = set()
        self._answered: set[int] = set()
        self._num_training = 0

    def look_at(self, exchange: Exchange) -> None:
        """Takes a question of the training set."""
        hits = self._index.hits(exchange.question)
        self._num_training += bool(hits)
        if not hits:
            return
        pictures = frozenset(link for own in exchange.links for link in self._shared.get(own, ()))
        for hit in hits:
            if hit.same:
                self._same.add(hit.wording)
            best = self._best.get(hit.wording)
            if best is None or (hit.containment, hit.same) > (best[1].containment, best[1].same):
                self._best[hit.wording] = exchange, hit
            if pictures:
                self._look_at_picture(exchange, hit, pictures)

    def _look_at_picture(self, exchange: Exchange, hit: Hit, pictures: frozenset[str]) -> None:
        for number in self._by_wording[hit.wording]:
            question = self._questions[number]
            if pictures.isdisjoint(question.links):
                continue
            found = Found(number, exchange, hit, True, same_answer(question.answers, exchange.answers))
            self._pictured.add(number)
            if found.same_answer:
                self._answered.add(number)
            kept = sorted([*self._with_picture[number], found], key=lambda it: it.rank, reverse=True)
            self._with_picture[number] = kept[:MAX_WITH_PICTURE]

    def overlap(self, benchmark: str, training: str) -> QuestionOverlap:
        """How many questions were found.

        Args:
            benchmark: name of the one.
            training: name of the other.
        """
        wordings = [self._index.wording_of(question.question) for question in self._questions]
        return QuestionOverlap(
            benchmark=benchmark,
            training=training,
            questions=len(self._questions),
            short=sum(wording is not None and self._index.is_short(wording) for wording in wordings),
            worded=self._count(self._best),
            same=self._count(self._same),
            with_picture=len(self._pictured),
            with_answer=len(self._answered),
            training_questions=self._num_training,
        )

    def _count(self, wordings: Iterable[int]) -> int:
        return sum(len(self._by_wording[wording]) for wording in wordings)

    def found(self) -> Iterator[Found]:
        """The training questions about the same picture, else the nearest in words, for each question found."""
        for wording, (exchange, hit) in self._best.items():
            for number in self._by_wording[wording]:
                with_picture = self._with_picture.get(number)
                if with_picture:
                    yield from with_picture
                    continue
                question = self._questions[number]
                both = bool(question.links and exchange.links)
                answer = same_answer(question.answers, exchange.answers)
                yield Found(number, exchange, hit, False if both else None, answer)
