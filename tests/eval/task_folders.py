"""Writes tiny benchmark folders in the layout and with the fields that the hub has, in every form that a task reads."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from tests.eval.benchmark_folder import png

Layout = Literal["parquet", "jsonl", "imagefolder"]
LAYOUTS: tuple[Layout, ...] = ("parquet", "jsonl", "imagefolder")

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(seed: int) -> dict[str, Any]:
    """A picture as the hub's tables hold it; equal seeds give equal bytes."""
    return {"bytes": png(seed), "path": f"{seed}.png"}


def write_split(
    folder: Path,
    split: str,
    rows: Sequence[dict[str, Any]],
    *,
    config: str = "",
    layout: Layout = "parquet",
    num_shards: int = 1,
) -> Path:
    """Writes the rows of one split and returns `folder`.

    A value with `bytes` and `path` is a picture, and so is every item of a list of them. Parquet embeds pictures in
    `{config or 'data'}/{split}-*.parquet`, JSONL names files beside `{config}/{split}.jsonl`, an imagefolder names them
    as `file_name` in `{config}/{split}/metadata.jsonl`.
    """
    if layout == "parquet":
        _write_shards(folder / (config or "data"), split, rows, num_shards)
    elif layout == "jsonl":
        _write_lines(folder / config, f"{split}.jsonl", rows)
    else:
        named = [{"file_name" if name == "image" else name: value for name, value in row.items()} for row in rows]
        _write_lines(folder / config / split, "metadata.jsonl", named)
    return folder


