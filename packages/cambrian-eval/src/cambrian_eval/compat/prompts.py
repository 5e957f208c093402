"""The user turns that the reference builds from rows of the published data, and its settings.

`<image>` and a new line stand in front wherever the row has a picture. No conversation template is applied.

Source: cambrian-mllm/cambrian, commit 539ffc3, eval/eval/*/*_eval.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from cambrian_eval.suffixes import LETTER, LETTER_ONLY, NUMBER, REASON, SHORT, UNANSWERABLE, WORD

IMAGE = "<image>\n"

_TRANSCRIBE = (
    "Please transcribe the text from the image word by word. Only include the words found in the image, and avoid "
    "adding any additional context or information."
)
_EMPTY = "nan"
_IMAGE_TAG = re.compile(r"<image \d+>")
_QUOTED = re.compile(r"'(.*?)'")


@dataclass(frozen=True)
class Setting:
    """How the reference asks one benchmark.

    Attributes:
        turn: Row and format instruction -> the user turn without the picture.
        instruction: The format instruction; three scripts define one and do not use it.
        max_new_tokens: Its budget for a reply.
        hub: The data sets that it reads: hub id, then configuration, split or files, as its code names them.
        picture: The column of the picture that it shows; "" where one is always shown.
    """

    turn: Callable[[Mapping[str, Any], str], str]
    instruction: str
    max_new_tokens: int
    hub: tuple[tuple[str, ...], ...]
    picture: str = "image"

    @property
    def defaults(self) -> dict[str, Any]:
        """The command line's defaults."""
        return {
            "question_extension": self.instruction,
            "conv_mode": "vicuna_v1",
            "temperature": 0,
            "top_p": None,
            "num_beams": 1,
            "max_new_tokens": self.max_new_tokens,
            "seed": 42,
        }

    def prompt(self, row: Mapping[str, Any]) -> str:
        """The user turn for a row.

        Raises:
            KeyError: The row lacks a column.
        """
        shown = IMAGE if not self.picture or row[self.picture] is not None else ""
        return shown + self.turn(row, self.instruction)


def _plain(row: Mapping[str, Any], instruction: str, *, column: str = "question") -> str:
    return f"{row[column]}\n{instruction}"


def _prompt_column(row: Mapping[str, Any], instruction: str) -> str:
    return _plain(row, instruction, column="prompt")


def _bare(row: Mapping[str, Any], _instruction: str) -> str:
    return row["question"]


def _vstar(row: Mapping[str, Any], _instruction: str) -> str:
    return row["text"]


def _synthdog(_row: Mapping[str, Any], _instruction: str) -> str:
    return _TRANSCRIBE


def _textvqa(row: Mapping[str, Any], instruction: str) -> str:
    tokens = row["ocr_tokens"]
    return f"{row['question']}\nReference OCR tokens:{' ' if tokens else ''}{', '.join(tokens)}\n{instruction}"


def _lettered(question: str, options: Iterable[str], instruction: str) -> str:
    lines = [f"{letter}. {text}" for letter, text in zip(ascii_uppercase, options, strict=False)]
    return "\n".join([question, *lines, instruction])


def _ai2d(row: Mapping[str, Any], instruction: str) -> str:
    return _lettered(row["question"], row["options"], instruction)


def _scienceqa(row: Mapping[str, Any], instruction: str) -> str:
    question = f"{row['hint']} {row['question']}" if row["hint"] else row["question"]
    return _lettered(question, row["choices"], instruction)


def _seed(row: Mapping[str, Any], instruction: str) -> str:
    return _lettered(f"{row['question']} Options:", [row[f"choice_{letter}"] for letter in "abcd"], instruction)


def _qbench(row: Mapping[str, Any], instruction: str) -> str:
    return _lettered(f"{row['question']} Options:", row["candidates"], instruction)


def _mmvp(row: Mapping[str, Any], instruction: str) -> str:
    first, *rest = (part.strip().replace("(a)", "A.") for part in row["options"].split("(b)"))
    lines = [first, *(("B. " if number == 0 else "") + part for number, part in enumerate(rest))]
    return "\n".join([f"{row['question']} Options:", *lines, instruction])


def _mmbench(row: Mapping[str, Any], instruction: str) -> str:
    """Empty cells are the text "nan"; an option that says so is dropped, and the letters do not move up."""
    question = row["question"] if row["hint"] == _EMPTY else f"{row['hint']}\n{row['question']}"
    options = [f"{letter}. {row[letter]}" for letter in "ABCD" if row[letter] != _EMPTY]
    return "\n".join([f"{question} Options:", *options, instruction])


