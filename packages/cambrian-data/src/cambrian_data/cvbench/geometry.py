"""What a question is about in numbers: boxes, vertices and distances, for whoever reviews it.

One line of geometry.jsonl for each question. Boxes are left, top, right, bottom in pixels of the picture, vertices and
distances metres in the camera frame (x right, y down, z forward), `K` the camera's matrix in pixels.
"""

from __future__ import annotations

from typing import Any

from cambrian_data.cvbench.annotations import Cuboid
from cambrian_data.cvbench.candidates import Candidate, Task
from cambrian_data.cvbench.layout import Origin
from cambrian_data.cvbench.makers.space import CAMERA, spans, vertices
from cambrian_data.cvbench.questions import BOX_COLOURS, Question
from cambrian_data.records import Row

FILE = "geometry.jsonl"


def geometry(question: Question, index: int, name: str, origin: Origin) -> Row:
    """One line of geometry.jsonl.

    Args:
        question: that is asked.
        index: its idx.
        name: of its picture in the benchmark.
        origin: of the picture.
    """
    candidate = question.candidate
    picture = candidate.picture
    asked = {thing.id for thing in candidate.subjects}
    return {
        "idx": index,
        "file": name,
        "width": picture.width,
        "height": picture.height,
        "source": origin.source,
        "source_filename": picture.file_name,
        "K": picture.intrinsics,
        "category": list(candidate.category),
        "subjects": [
            {
                "id": thing.id,
                "category": thing.category,
                "box": list(thing.box),
                "colour": BOX_COLOURS[number] if candidate.boxed[number] else None,
                "vertices": thing.vertices if isinstance(thing, Cuboid) else None,
                "distance": distance,
            }
            for number, (thing, distance) in enumerate(zip(candidate.subjects, distances(candidate), strict=True))
        ],
        "others": [
            {"category": thing.category, "box": list(thing.box)} for thing in picture.things if thing.id not in asked
        ],
    }


def distances(candidate: Candidate[Any]) -> list[list[float] | None]:
    """For each subject, how near and how far its vertices are: from the camera, or from the centre of the reference."""
    if candidate.task.part == "2D":
        return [None] * len(candidate.subjects)
    corners = vertices(candidate.subjects)
    is_distance = candidate.task is Task.DISTANCE
    found = spans(corners, corners[0].mean(axis=0) if is_distance else CAMERA)
    reach = [list(pair) for pair in zip(found.nearest.tolist(), found.farthest.tolist(), strict=True)]
    return [None, *reach[1:]] if is_distance else [*reach]
