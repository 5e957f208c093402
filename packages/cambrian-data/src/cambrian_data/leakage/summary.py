"""What an audit was asked and what it found, in numbers; the content of its leakage.json."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from cambrian_data.leakage.gallery import Gallery, Pair, Shown

FAR = np.iinfo(np.uint16).max


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked.

    Attributes:
        benchmarks: as the user named them.
        training: the same.
        images: folders in which image paths of records begin.
        source_images: folders of the pictures that boxes were drawn on.
        hash: name of the perceptual hash.
        hash_size: side of its square of bits.
        threshold: largest distance in bits of a near-duplicate.
        ngram: words of an n-gram.
        text_threshold: smallest containment of a question, 0 to 1.
    """

    benchmarks: list[str]
    training: list[str]
    images: list[str]
    source_images: list[str]
    hash: str
    hash_size: int
    threshold: int
    ngram: int
    text_threshold: float


class SetSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a set holds.

    Attributes:
        name: as the user gave it.
        kind: what it was taken for.
        pictures: that it names, each once; None if they were not read, for no benchmark has any.
        questions: that are asked in it; None if they were not read, for no benchmark asks any.
        left_out: what was not compared, by reason.
        sources_left_out: the same of the pictures that boxes were drawn on.
    """

    name: str
    kind: str
    pictures: int | None
    questions: int | None
    left_out: dict[str, int]
    sources_left_out: dict[str, int]

    @property
    def told(self) -> str:
        """What was left out, by reason, for people; empty if nothing was."""
        parts = [f"{count} {reason}" for reason, count in self.left_out.items()]
        return ", ".join(
            [*parts, *(f"{count} {reason} under boxes" for reason, count in self.sources_left_out.items())]
        )


class Overlap(msgspec.Struct, frozen=True, kw_only=True):
    """How many pictures of a benchmark have a near-duplicate in a training set.

    Attributes:
        benchmark: its name.
        training: its name; None for all of them together.
        pictures: of the benchmark, those that cannot be read among them.
        exact: whose file is in the training set, byte by byte.
        found: with a near-duplicate within 0, 1, 2 ... bits, up to the threshold.
    """

    benchmark: str
    training: str | None
    pictures: int
    exact: int
    found: list[int]

    @property
    def shares(self) -> list[float]:
        """The same as `found`, of all pictures."""
        return [count / self.pictures if self.pictures else 0.0 for count in self.found]


class QuestionOverlap(msgspec.Struct, frozen=True, kw_only=True):
    """How many questions of a benchmark a training set asks too.

    Attributes:
        benchmark: its name.
        training: its name.
        questions: of the benchmark.
        short: of these, with fewer words than an n-gram.
        worded: whose wording occurs in at least one training question.
        same: of these, whose wording occurs word by word.
        with_picture: asked about a near-duplicate of the same picture.
        with_answer: the same, and answered the same.
        training_questions: of the training set, that hold a wording of the benchmark.
    """

    benchmark: str
    training: str
    questions: int
    short: int
    worded: int
    same: int
    with_picture: int
    with_answer: int
    training_questions: int


class Drawing(msgspec.Struct, frozen=True, kw_only=True):
    """What drawing boxes on pictures does to their hashes.

    Attributes:
        benchmark: its name.
        bits: number of pictures by distance in bits between what is shown and what it was drawn on.
    """

    benchmark: str
    bits: dict[int, int]


class AuditSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        request: what was asked.
        benchmarks: what they hold.
        training: the same.
        overlaps: of pictures, by benchmark and then training set, all of these together last.
        questions: overlaps of questions, where both sides ask some.
        drawings: where the pictures under the boxes were given.
        num_pairs: rows of pairs.csv.
        num_texts: rows of text.csv.
    """

    request: Request
    benchmarks: list[SetSummary]
    training: list[SetSummary]
    overlaps: list[Overlap]
    questions: list[QuestionOverlap]
    drawings: list[Drawing]
    num_pairs: int
    num_texts: int


def overlaps(
    shown: Sequence[Shown],
    pairs: Sequence[Pair],
    benchmarks: Sequence[SetSummary],
    training: Sequence[SetSummary],
    threshold: int,
) -> Iterator[Overlap]:
    """Counts the benchmarks' pictures with a near-duplicate."""
    nearest = np.full((len(shown), len(training)), FAR, np.uint16)
    exact = np.zeros(nearest.shape, bool)
    for pair in pairs:
        place = pair.number, pair.training
        nearest[place] = min(nearest[place], pair.distance)
        exact[place] |= pair.exact
    owner = np.array([picture.benchmark for picture in shown], int)
    for number, benchmark in enumerate(benchmarks):
        mine, same = nearest[owner == number], exact[owner == number]
        columns = [(training[column].name, mine[:, column], same[:, column]) for column in range(len(training))]
        for name, distances, is_exact in [*columns, (None, mine.min(axis=1), same.any(axis=1))]:
            yield Overlap(
                benchmark=benchmark.name,
                training=name,
                pictures=benchmark.pictures or 0,
                exact=int(is_exact.sum()),
                found=[int((distances <= bits).sum()) for bits in range(threshold + 1)],
            )


def drawings(gallery: Gallery, benchmarks: Sequence[SetSummary]) -> list[Drawing]:
    """The effect of boxes on the hashes of each benchmark whose sources were given."""
    return [
        Drawing(benchmark=benchmarks[number].name, bits=dict(sorted(bits.items())))
        for number, bits in sorted(gallery.drawing_distances().items())
    ]