def _mmmu(row: Mapping[str, Any], instruction: str) -> str:
    """Options are whatever stands between two apostrophes, so "it's" falls apart; the tags of pictures vanish."""
    question = row["question"]
    if row["question_type"] == "multiple-choice":
        question = _lettered(f"{question} Options:", _QUOTED.findall(row["options"]), instruction)
    else:
        question = f"{question}\n{WORD}"
    question = _IMAGE_TAG.sub("", question)
    return question.rstrip() if row["image_1"] is not None else question.strip()


def _mathvista(row: Mapping[str, Any], instruction: str) -> str:
    return f"{row['query']}\n{instruction if row['question_type'] == 'multi_choice' else WORD}"


SETTINGS: dict[str, Setting] = {
    "coco": Setting(_prompt_column, LETTER, 512, (("SaiCharithaAkula21/benchmark_coco_filtered", "train"),)),
    "ade": Setting(_prompt_column, LETTER, 512, (("SaiCharithaAkula21/benchmark_ade_manual", "train"),)),
    "omni": Setting(_prompt_column, LETTER, 512, (), picture="image_name"),
    "gqa": Setting(
        _plain,
        WORD,
        128,
        (
            ("lmms-lab/GQA", "testdev_balanced_images", "testdev"),
            ("lmms-lab/GQA", "testdev_balanced_instructions", "testdev"),
        ),
        picture="",
    ),
    "textvqa": Setting(_textvqa, WORD, 512, (("lmms-lab/textvqa", "validation"),)),
    "docvqa": Setting(_plain, SHORT, 128, (("lmms-lab/DocVQA", "DocVQA", "test"),)),
    "infovqa": Setting(_plain, WORD, 128, (("lmms-lab/DocVQA", "InfographicVQA", "test"),)),
    "stvqa": Setting(_plain, WORD, 128, (("lmms-lab/ST-VQA", "test"),)),
    "chartqa": Setting(_plain, NUMBER, 128, (("lmms-lab/ChartQA", "test"),)),
    "ocrbench": Setting(_plain, SHORT, 512, (("echo840/OCRBench", "test"),)),
    "mme": Setting(_plain, WORD, 32, (("lmms-lab/MME", "test"),)),
    "mmmu": Setting(_mmmu, LETTER, 512, (("lmms-lab/MMMU", "validation"), ("lmms-lab/MMMU", "dev")), picture="image_1"),
    "mathvista": Setting(
        _mathvista,
        REASON,
        512,
        (("AI4Math/MathVista", "testmini"),),
        picture="decoded_image",
    ),
    "ai2d": Setting(_ai2d, LETTER, 512, (("lmms-lab/ai2d", "test"),)),
    "scienceqa": Setting(_scienceqa, LETTER_ONLY, 512, (("derek-thomas/ScienceQA", "test"),)),
    "seed": Setting(_seed, LETTER, 512, (("lmms-lab/SEED-Bench", "test"),)),
    "pope": Setting(_plain, WORD, 128, (("lmms-lab/POPE", "test"),)),
    "realworldqa": Setting(_bare, WORD, 512, (("lmms-lab/RealWorldQA", "test"),)),
    "vizwiz": Setting(
        _plain,
        UNANSWERABLE,
        128,
        (("lmms-lab/VizWiz-VQA", "val"), ("lmms-lab/VizWiz-VQA", "test")),
    ),
    "mmstar": Setting(_plain, LETTER_ONLY, 128, (("Lin-Chen/MMStar", "val"),)),
    "blink": Setting(_prompt_column, LETTER_ONLY, 32, (("BLINK-Benchmark/BLINK", "cat", "val"),), picture="image_1"),
    "mmvet": Setting(_bare, WORD, 128, (("lmms-lab/MMVet", "test"),)),
    "synthdog": Setting(_synthdog, WORD, 128, (("naver-clova-ix/synthdog-en", "validation"),)),
    "mmbench_en": Setting(_mmbench, LETTER, 512, (("lmms-lab/MMBench_EN", "dev"),)),
    "mmbench_cn": Setting(
        _mmbench,
        "请直接回答选项字母。",
        128,
        (("lmms-lab/MMBench_CN", "default", "dev"),),
    ),
    "mmvp": Setting(
        _mmvp,
        LETTER,
        512,
        (("MMVP/MMVP", "{i+1}.jpg", "MMVP Images", "dataset"), ("MMVP/MMVP", "Questions.csv", "dataset")),
        picture="",
    ),
    "qbench": Setting(
        _qbench,
        LETTER_ONLY,
        32,
        (
            ("teowu/LLVisionQA-QBench", "images_llvisionqa.tar", "dataset"),
            ("teowu/LLVisionQA-QBench", "llvisionqa_dev.json", "dataset"),
        ),
        picture="",
    ),
    "vstar": Setting(
        _vstar,
        LETTER,
        32,
        (("craigwu/vstar_bench", "test"), ("craigwu/vstar_bench", "image_id", "sub_folder", "dataset")),
    ),
}
