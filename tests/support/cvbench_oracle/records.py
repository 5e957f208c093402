"""The files of the hub's layout: JSONL, Parquet, pictures and geometry say the same."""

import io
import re
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from tests.support.cvbench_oracle.built import LETTERS, Built, right
from tests.support.cvbench_oracle.raw import Picture, Thing
from tests.support.cvbench_oracle.violations import Violation

FIELDS = [
    *("idx", "type", "task", "question", "choices", "answer", "prompt", "filename", "source", "source_dataset"),
    *("source_filename", "target_class", "target_size", "bbox"),
]
PARTS = {"Count": "2D", "Relation": "2D", "Depth": "3D", "Distance": "3D"}
SELECT = " Select from the following choices."
Faults = list[tuple[str, str]]


def check_tables(built: Built) -> list[Violation]:
    """Parquet holds the rows of JSONL, and the bytes of the pictures."""
    found = []
    for part in ("2d", "3d"):
        file = built.folder / f"test_{part}.parquet"
        expected = [row for row in built.rows if row["type"].lower() == part]
        rows = pq.read_table(file).to_pylist() if file.exists() else []
        if [row["idx"] for row in rows] != [row["idx"] for row in expected]:
            found.append(Violation(None, "parquet", f"{file.name} has other idx than the JSONL file"))
            continue
        for row, line in zip(rows, expected, strict=True):
            image = row.pop("image")
            if row != line:
                different = [key for key in row | line if row.get(key) != line.get(key)]
                found.append(Violation(line["idx"], "parquet", f"differs from JSONL in {different}"))
            if image["bytes"] != (built.folder / line["filename"]).read_bytes():
                found.append(Violation(line["idx"], "parquet", f"its picture is not the file {line['filename']}"))
    return found


def check_numbers(built: Built) -> list[Violation]:
    """Every question has a number and a picture of its own, and geometry for it; no picture lies there unused."""
    numbers = [row["idx"] for row in built.rows]
    found = []
    if numbers != list(range(len(numbers))):
        found.append(Violation(None, "idx", f"{numbers[:20]}; expected 0, 1, 2 and so on"))
    if sorted(built.geometry) != sorted(numbers):
        found.append(Violation(None, "geometry", "geometry.jsonl is about other idx"))
    files = {path.relative_to(built.folder).as_posix() for path in (built.folder / "img").rglob("*") if path.is_file()}
    named = [row["filename"] for row in built.rows]
    if files != set(named) or len(set(named)) < len(named):
        found.append(Violation(None, "filename", f"{sorted(files ^ set(named))[:3]} are not one picture a question"))
    return found


def row_faults(row: dict[str, Any]) -> Faults:
    """What is wrong with one row by itself."""
    found: Faults = []
    if sorted(row) != sorted(FIELDS):
        found.append(("fields", f"{sorted(set(row) ^ set(FIELDS))} are too many or missing"))
    if row["type"] != PARTS[row["task"]]:
        found.append(("type", f"{row['type']} of {row['task']}"))
    choices = row["choices"]
    if not all(isinstance(choice, str) and choice for choice in choices) or len(set(choices)) < len(choices):
        found.append(("choices", f"{choices}; expected different texts"))
    if not re.fullmatch(r"\([A-F]\)", row["answer"]) or right(row) is None:
        found.append(("letter", f"{row['answer']} of {len(choices)} choices"))
    lettered = "".join(f"\n({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    if row["prompt"] != row["question"] + SELECT + lettered:
        found.append(("prompt", f"{row['prompt']!r}"))
    if row["task"] != "Count" and (row["target_class"], row["target_size"]) != (None, None):
        found.append(("target_class", f"{row['target_class']} in {row['task']}"))
    if (row["bbox"] is None) != (row["type"] == "2D"):
        found.append(("bbox", f"{row['bbox']} in a question of {row['type']}"))
    return found


def geometry_faults(row: dict[str, Any], line: dict[str, Any], things: list[Thing], picture: Picture) -> Faults:
    """What geometry.jsonl says otherwise than the annotations."""
    found: Faults = []
    expected = {
        "file": row["filename"],
        "width": picture.width,
        "height": picture.height,
        "source": row["source"],
        "source_filename": picture.file_name,
    }
    found += [
        ("geometry", f"{key} is {line[key]}; expected {value}") for key, value in expected.items() if line[key] != value
    ]
    if not same_array(line["K"], picture.intrinsics):
        found.append(("geometry", f"K is {line['K']}; expected {picture.intrinsics}"))
    ids = [one["id"] for one in line["subjects"]]
    right = [thing.id for thing in things]
    if (sorted(ids) != sorted(right)) if row["task"] == "Count" else (ids != right):
        return [*found, ("geometry", f"subjects {ids}; expected {right}")]
    by_id = {thing.id: thing for thing in things}
    for one in line["subjects"]:
        found += subject_faults(one, by_id[one["id"]])
    origin = things[0].vertices.mean(axis=0) if row["task"] == "Distance" else np.zeros(3)
    for number, one in enumerate(line["subjects"]):
        has_none = row["task"] in ("Count", "Relation") or (row["task"] == "Distance" and number == 0)
        distances = None if has_none else np.linalg.norm(by_id[one["id"]].vertices - origin, axis=1)
        reach = None if distances is None else [distances.min(), distances.max()]
        if not same_array(one["distance"], reach):
            found.append(("geometry", f"distance of {one['id']} is {one['distance']}; expected {reach}"))
    return found + other_faults(line, things, picture)


def same_array(first: Any, second: Any) -> bool:
    """Whether both are absent, or the same numbers up to rounding."""
    if first is None or second is None:
        return first is None and second is None
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    return first.shape == second.shape and bool(np.allclose(first, second, rtol=1e-9, atol=1e-6))


def subject_faults(one: dict[str, Any], thing: Thing) -> Faults:
    """What one line says of one thing otherwise than its annotation."""
    found: Faults = []
    if one["category"] not in (thing.name, thing.shown):
        found.append(("geometry", f"category of {thing.id} is {one['category']}; expected {thing.name}"))
    if not same_array(one["box"], thing.box):
        found.append(("geometry", f"box of {thing.id} is {one['box']}; expected {thing.box}"))
    if not same_array(one["vertices"], thing.vertices if len(thing.vertices) else None):
        found.append(("geometry", f"vertices of {thing.id} are {one['vertices']}"))
    return found


def other_faults(line: dict[str, Any], things: list[Thing], picture: Picture) -> Faults:
    """The other things are all other things of the picture, by name and box."""
    asked = {thing.id for thing in things}
    others = [thing for thing in picture.things if thing.id not in asked and not thing.part]
    expected = sorted((thing.shown, *np.round(thing.box, 3)) for thing in others)
    found = sorted((one["category"].split(",")[0], *np.round(one["box"], 3)) for one in line["others"])
    if found != expected:
        return [("geometry", f"{len(found)} others; expected {len(expected)}, or they differ")]
    return []


def bbox_faults(row: dict[str, Any], things: list[Thing]) -> Faults:
    """The row's boxes are those of the annotations: red, blue, green."""
    if row["bbox"] is None or same_array(row["bbox"], [thing.box for thing in things]):
        return []
    return [("bbox", f"{row['bbox']}; expected {[thing.box for thing in things]}")]


def open_picture(built: Built, row: dict[str, Any]) -> Image.Image:
    """The picture of a question."""
    return Image.open(io.BytesIO((built.folder / row["filename"]).read_bytes()))
