"""The review of one reviewer, as the page sees it: the list of questions, one question with its geometry, decisions."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from string import ascii_uppercase

import msgspec

from cambrian_data.cvbench.geometry import Edges, Geometry, Other, Subject
from cambrian_data.cvbench.review.benchmark import Benchmark, Item, load_picture
from cambrian_data.cvbench.review.changes import Changes, check_changes, tidy
from cambrian_data.cvbench.review.decisions import (
    Decision,
    Kind,
    append,
    check_log,
    cut_notices,
    log_path,
    read_log,
    standing,
    undo,
)
from cambrian_data.cvbench.review.projection import Line, project_edges
from cambrian_data.cvbench.review.verdicts import KEPT, OUTCOMES
from cambrian_data.errors import DataError, ImageError


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A question in the list; what the filters look at."""

    idx: int
    task: str
    source: str
    categories: list[str]
    question: str
    choices: list[str]
    answer: str
    answer_text: str
    file: str
    decision: Decision | None


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What the page asks for first.

    Attributes:
        folder: name of the benchmark's.
        reviewer: whose decisions these are.
        log: where they are stored.
        notices: what the reviewer should know of the folder and the log.
        questions: in the order of the tables.
    """

    folder: str
    reviewer: str
    log: str
    notices: list[str]
    questions: list[Entry]


class SubjectView(msgspec.Struct, frozen=True, kw_only=True):
    """A thing asked about, with the edges of its cuboid in pixels; None where it has none to show."""

    category: str
    box: Edges
    colour: str | None
    distance: tuple[float, float] | None
    lines: list[Line] | None


class Margin(msgspec.Struct, frozen=True, kw_only=True):
    """By how much the nearest vertex of the further thing lies behind the farthest of the nearer one.

    Attributes:
        nearer: the colour of the nearer thing's box.
        metres: less than 0 where the two overlap.
        part: of the distance of the nearer thing's farthest vertex.
    """

    nearer: str | None
    metres: float
    part: float | None


class Offset(msgspec.Struct, frozen=True, kw_only=True):
    """From the centre of the reference's box to that of the thing located: pixels right and down."""

    right: float
    down: float


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """One question with everything that is shown of it.

    Attributes:
        idx: of the question.
        part: 2D or 3D.
        source_dataset: as people call it.
        source_filename: of the picture before boxes were drawn.
        prompt: as a model reads it.
        width: of the picture, pixels.
        height: of the picture, pixels.
        subjects: asked about.
        others: annotated in the picture besides.
        margin: between two things in space.
        offset: between two things in the picture.
        notices: what cannot be shown, and why.
    """

    idx: int
    part: str
    source_dataset: str | None
    source_filename: str | None
    prompt: str
    width: int
    height: int
    subjects: list[SubjectView]
    others: list[Other]
    margin: Margin | None
    offset: Offset | None
    notices: list[str]


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A decision that is on disk, and the one that it took back if it was an undo."""

    line: Decision
    taken_back: Decision | None = None


@dataclass(frozen=True, slots=True)
class Review:
    """A benchmark in the hands of one reviewer.

    Attributes:
        benchmark: that is reviewed.
        reviewer: name; decides the file of the log.
        log: the file.

    Raises:
        DataError: if the name does not do, or the log is damaged or another benchmark's.
    """

    benchmark: Benchmark
    reviewer: str
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "log", log_path(self.benchmark.folder, self.reviewer))
        self.decisions()

    def decisions(self) -> dict[int, Decision]:
        """What is decided; read anew each time, as another page may have decided since."""
        log = read_log(self.log)
        check_log(self.benchmark, self.log, log)
        return standing(log.decisions)

    def overview(self) -> Overview:
        """All questions, and what to know of the folder."""
        log = read_log(self.log)
        check_log(self.benchmark, self.log, log)
        decided = standing(log.decisions)
        notices = cut_notices(self.log.name, log.cut)
        if not self.benchmark.has_geometry:
            notices.append("This folder holds no geometry.jsonl: no boxes, cuboids or distances can be shown.")
        return Overview(
            folder=self.benchmark.folder.resolve().name,
            reviewer=self.reviewer,
            log=str(self.log),
            notices=notices,
            questions=[to_entry(item, decided.get(idx)) for idx, item in self.benchmark.items.items()],
        )

    def item(self, idx: int) -> Item:
        """A question.

        Raises:
            DataError: if there is none of that number.
        """
        if idx not in self.benchmark.items:
            raise DataError(f"there is no question {idx} in {self.benchmark.folder}.")
        return self.benchmark.items[idx]

    def details(self, idx: int) -> Details:
        """A question with its geometry."""
        item = self.item(idx)
        width, height = load_picture(item).size
        geometry, notices = item.geometry, []
        if geometry is None and self.benchmark.has_geometry:
            notices.append("geometry.jsonl does not tell of this question.")
        if geometry is not None and (geometry.width, geometry.height) != (width, height):
            notices.append(
                f"The picture is {width} x {height} pixels, its geometry is of {geometry.width} x {geometry.height}: "
                "not drawn, as it would be in the wrong place."
            )
            geometry = None
        if geometry is not None and geometry.intrinsics is None and any(one.vertices for one in geometry.subjects):
            notices.append("The source gives no camera (K) for this picture: its cuboids cannot be projected.")
        return to_details(item, width, height, geometry, notices)

    def png(self, idx: int) -> bytes:
        """The picture of a question as a model is shown it, whatever the file's own form is."""
        stream = io.BytesIO()
        load_picture(self.item(idx)).save(stream, "PNG", compress_level=1)
        return stream.getvalue()

    def decide(self, idx: int, kind: Kind, reason: str = "", changes: Changes | None = None) -> Stored:
        """Stores a decision; when this returns, it is on disk.

        Raises:
            DataError: if there is no such question, the decision is incomplete, the benchmark is no longer the one that
                was read, or the decision cannot be stored.
            ImageError: if a question is to be kept whose picture cannot be shown.
        """
        item = self.item(idx)
        self.benchmark.check_unchanged()
        if changes is not None:
            changes = tidy(changes)
            check_changes(changes, item.row)
        if OUTCOMES.get(kind) in KEPT:
            check_picture(item)
        line = Decision(
            idx=idx, decision=kind, reason=reason.strip(), changes=changes, time=now(), question=item.fingerprint
        )
        append(self.log, line)
        return Stored(line=line)

    def undo(self) -> Stored:
        """Takes back the last decision that is not yet taken back.

        Raises:
            DataError: if there is none, the benchmark is no longer the one that was read, or the line cannot be stored.
        """
        self.benchmark.check_unchanged()
        undone = undo(self.log, now())
        if undone is None:
            raise DataError("there is no decision to take back.")
        return Stored(line=undone.line, taken_back=undone.taken_back)


