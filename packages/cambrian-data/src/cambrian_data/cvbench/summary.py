"""What a benchmark holds, as its manifest says it."""

from __future__ import annotations

import msgspec

from cambrian_data.cvbench.candidates import Task


class SourceTask(msgspec.Struct, frozen=True, kw_only=True):
    """What one source was asked in one task, how evenly, and what was refused.

    Attributes:
        task: such as Count.
        source: such as COCO.
        wanted: questions; None for as many as can be balanced.
        questions: asked.
        pictures: they are about.
        candidates: that the rules allowed and the choice was made among.
        answers: how often each answer is right; in Depth and Distance, the box of which colour.
        letters: how often each letter is right.
        categories: how often the category of the first subject is each.
        rejections: how often each rule refused something (`cambrian_data.cvbench.rejections`).
    """

    task: Task
    source: str
    wanted: int | None
    questions: int
    pictures: int
    candidates: int
    answers: dict[str, int]
    letters: dict[str, int]
    categories: dict[str, int]
    rejections: dict[str, int]


class SourceFile(msgspec.Struct, frozen=True, kw_only=True):
    """What was read of one annotation file, or of a folder of them.

    Attributes:
        source: such as COCO.
        dataset: as people call it.
        name: of the file or folder.
        part: 2D or 3D.
        pictures: annotated in it.
        things: in the pictures.
        left_out: annotations that gave no thing, counted by reason.
    """

    source: str
    dataset: str
    name: str
    part: str
    pictures: int
    things: int
    left_out: dict[str, int]


class BenchmarkSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a benchmark holds.

    Attributes:
        num_questions: over all tasks.
        num_pictures: written.
        parts: that have questions: 2D, 3D.
        tasks: for each task and source, in that order.
        files: that were read.
        content_hash: SHA-256 over the bytes of all files but the manifest.
    """

    num_questions: int
    num_pictures: int
    parts: list[str]
    tasks: list[SourceTask]
    files: list[SourceFile]
    content_hash: str
