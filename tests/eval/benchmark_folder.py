"""Writes small CV-Bench folders in the hub's layout, with real pictures."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CHOICES = {
    "Count": ["0", "1", "2", "3"],
    "Relation": ["left", "right"],
    "Depth": ["sink", "bottle"],
    "Distance": ["shelves", "books"],
}
QUESTIONS = {
    "Count": "How many trains are in the image?",
    "Relation": "Where is the book located with respect to the couch?",
    "Depth": "Which object is closer to the camera, the sink or the bottle?",
    "Distance": "Which object is closer to the desk, the shelves or the books?",
}
PARTS = {"2D": ("Count", "Relation"), "3D": ("Depth", "Distance")}
PUBLISHED = {"2D": ("ADE20K", "COCO"), "3D": ("Omni3D",)}
SCENES = {"2D": ("Scenes2D",), "3D": ("Scenes3D",)}


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def row(idx, part, task, source, answer=None):
    choices = CHOICES[task]
    letters = "ABCD"[: len(choices)]
    letter = answer or letters[(idx * 7 + idx // 3) % len(letters)]
    lines = "\n".join(f"({name}) {choice}" for name, choice in zip(letters, choices, strict=True))
    return {
        "idx": idx,
        "type": part,
        "task": task,
        "question": QUESTIONS[task],
        "choices": choices,
        "answer": f"({letter})",
        "prompt": f"{QUESTIONS[task]} Select from the following choices.\n{lines}",
        "filename": f"img/{part}/{task.lower()}/{source.lower()}_{idx}.png",
        "source": source,
        "source_dataset": source,
        "source_filename": f"{idx}.png",
        "target_class": None,
        "target_size": None,
        "bbox": None,
    }


def rows(part, sources, per_group):
    groups = [(task, source) for task in PARTS[part] for source in sources[part] for _ in range(per_group)]
    first = 0 if part == "2D" else 1438
    return [row(first + number, part, task, source) for number, (task, source) in enumerate(groups)]


def write_jsonl(path: Path, table) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in table), encoding="utf-8")
    for line in table:
        picture = path.parent / line["filename"]
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(png(line["idx"]))


def write_parquet(path: Path, table) -> None:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {name: [line[name] for line in table] for name in table[0]}
    columns["image"] = pa.array(
        [{"bytes": png(line["idx"]), "path": f"{line['idx']}.png"} for line in table], type=image
    )
    pq.write_table(pa.table(columns), path)


def write_cvbench(folder: Path, *, sources=None, per_group=3, layout="jsonl", parts=("2D", "3D")) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        table = rows(part, sources or PUBLISHED, per_group)
        name = f"test_{part.lower()}.{layout}"
        (write_jsonl if layout == "jsonl" else write_parquet)(folder / name, table)
    return folder


def truths(folder: Path):
    """Right letter by question id, read from the JSONL files as they lie there."""
    found = {}
    for path in sorted(folder.glob("test_*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            values = json.loads(line)
            found[f"{values['type'].lower()}-{values['idx']}"] = values["answer"].strip("()")
    return found