def check_picture(item: Item) -> None:
    """Raises ImageError if the picture cannot be shown: nobody has seen what the question is about."""
    try:
        load_picture(item)
    except ImageError as error:
        raise ImageError(
            f"question {item.asked.idx} cannot be kept, as its picture cannot be shown: {error} Mend it, or reject the "
            "question."
        ) from error


def now() -> str:
    """The time, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def to_entry(item: Item, decision: Decision | None) -> Entry:
    """The question's line in the list."""
    asked = item.asked
    return Entry(
        idx=asked.idx,
        task=asked.task,
        source=asked.source,
        categories=item.categories,
        question=asked.question,
        choices=asked.choices,
        answer=ascii_uppercase[item.place],
        answer_text=asked.choices[item.place],
        file=asked.filename,
        decision=decision,
    )


def to_details(item: Item, width: int, height: int, geometry: Geometry | None, notices: list[str]) -> Details:
    """The question with what its geometry tells."""
    subjects = [] if geometry is None else geometry.subjects
    is_relation = item.asked.task == "Relation" and len(subjects) == 2
    return Details(
        idx=item.asked.idx,
        part=item.asked.type,
        source_dataset=item.asked.source_dataset,
        source_filename=item.asked.source_filename,
        prompt=item.asked.prompt,
        width=width,
        height=height,
        subjects=[to_view(subject, geometry) for subject in subjects if geometry is not None],
        others=[] if geometry is None else geometry.others,
        margin=to_margin(subjects),
        offset=to_offset(*subjects) if is_relation else None,
        notices=notices,
    )


def to_view(subject: Subject, geometry: Geometry) -> SubjectView:
    """The subject with its cuboid projected."""
    lines = None
    if subject.vertices is not None and geometry.intrinsics is not None:
        lines = project_edges(subject.vertices, geometry.intrinsics, geometry.width, geometry.height)
    return SubjectView(
        category=subject.category, box=subject.box, colour=subject.colour, distance=subject.distance, lines=lines
    )


def to_margin(subjects: Sequence[Subject]) -> Margin | None:
    """The margin between the two subjects whose distance is known; None unless there are two."""
    measured = [(subject.distance, subject.colour) for subject in subjects if subject.distance is not None]
    if len(measured) != 2:
        return None
    ((_, farthest), colour), ((nearest, _), _) = sorted(measured, key=lambda one: one[0][1])
    metres = nearest - farthest
    return Margin(nearer=colour, metres=metres, part=metres / farthest if farthest > 0 else None)


def to_offset(located: Subject, reference: Subject) -> Offset:
    """Where the located thing's centre lies, seen from the reference's."""
    (left, top, right, bottom), (left_, top_, right_, bottom_) = located.box, reference.box
    return Offset(right=(left + right - left_ - right_) / 2, down=(top + bottom - top_ - bottom_) / 2)
