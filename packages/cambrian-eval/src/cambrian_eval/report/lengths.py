"""How long replies are, and how often an open question gets one word: what a format instruction does to a model.

Source: Cambrian-1 (arXiv 2406.16860), section 4.2: trained on short answers, a model becomes an "answer machine".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cambrian_eval.report.table import level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian_eval.types import Question, ScoredAnswer

BINS = ((0, 0), (1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (21, 50), (51, 100))
BIN_LABELS = (
    "no word",
    "1 word",
    *(f"{low} words" if low == high else f"{low} to {high}" for low, high in BINS[2:]),
    "more",
)
COLUMNS = (
    *("", "replies", "words: median", "9 of 10 up to", "longest", "tokens: median", "out of tokens %"),
    *("open questions", "one-word replies %", "one-word truths %", "parsed %"),
)

# Chinese and Japanese put no space between words; there, each sign counts.
_SIGN = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")


@dataclass(frozen=True)
class Lengths:
    """The lengths of a run's replies.

    Attributes:
        label: Whose.
        words: Words of each reply, ascending.
        tokens: Tokens of each reply, ascending; empty where the model does not tell.
        truncated: Percent of replies that ran out of tokens.
        num_open: Questions that neither offer options nor are answered by yes or no.
        one_word: Percent of the replies to these that are one word; None where there are none.
        one_word_truths: Percent of these whose accepted answers include one of one word.
        parsed: Percent of replies in which an answer was found.
    """

    label: str
    words: tuple[int, ...]
    tokens: tuple[int, ...]
    truncated: float
    num_open: int
    one_word: float | None
    one_word_truths: float | None
    parsed: float

    def row(self) -> list[str]:
        """The cells of a table with the columns `COLUMNS`."""
        return [
            self.label,
            str(len(self.words)),
            *(str(quantile(self.words, share)) for share in (0.5, 0.9, 1.0)),
            str(quantile(self.tokens, 0.5)) if self.tokens else "",
            f"{self.truncated:.1f}",
            str(self.num_open),
            *map(level, (self.one_word, self.one_word_truths, self.parsed)),
        ]

    def histogram(self) -> list[int]:
        """Replies in each of `BIN_LABELS`."""
        counts = [sum(low <= words <= high for words in self.words) for low, high in BINS]
        return [*counts, len(self.words) - sum(counts)]


def measure_lengths(label: str, answers: Sequence[ScoredAnswer]) -> Lengths:
    """Measure the replies of a run."""
    free = [answer for answer in answers if is_open(answer.question)]
    known = [answer for answer in free if answer.question.answers]
    return Lengths(
        label=label,
        words=tuple(sorted(num_words(answer.answer.text) for answer in answers)),
        tokens=tuple(sorted(a.answer.reply_tokens for a in answers if a.answer.reply_tokens is not None)),
        truncated=_percent([answer.answer.truncated for answer in answers]) or 0.0,
        num_open=len(free),
        one_word=_percent([num_words(answer.answer.text) == 1 for answer in free]),
        one_word_truths=_percent([any(num_words(text) == 1 for text in a.question.answers) for a in known]),
        parsed=_percent([answer.score.extracted is not None for answer in answers]) or 0.0,
    )


def num_words(text: str) -> int:
    """Words between spaces that hold a letter or a digit; of Chinese and Japanese, signs."""
    return sum(len(_SIGN.findall(piece)) or any(map(str.isalnum, piece)) for piece in text.split())


def is_open(question: Question) -> bool:
    """Whether more than a choice is asked for: there are no options, and the truth is neither yes nor no."""
    truths = {answer.strip().lower() for answer in question.answers}
    return not question.choices and not (truths and truths <= {"yes", "no"})


def quantile(ascending: Sequence[int], share: float) -> int:
    """The smallest value that at least this share of the values does not exceed; 0 where there are none."""
    if not ascending:
        return 0
    return ascending[max(0, -(-int(share * 1000) * len(ascending) // 1000) - 1)]


def _percent(hits: Sequence[bool]) -> float | None:
    return 100 * sum(hits) / len(hits) if hits else None
