"""CV-Bench: counting, spatial relation, depth order and relative distance; multiple choice, one picture a question.

Reads the layout of the hub's `nyu-visionx/CV-Bench`: `test_2d` and `test_3d`, each as Parquet with embedded pictures
or, where there is no Parquet, as JSONL beside the pictures it names. The headline is the published score, which weighs
sources and not questions; the micro mean that several tools report instead is given beside it under its own name.

Source: dataset card of nyu-visionx/CV-Bench; Cambrian-1 (arXiv 2406.16860), section 3.2.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cambrian_eval import suffixes
from cambrian_eval.dataset import unique
from cambrian_eval.errors import DataError
from cambrian_eval.hub import HubDataset
from cambrian_eval.metrics import Metrics, WeightedAnswers, choice_row, parse_rate, plain_row
from cambrian_eval.prompts import ask
from cambrian_eval.rows import read_rows
from cambrian_eval.scoring.letters import score_letter
from cambrian_eval.task import Task
from cambrian_eval.types import Question

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cambrian_eval.metrics import MetricRow
    from cambrian_eval.rows import Row
    from cambrian_eval.types import Prompt, ScoredAnswer

SPLIT = "test"
FIELDS = ("idx", "type", "task", "question", "choices", "answer", "prompt", "source")
MAX_NEW_TOKENS = 512
PUBLISHED_SOURCES = {"2D": ["ADE20K", "COCO"], "3D": ["Omni3D"]}

_SUFFIXES = (".parquet", ".jsonl")


def read_questions(folder: Path, split: str = SPLIT, *, parts: Sequence[str]) -> list[Question]:
    """Read the questions of some parts, 2D before 3D.

    Raises:
        DataError: A part's file, a field or a picture is missing, or a row does not belong where it stands.
    """
    files = {part: _part_file(folder, part, parts) for part in parts}
    return unique(folder, (question for part, path in files.items() for question in _read_part(path, part)))


def render(question: Question) -> Prompt:
    """The published prompt, picture first, then the instruction to answer with a letter."""
    return ask(question, suffixes.LETTER, MAX_NEW_TOKENS)


def measure(answers: Sequence[ScoredAnswer]) -> Metrics:
    """Scores, rows by task and rows by source; the score of a part is the mean over the sources present in it."""
    parts = {part: _by(answers_of, "source") for part, answers_of in _by(answers, "part").items()}
    scores = [_score_row(f"score_{part.lower()}", f"CV-Bench {part}", {part: parts[part]}) for part in parts]
    overall = _score_row("score", "CV-Bench" if len(parts) > 1 else f"CV-Bench {next(iter(parts))}", parts)
    by_name = {row.name: row.accuracy for row in scores}
    return Metrics(
        summary={
            "score": overall.accuracy,
            "score_2d": by_name.get("score_2d"),
            "score_3d": by_name.get("score_3d"),
            "parse_rate": parse_rate(answers),
            "formula": _formula(parts),
            "published": all(list(sources) == PUBLISHED_SOURCES.get(part) for part, sources in parts.items()),
        },
        rows=(
            overall,
            *(scores if len(parts) > 1 else ()),
            plain_row("scores", "micro", "micro mean over questions (not the published score)", answers),
            *(plain_row("tasks", task, task, group) for task, group in _by(answers, "task").items()),
            *_source_rows(parts),
        ),
    )


# Reading.


def _part_file(folder: Path, part: str, parts: Sequence[str]) -> Path:
    stem = f"{SPLIT}_{part.lower()}"
    for suffix in _SUFFIXES:
        if (folder / (stem + suffix)).is_file():
            return folder / (stem + suffix)
    needed = " and ".join(f"{SPLIT}_{p.lower()}.parquet (or .jsonl)" for p in parts)
    found = sorted(path.name for path in folder.iterdir())
    tables = [name for name in found if Path(name).suffix in _SUFFIXES]
    if not tables:
        shown = ", ".join(found[:8]) or "nothing"
        raise DataError(f"{folder}: a folder without questions; found {shown}; needed {needed}.")
    splits = sorted({re.split(r"[_.-]", name)[0] for name in tables})
    raise DataError(
        f"{folder}: found split {', '.join(map(repr, splits))} ({', '.join(tables)}); "
        f"needed split '{SPLIT}', part {part}: {needed}. {_advice(tables)}"
    )


def _advice(tables: Sequence[str]) -> str:
    for other in PUBLISHED_SOURCES:
        if any(Path(name).stem == f"{SPLIT}_{other.lower()}" for name in tables):
            return f"Add the file, or evaluate this part alone with cvbench-{other.lower()}."
    return "Give a folder with the published files."


def _read_part(path: Path, part: str) -> list[Question]:
    embedded = path.suffix == ".parquet"
    picture, other = ("image", "filename") if embedded else ("filename", "image")
    questions = [_question(row, part) for row in read_rows(path, (*FIELDS, picture), (other,))]
    if not questions:
        raise DataError(f"{path}: a file without questions; found 0 rows, expected at least one.")
    return questions


def _question(row: Row, part: str) -> Question:
    if row.values["type"] != part:
        raise DataError(
            f"{row.place}: found type {row.values['type']!r}, expected {part!r}; move the row to its own file."
        )
    choices = row.choices("choices")
    return Question(
        id=f"{part.lower()}-{row.values['idx']}",
        text=row.text("prompt"),
        choices=choices,
        answers=(row.letter("answer", choices),),
        pictures=(row.picture("image", file="filename"),),
        part=part,
        task=row.text("task"),
        source=row.text("source"),
    )


# Metrics.


def _by(answers: Sequence[ScoredAnswer], attribute: str) -> dict[str, list[ScoredAnswer]]:
    groups: dict[str, list[ScoredAnswer]] = {}
    for answer in answers:
        groups.setdefault(getattr(answer.question, attribute), []).append(answer)
    return dict(sorted(groups.items()))


def _score_row(name: str, label: str, parts: dict[str, dict[str, list[ScoredAnswer]]]) -> MetricRow:
    """Every part weighs the same, and so does every source in its part."""
    strata = [
        WeightedAnswers(1 / len(parts) / len(sources), answers)
        for sources in parts.values()
        for answers in sources.values()
    ]
    return choice_row("scores", name, label, strata)


def _source_rows(parts: dict[str, dict[str, list[ScoredAnswer]]]) -> Iterator[MetricRow]:
    for part, sources in parts.items():
        for source, answers in sources.items():
            shared = sum(source in others for others in parts.values()) > 1
            yield plain_row("sources", f"{source} {part}" if shared else source, f"{source} ({part})", answers)


def _formula(parts: dict[str, dict[str, list[ScoredAnswer]]]) -> str:
    means = [" + ".join(sources) for sources in parts.values()]
    counts = [len(sources) for sources in parts.values()]
    if len(parts) == 1:
        return f"({means[0]})/{counts[0]}" if counts[0] > 1 else means[0]
    terms = [f"({mean})/{count}" if count > 1 else mean for mean, count in zip(means, counts, strict=True)]
    return f"1/2 ({' + '.join(terms)})"


def _task(name: str, parts: tuple[str, ...], description: str, num_questions: int) -> Task:
    return Task(
        name=name,
        version=3,
        description=description,
        # The commit as Hippo1013/spatial-vlm-eval pins it.
        hub=HubDataset(
            "nyu-visionx/CV-Bench",
            tuple(f"{SPLIT}_{part.lower()}.parquet" for part in parts),
            revision="bc284db50d036958861cb60cdd7b77612052ce0d",
        ),
        questions=partial(read_questions, parts=parts),
        prompt=render,
        score=score_letter,
        metrics=measure,
        splits=(SPLIT,),
        fields=(*FIELDS, "image"),
        rule="letter",
        headline="mean over sources, %" if len(parts) == 1 else "mean of 2D and 3D, each over its sources, %",
        num_questions=num_questions,
    )


CVBENCH = _task("cvbench", ("2D", "3D"), "CV-Bench: count, relation, depth and distance, 2638 questions", 2638)
CVBENCH_2D = _task("cvbench-2d", ("2D",), "CV-Bench 2D: count and relation, 1438 questions", 1438)
CVBENCH_3D = _task("cvbench-3d", ("3D",), "CV-Bench 3D: depth and distance, 1200 questions", 1200)
