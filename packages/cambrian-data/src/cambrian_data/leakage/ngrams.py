"""Questions of a benchmark that occur in a training text, whole or in good part.

A question's containment in a text is the share of its word n-grams that occur there; a question of fewer words than n
has none, and must be the text, or one of its sentences, word by word. Questions are compared in lower case, without
punctuation, and each wording is looked for once, however many pictures it is asked about.

Source: the share of 8-grams is PaLM's (arXiv 2204.02311, section 8), 0.7 its bound.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

WORD = re.compile(r"\w+")
SENTENCE_END = re.compile(r"[.?!]\s|\n")
COMMON_SHARE = 0.01
"""An n-gram in more than this share of a benchmark's wordings (and in more than one) belongs to a template."""

Words = tuple[str, ...]


def to_words(text: str) -> Words:
    """The words of a text in lower case, without punctuation; letters that look alike are made the same (NFKC)."""
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return tuple(WORD.findall(plain.casefold()))


class Hit(NamedTuple):
    """A wording that occurs in a text.

    Attributes:
        wording: number of it.
        containment: share of its n-grams that occur, 0 to 1.
        own: the same of the n-grams that are not of a template; None if it has none.
        same: whether the text, or a sentence of it, is the wording, word by word.
    """

    wording: int
    containment: float
    own: float | None
    same: bool


class WordingIndex:
    """The wordings of a benchmark's questions.

    Args:
        texts: of the questions, repeated or not.
        n: words of an n-gram.
        threshold: smallest containment of a hit, above 0 and up to 1.
    """

    def __init__(self, texts: Iterable[str], n: int, threshold: float) -> None:
        self._n, self._threshold = n, threshold
        self.numbers: dict[Words, int] = {}
        for text in texts:
            words = to_words(text)
            if words:
                self.numbers.setdefault(words, len(self.numbers))
        long = [words for words in self.numbers if len(words) >= n]
        self.num_short = len(self.numbers) - len(long)
        self._max_words = max(map(len, self.numbers), default=0)
        self._vocabulary = {word: number for number, word in enumerate(sorted({word for it in long for word in it}))}
        self._grams: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for words in long:
            for gram in set(self._grams_of(words)):
                self._grams[gram].append(self.numbers[words])
        common = max(1.0, COMMON_SHARE * len(self.numbers))
        self._own = {gram for gram, wordings in self._grams.items() if len(wordings) <= common}
        self._totals = Counter(wording for wordings in self._grams.values() for wording in wordings)
        self._own_totals = Counter(wording for gram in self._own for wording in self._grams[gram])

    def _grams_of(self, words: Words) -> Iterator[tuple[int, ...]]:
        """The n-grams of a text that are all of known words."""
        known = [self._vocabulary.get(word, -1) for word in words]
        run = 0
        for end, word in enumerate(known, start=1):
            run = run + 1 if word >= 0 else 0
            if run >= self._n:
                yield tuple(known[end - self._n : end])

    def wording_of(self, question: str) -> int | None:
        """The number of a question's wording; None if it has no words."""
        return self.numbers.get(to_words(question))

    def is_short(self, wording: int) -> bool:
        """Whether the wording has fewer words than an n-gram."""
        return wording not in self._totals

    def hits(self, text: str) -> list[Hit]:
        """The wordings that occur in a text, in the order of their numbers."""
        words = to_words(text)
        shared, own = Counter[int](), Counter[int]()
        for gram in set(self._grams_of(words)) & self._grams.keys():
            shared.update(self._grams[gram])
            if gram in self._own:
                own.update(self._grams[gram])
        same = self._same(text, words)
        enough = {wording for wording, count in shared.items() if count >= self._threshold * self._totals[wording]}
        return [self._to_hit(wording, shared, own, wording in same) for wording in sorted(enough | same)]

    def _same(self, text: str, words: Words) -> set[int]:
        """The wordings that the text or one of its sentences is."""
        sentences = (to_words(sentence) for sentence in SENTENCE_END.split(text))
        found = (self.numbers.get(each) for each in (words, *sentences) if len(each) <= self._max_words)
        return {wording for wording in found if wording is not None}

    def _to_hit(self, wording: int, shared: Counter[int], own: Counter[int], same: bool) -> Hit:
        if self.is_short(wording):
            return Hit(wording, 1.0, None, same)
        num_own = self._own_totals[wording]
        return Hit(
            wording,
            shared[wording] / self._totals[wording],
            own[wording] / num_own if num_own else None,
            same,
        )


def same_answer(answers: Iterable[str], replies: Iterable[str]) -> bool | None:
    """Whether a reply is an answer, or names it among its words; None if either is unknown."""
    right = [words for answer in answers if (words := to_words(answer))]
    given = [words for reply in replies if (words := to_words(reply))]
    if not right or not given:
        return None
    return any(contains(reply, answer) for reply in given for answer in right)


def contains(words: Words, part: Words) -> bool:
    """Whether the words occur one after another."""
    return any(words[start : start + len(part)] == part for start in range(len(words) - len(part) + 1))
