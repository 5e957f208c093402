"""One made-up question for every benchmark, as its data would have it: what `cambrian tasks show` renders.

The rows are read by the benchmark itself, so they show which fields and files a folder of one's own needs. Texts are
made up; no published question stands here.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from cambrian_eval.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cambrian_eval.task import Task
    from cambrian_eval.types import Question

PICTURE = "picture.png"
_NO_PICTURE = b"\x89PNG\r\n\x1a\n"  # never decoded

Rows = list[dict[str, Any]]

_SHOWN = {"image": PICTURE}
_ASKED = {"question": "What is on the table?", **_SHOWN}
_TEN = ["a cat"] * 10
_CHOICES = {"A": "a cat", "B": "a dog", "C": "a bus", "D": "a tree"}


def _cvbench(part: str, task: str, source: str) -> dict[str, Any]:
    return {
        "idx": 0,
        "type": part,
        "task": task,
        "question": "Which one is closer?",
        "choices": ["cat", "bus"],
        "answer": "(A)",
        "prompt": "Which one is closer? Select from the following choices.\n(A) cat\n(B) bus",
        "filename": PICTURE,
        "source": source,
    }


def _mmbench(question: str, options: Mapping[str, str]) -> Rows:
    shown = {"question": question, "hint": "nan", **options, "category": "object_localization", **_SHOWN}
    return [{"index": 7, **shown, "answer": "A", "source": "photos", "l2-category": "finegrained_perception"}]


_TWO_D, _THREE_D = [_cvbench("2D", "Relation", "COCO")], [_cvbench("3D", "Depth", "Omni3D")]
_TEXTVQA = [{"question_id": 1, "image_id": "a", **_ASKED, "ocr_tokens": ["STOP", "Main St"], "answers": _TEN}]

FILES: Mapping[str, Mapping[str, Rows]] = {
    "ai2d": {"test.jsonl": [{**_ASKED, "options": list(_CHOICES.values()), "answer": "0"}]},
    "blink": {
        "val.jsonl": [
            {
                "idx": "val_Jigsaw_1",
                "sub_task": "Jigsaw",
                "prompt": "Which picture fits?\nSelect from the following choices.\n(A) the second\n(B) the third",
                "choices": ["the second", "the third"],
                "answer": "(A)",
                **{f"image_{number}": PICTURE for number in (1, 2, 3)},
            }
        ]
    },
    "chartqa": {"test.jsonl": [{"type": "human_test", **_ASKED, "answer": "7.5"}]},
    "cvbench": {"test_2d.jsonl": _TWO_D, "test_3d.jsonl": _THREE_D},
    "cvbench-2d": {"test_2d.jsonl": _TWO_D},
    "cvbench-3d": {"test_3d.jsonl": _THREE_D},
    "docvqa": {
        "DocVQA/validation.jsonl": [{"questionId": "1", **_ASKED, "answers": ["a cat"], "question_types": ["layout"]}]
    },
    "gqa": {
        "testdev.jsonl": [
            {
                "id": "1",
                "imageId": "n1",
                **_ASKED,
                "answer": "cat",
                "types": {"structural": "query", "semantic": "obj", "detailed": "category"},
            }
        ]
    },
    "infovqa": {
        "InfographicVQA/validation.jsonl": [
            {"questionId": "1", **_ASKED, "answers": ["7"], "answer_type": ["non-extractive"]}
        ]
    },
    "mathvista": {
        "testmini.jsonl": [
            {
                "pid": "1",
                "query": "Hint: Please answer with a number.\nQuestion: How long is the side?",
                "question_type": "free_form",
                "answer_type": "float",
                "answer": "1.5",
                "choices": None,
                "precision": 1.0,
                **_SHOWN,
            }
        ]
    },
    "mmbench-cn": {"dev.jsonl": _mmbench("桌子上有什么?", {"A": "猫", "B": "狗", "C": "公交车", "D": "nan"})},
    "mmbench-en": {"dev.jsonl": _mmbench("What is on the table?", _CHOICES)},
    "mme": {
        "test.jsonl": [
            {
                "question_id": "existence/1.png",
                "category": "existence",
                **_SHOWN,
                "question": f"Is there a {thing} in this image? Please answer yes or no.",
                "answer": answer,
            }
            for thing, answer in (("cat", "Yes"), ("bus", "No"))
        ]
    },
    "mmmu": {
        "validation.jsonl": [
            {
                "id": "validation_Art_Theory_1",
                "question": "Which work is older, <image 1> or <image 2>?",
                "options": "['the painter\\'s', \"the sculptor's\"]",
                "answer": "A",
                "question_type": "multiple-choice",
                "image_1": PICTURE,
                "image_2": PICTURE,
            }
        ]
    },
    "mmstar": {
        "val.jsonl": [
            {
                "index": 0,
                "question": "What is on the table?\nOptions: A: a cat, B: a dog, C: a bus, D: a tree",
                "answer": "A",
                "category": "coarse perception",
                "l2_category": "image scene and topic",
                **_SHOWN,
            }
        ]
    },
    "mmvet": {"test.jsonl": [{"question_id": "v1_0", **_ASKED, "answer": "a cat", "capability": ["rec"]}]},
    "mmvp": {
        "train.jsonl": [
            {
                "Index": index,
                "Question": "Is the cat awake or asleep?",
                "Options": "(a) Awake (b) Asleep",
                "Correct Answer": answer,
                **_SHOWN,
            }
            for index, answer in ((1, "(a)"), (2, "(b)"))
        ]
    },
    "ocrbench": {"test.jsonl": [{"question_type": "Digit String Recognition", **_ASKED, "answer": ["2024"]}]},
    "pope": {
        "test.jsonl": [
            {
                "question_id": "1",
                "question": "Is there a cat in the image?",
                "answer": "yes",
                "image_source": "COCO_1",
                "category": "random",
                **_SHOWN,
            }
        ]
    },
    "qbench": {
        "llvisionqa_dev.json": [
            {
                "question": "Is this picture sharp?",
                "candidates": ["Yes", "No"],
                "correct_ans": "Yes",
                "img_path": PICTURE,
                "type": 0,
                "concern": 0,
            }
        ]
    },
    "realworldqa": {
        "test.jsonl": [
            {
                "question": "What is on the table?\n\nA. A cat.\nB. A bus.\n"
                "Please answer directly with only the letter of the correct option and nothing else.",
                "answer": "A",
                **_SHOWN,
            }
        ]
    },
    "scienceqa": {
        "test.jsonl": [
            {
                **_ASKED,
                "choices": ["a cat", "a bus"],
                "answer": 0,
                "hint": "Cats like tables.",
                "subject": "natural science",
                "grade": "grade2",
            }
        ]
    },
    "seed": {
        "test.jsonl": [
            {
                "question_id": "1",
                **_ASKED,
                **{f"choice_{letter.lower()}": text for letter, text in _CHOICES.items()},
                "answer": "A",
                "question_type_id": 1,
            }
        ]
    },
    "stvqa": {"test.jsonl": [{"question_id": "1", **_ASKED}]},
    "synthdog": {"validation.jsonl": [{**_SHOWN, "ground_truth": '{"gt_parse": {"text_sequence": "a page of text"}}'}]},
    "textvqa": {"validation.jsonl": _TEXTVQA},
    "textvqa-no-ocr": {"validation.jsonl": _TEXTVQA},
    "vizwiz": {"val.jsonl": [{"question_id": "1.jpg", **_ASKED, "category": "other", "answers": _TEN}]},
    "vstar": {
        "test_questions.jsonl": [
            {
                "question_id": 0,
                "text": "What colour is the cat?\n(A) black\n(B) white\n"
                "Answer with the option's letter from the given choices directly.",
                "category": "direct_attributes",
                "label": "A",
                **_SHOWN,
            }
        ]
    },
}
"""By task: the files of a folder and their rows."""


def example_files(task: Task) -> Mapping[str, Rows]:
    """The files of a made-up folder that the task reads, and their rows.

    Raises:
        DataError: The task has no example.
    """
    if task.name not in FILES:
        raise DataError(f"{task.name}: found no example, expected one in cambrian_eval.examples; add it.")
    return FILES[task.name]


def example_questions(task: Task) -> Sequence[Question]:
    """The made-up questions, as the task reads them. Their pictures are no pictures.

    Raises:
        DataError: The task has no example.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_example(task, folder)
        return task.questions(folder, task.splits[0])


def write_example(task: Task, folder: Path, picture: bytes = _NO_PICTURE) -> None:
    """Write the made-up folder of a task, the same picture beside every table.

    Raises:
        DataError: The task has no example.
    """
    for name, rows in example_files(task).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / PICTURE).write_bytes(picture)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_text(json.dumps(rows) if path.suffix == ".json" else lines, encoding="utf-8")
