"""docs/evaluation/differences.md says what is so: every reply and every file of its tables is run."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cambrian_eval import TASKS, compat
from cambrian_eval.prompts import options
from cambrian_eval.types import Question, Score

PAGE = Path(__file__).parents[2] / "docs" / "evaluation" / "differences.md"
PROFILES = {"reference": "reference", "lmms-eval": "lmms-eval", "VLMEvalKit": "vlmevalkit"}
PARTS = {"cvbench": ("2D", "COCO"), "cvbench-2d": ("2D", "COCO"), "cvbench-3d": ("3D", "Omni3D")}


class Example(NamedTuple):
    """One row of a table of replies."""

    profile: str
    task: str
    options: str
    right: str
    reply: str
    read: str
    value: str
    ours: str
    our_value: str
    why: str


def tables(width: int):
    """The cells of rows of tables that are so wide, and the heading they stand under."""
    heading = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("| ") else []
        if len(cells) == width and cells[0] not in ("task", "benchmark") and not cells[0].startswith("---"):
            yield heading, cells


EXAMPLES = [Example(PROFILES[heading], *cells) for heading, cells in tables(9)]
FILES = [cells for _, cells in tables(5)]


def value_of(cell: str) -> Any:
    """JSON in code marks; "nothing" is None."""
    return None if cell == "nothing" else json.loads(cell.strip("`"))


def question_of(example: Example) -> Question:
    right = example.right.strip("`")
    people = re.fullmatch(r"(\d+) people", example.options)
    choices = tuple(value_of(example.options)) if example.options.startswith("`") else ()
    part, source = PARTS.get(example.task, ("val", ""))
    text = f"Q Options:\n{options(choices)}" if choices else "Q"
    answers = (right,) * (int(people[1]) if people else 1)
    return Question("q", text, choices, answers, (), part, "", source, details={"asked": "Q"})


def shown(score: Score) -> tuple[Any, str]:
    return score.extracted, f"{score.value:g}"


@pytest.mark.parametrize("example", EXAMPLES, ids=[f"{e.profile}-{e.task}-{e.reply!a}" for e in EXAMPLES])
def test_reply_is_read_as_the_page_says(example):
    task, question, reply = TASKS.get(example.task), question_of(example), value_of(example.reply)
    theirs = compat.apply(example.profile, task).score(question, reply)
    assert shown(theirs) == (value_of(example.read), example.value)
    assert shown(task.score(question, reply)) == (value_of(example.ours), example.our_value)
    assert example.why


def test_page_has_examples_of_every_profile_and_of_every_task_that_the_reference_scores():
    by_profile = {profile: [e.task for e in EXAMPLES if e.profile == profile] for profile in compat.PROFILES}
    assert {profile: len(found) > 8 for profile, found in by_profile.items()} == dict.fromkeys(compat.PROFILES, True)
    assert {"mmvp", "mmbench-en", "mmbench-cn"} < set(by_profile["lmms-eval"]) & {*by_profile["vlmevalkit"], "mmvp"}
    named = "ai2d blink chartqa cvbench-2d cvbench-3d gqa mathvista mmbench-cn mmbench-en mme mmmu mmstar mmvp ocrbench"
    named += " pope qbench realworldqa scienceqa seed textvqa vizwiz vstar"
    assert set(by_profile["reference"]) == set(named.split())


def test_page_shows_invented_answers_lost_answers_and_crashes():
    invented = [e for e in EXAMPLES if e.value == "1" and e.our_value == "0"]
    lost = [e for e in EXAMPLES if e.value == "0" and e.our_value == "1"]
    assert len(invented) >= 15
    assert len(lost) >= 25
    assert sum(value_of(e.reply) == "" for e in EXAMPLES) >= 3


def rows_of(benchmark: str, lines: str) -> list[dict[str, Any]]:
    columns: dict[str, dict[str, Any]] = {
        "mmvp": {"text_options": ["x", "y"]},
        "mme": {"category": "count"},
        "scienceqa": {"text_answer": "x"},
    }
    truth, other = ("yes", "no") if benchmark == "mme" else ("(A)", "B") if benchmark == "mmvp" else ("A", "B")
    right = "A" if benchmark == "mmvp" else truth
    return [
        {
            "answer": right if line[0] == "1" else other,
            "gt_answer": truth,
            "type": not line.endswith("t"),
            **columns[benchmark],
        }
        for line in lines.strip("`").split()
    ]


@pytest.mark.parametrize("cells", FILES, ids=[" ".join(cells[:2]) for cells in FILES])
def test_file_is_counted_as_the_page_says(cells):
    benchmark, lines, gives, counted, _ = cells
    key, shown_value = gives.replace("`", "").split()
    result = compat.aggregate("reference", benchmark, rows_of(benchmark, lines))
    result = result.get("count", result)
    assert str(result[key]).removesuffix(".0") == shown_value
    hits = [line[0] == "1" for line in lines.strip("`").split()]
    if benchmark == "scienceqa" and counted != "None":
        assert sum(hits) / len(hits) == float(counted)
    if benchmark in ("mmvp", "mme"):
        first = 1 if "without their first line" in cells[4] else 0
        pairs = list(zip(hits[first::2], hits[first + 1 :: 2], strict=False))
        assert 100 * sum(map(all, pairs)) / len(pairs) == float(counted)


def test_every_file_of_the_page_is_run():
    assert len(FILES) == 6


def test_code_of_the_page_gives_what_it_says():
    code = re.findall(r"^(compat\.score\(.*\))\n# (Score\(.*\))$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(code) == 2
    for call, result in code:
        assert repr(eval(call, {"compat": compat})) == result