def _write_shards(folder: Path, split: str, rows: Sequence[dict[str, Any]], num_shards: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    for shard in range(num_shards):
        own = rows[shard * len(rows) // num_shards : (shard + 1) * len(rows) // num_shards]
        columns = {name: _column([row.get(name) for row in own], [row.get(name) for row in rows]) for name in names}
        pq.write_table(pa.table(columns), folder / f"{split}-{shard:05d}-of-{num_shards:05d}.parquet")


def _column(values: list[Any], everywhere: list[Any]) -> pa.Array:
    if any(_is_picture(value) for value in everywhere):
        return pa.array(values, type=PICTURE)
    if any(isinstance(value, list) and any(map(_is_picture, value)) for value in everywhere):
        return pa.array(values, type=pa.list_(PICTURE))
    return pa.array(values, type=pa.array(everywhere).type)


def _write_lines(folder: Path, name: str, rows: Sequence[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{field: _as_file(value, folder) for field, value in row.items()} for row in rows]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / name).write_text(text, encoding="utf-8")


def _as_file(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_as_file(item, folder) for item in value]
    if not _is_picture(value):
        return value
    (folder / value["path"]).write_bytes(value["bytes"])
    return value["path"]


def _is_picture(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"bytes", "path"}


# Rows of the open tasks, as the hub has them. Two questions stand on each picture where the benchmark asks several.

YES_NO = ("yes", "no")
MME_SUBTASKS = ("existence", "OCR", "code_reasoning")
OCRBENCH_TYPES = (
    "Regular Text Recognition",
    "Scene Text-centric VQA",
    "Doc-oriented VQA",
    "Key Information Extraction",
    "Handwritten Mathematical Expression Recognition",
)
VIZWIZ_TYPES = ("other", "unanswerable", "yes/no", "number")
GQA_TYPES = (("query", "attr"), ("verify", "rel"), ("choose", "attr"))


def _gqa_types(number: int) -> dict[str, str]:
    structural, semantic = GQA_TYPES[number % len(GQA_TYPES)]
    return {"detailed": f"{structural}Rel", "semantic": semantic, "structural": structural}


def _gqa(number: int) -> dict[str, Any]:
    return {
        "id": f"2018{number}",
        "imageId": f"n{number // 2}",
        "question": f"What colour is object {number}?",
        "answer": "red",
        "fullAnswer": "It is red.",
        "types": _gqa_types(number),
    }


def _mme(number: int) -> dict[str, Any]:
    category = MME_SUBTASKS[number // 2 % len(MME_SUBTASKS)]
    return {
        "question_id": f"{category}/{number // 2:04d}.png",
        "image": picture(number // 2),
        "question": f"Is there thing {number}? Please answer yes or no.",
        "answer": YES_NO[number % 2].capitalize(),
        "category": category,
    }


def _mathvista(number: int) -> dict[str, Any]:
    chosen = number % 2 == 0
    return {
        "pid": str(number + 1),
        "question": "How long is it?",
        "image": f"images/{number + 1}.jpg",
        "decoded_image": picture(number),
        "choices": ["3 cm", "4 cm", "5 cm"] if chosen else None,
        "unit": None if chosen else "cm",
        "precision": None if chosen else 1.0,
        "answer": "4 cm" if chosen else "1.5",
        "question_type": "multi_choice" if chosen else "free_form",
        "answer_type": "text" if chosen else "float",
        "metadata": {"task": ("geometry problem solving", "math word problem")[number % 2], "source": "UniGeo"},
        "query": "Hint: Please answer.\nQuestion: How long is it?"
        + ("\nChoices:\n(A) 3 cm\n(B) 4 cm" if chosen else ""),
    }


def _chartqa(number: int) -> dict[str, Any]:
    return {
        "type": ("human_test", "augmented_test")[number % 2],
        "question": f"What is the value of bar {number}?",
        "answer": "100" if number % 3 else "Denmark",
        "image": picture(number // 2),
    }


def _ocrbench(number: int) -> dict[str, Any]:
    return {
        "dataset": "IIIT5K",
        "question": "what is written in the image?",
        "question_type": OCRBENCH_TYPES[number % len(OCRBENCH_TYPES)],
        "answer": ["CENTRE", "Center"],
        "image": picture(number),
    }


def _textvqa(number: int) -> dict[str, Any]:
    return {
        "image_id": f"i{number // 2}",
        "question_id": 34602 + number,
        "question": "what is the brand?",
        "image": picture(number // 2),
        "answers": ["nokia"] * 7 + ["nokia phone", "toshiba", "unanswerable"],
        "ocr_tokens": ["NOKIA", "5:30"] if number % 2 == 0 else [],
    }


def _docvqa(number: int) -> dict[str, Any]:
    return {
        "questionId": str(49153 + number),
        "question": "What is the date?",
        "question_types": ["handwritten", "form"] if number % 2 else ["form"],
        "image": picture(number // 2),
        "docId": 14465,
        "answers": ["3 May 1969", "May 3, 1969"],
    }


def _infovqa(number: int) -> dict[str, Any]:
    return {
        "questionId": str(98313 + number),
        "question": "Which platform leads?",
        "answers": ["pinterest"],
        "answer_type": ["single span"],
        "image": picture(number // 2),
    }


def _stvqa(number: int) -> dict[str, Any]:
    return {"question_id": 100 + number, "question": "What does the sign say?", "image": picture(number // 2)}


def _pope(number: int) -> dict[str, Any]:
    return {
        "id": str(number),
        "question_id": str(number // 6 * 2 + number % 2 + 1),
        "question": f"Is there a snowboard {number} in the image?",
        "answer": YES_NO[number % 2],
        "image_source": f"COCO_val2014_{number // 6:012d}",
        "image": picture(number // 6),
        "category": ("adversarial", "popular", "random")[number // 2 % 3],
    }


def _vizwiz(number: int) -> dict[str, Any]:
    return {
        "question_id": f"VizWiz_val_{number:08d}",
        "image": picture(number),
        "question": "What is this?",
        "answers": ["basil"] * 8 + ["basil leaves", "unanswerable"],
        "category": VIZWIZ_TYPES[number % len(VIZWIZ_TYPES)],
    }


def _synthdog(number: int) -> dict[str, Any]:
    text = f"The quick brown fox number {number}"
    return {"image": picture(number), "ground_truth": json.dumps({"gt_parse": {"text_sequence": text}})}


def _mmvet(number: int) -> dict[str, Any]:
    return {
        "question_id": f"v1_{number}",
        "image": picture(number),
        "question": "What is x in the equation?",
        "answer": "-1<AND>-5",
        "image_source": "dataset",
        "capability": "math, ocr",
    }


ROWS = {
    "gqa": _gqa,
    "mme": _mme,
    "mathvista": _mathvista,
    "chartqa": _chartqa,
    "ocrbench": _ocrbench,
    "textvqa": _textvqa,
    "docvqa": _docvqa,
    "infovqa": _infovqa,
    "stvqa": _stvqa,
    "pope": _pope,
    "vizwiz": _vizwiz,
    "synthdog": _synthdog,
    "mmvet": _mmvet,
}
"""The row of a number, by task."""

CONFIGS = {"docvqa": "DocVQA", "infovqa": "InfographicVQA", "gqa": "testdev_balanced_instructions"}


def rows_of(task: str, num_rows: int = 12) -> list[dict[str, Any]]:
    """The first rows of an open task."""
    return [ROWS[task](number) for number in range(num_rows)]


def write_open_task(
    folder: Path, task: str, split: str, rows: Sequence[dict[str, Any]], *, layout: Layout = "parquet"
) -> Path:
    """Writes an open task's rows as its hub repository lays them out, GQA's pictures in their own table."""
    if task == "gqa":
        names = dict.fromkeys(row.get("imageId", "n0") for row in rows)
        pictures = [{"id": name, "image": picture(int(name[1:]))} for name in names]
        write_split(folder, split, pictures, config="testdev_balanced_images", layout=layout)
    return write_split(folder, split, rows, config=CONFIGS.get(task, ""), layout=layout)
