"""The hub's layout of CV-Bench: test_2d.jsonl and test_3d.jsonl beside img/, as the evaluation reads it.

Source: dataset card and rows of the hub's nyu-visionx/CV-Bench.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from cambrian_data.cvbench.candidates import Task
from cambrian_data.cvbench.pictures import boxes
from cambrian_data.cvbench.questions import Question
from cambrian_data.records import Row


class Origin(NamedTuple):
    """Where the pictures come from.

    Attributes:
        source: by which the official score weighs, such as COCO.
        dataset: as people call it, such as COCO 2017 Validation Set.
        stem: how the names of its pictures begin, such as omni3d_sunrgbd; the source in lower case if empty.
    """

    source: str
    dataset: str
    stem: str = ""


def file_names(questions: Sequence[Question], origins: Sequence[Origin]) -> list[str]:
    """A name for the picture of each question, such as img/2D/count/coco_287.png."""
    numbers: Counter[tuple[Task, str]] = Counter()
    names = []
    for question, origin in zip(questions, origins, strict=True):
        task, stem = question.task, origin.stem or origin.source.lower()
        names.append(f"img/{task.part}/{task.lower()}/{stem}_{numbers[task, stem]}.png")
        numbers[task, stem] += 1
    return names


def row(question: Question, index: int, name: str, origin: Origin) -> Row:
    """One line of test_2d.jsonl or test_3d.jsonl.

    `bbox` holds left, top, right and bottom in pixels of the things in the red, blue and green box, and only in 3D, as
    on the hub. `target_size` is the number of pixels of the smallest thing counted.
    """
    candidate = question.candidate
    is_count = question.task is Task.COUNT
    sizes = [thing.area for thing in candidate.subjects] if is_count else []
    return {
        "idx": index,
        "type": question.task.part,
        "task": str(question.task),
        "question": question.text,
        "choices": list(question.choices),
        "answer": f"({question.letter})",
        "prompt": question.prompt,
        "filename": name,
        "source": origin.source,
        "source_dataset": origin.dataset,
        "source_filename": candidate.picture.file_name,
        "target_class": candidate.category[0] if is_count else None,
        "target_size": min(sizes) if sizes else None,
        "bbox": [list(box) for box in boxes(question).values()] if question.task.part == "3D" else None,
    }


def table(part: str) -> str:
    """The name of a part's file."""
    return f"test_{part.lower()}.jsonl"


def parquet(part: str) -> str:
    """The name of a part's file with the pictures in it."""
    return f"test_{part.lower()}.parquet"
