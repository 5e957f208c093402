"""CV-Bench: counting, spatial relation, depth order and relative distance; multiple choice, one picture a question.

Reads the layout of the hub's `nyu-visionx/CV-Bench`: `test_2d` and `test_3d`, each as Parquet with embedded pictures
or, where there is no Parquet, as JSONL beside the pictures it names. The headline is the published score, which weighs
sources and not questions; the micro mean that several tools report instead is given beside it under its own name.

Source: dataset card of nyu-visionx/CV-Bench; Cambrian-1 (arXiv 2406.16860), section 3.2.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path, PurePosixPath
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from cambrian_eval import suffixes
from cambrian_eval.errors import DataError
from cambrian_eval.hub import HubDataset
from cambrian_eval.metrics import Metrics, WeightedAnswers, choice_row, parse_rate, plain_row
from cambrian_eval.picture import Picture
from cambrian_eval.rows import Row, read_rows
from cambrian_eval.scoring.letters import score_letter
from cambrian_eval.task import Task
from cambrian_eval.types import Prompt, Question

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cambrian_eval.metrics import MetricRow
    from cambrian_eval.types import ScoredAnswer

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
    questions = [question for part, path in files.items() for question in _read_part(path, part)]
    seen: dict[str, Question] = {}
    for question in questions:
        if question.id in seen:
            raise DataError(
                f"{folder}: idx of question {question.id} occurs twice; every idx of a file must be unique."
            )
        seen[question.id] = question
    return questions


def render(question: Question) -> Prompt:
    """The published prompt, picture first, then the instruction to answer with a letter."""
    text = f"{question.text}\n{suffixes.LETTER}"
    return Prompt(question.id, (*question.pictures, text), question.choices, MAX_NEW_TOKENS)


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
    required = (*FIELDS, "image" if embedded else "filename")
    questions = [_question(row, part, path.parent) for row in read_rows(path, required)]
    if not questions:
        raise DataError(f"{path}: a file without questions; found 0 rows, expected at least one.")
    return questions


def _question(row: Row, part: str, folder: Path) -> Question:
    place, values = row
    if values["type"] != part:
        raise DataError(f"{place}: found type {values['type']!r}, expected {part!r}; move the row to its own file.")
    choices = _choices(row)
    return Question(
        id=f"{part.lower()}-{values['idx']}",
        text=_text(row, "prompt"),
        choices=choices,
        answers=(_letter(row, choices),),
        pictures=(_picture(row, folder),),
        part=part,
        task=_text(row, "task"),
        source=_text(row, "source"),
    )


def _text(row: Row, field: str) -> str:
    value = row.values[field]
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{row.place}: found {field} {value!r}, expected a text.")
    return value


def _choices(row: Row) -> tuple[str, ...]:
    value = row.values["choices"]
    if not isinstance(value, list) or not 2 <= len(value) <= len(ascii_uppercase):
        raise DataError(f"{row.place}: found choices {value!r}, expected a list of 2 to 26 texts.")
    return tuple(str(choice) for choice in value)


def _letter(row: Row, choices: Sequence[str]) -> str:
    match = re.fullmatch(r"\(?([A-Z])\)?", str(row.values["answer"]).strip())
    if match is None or match[1] not in ascii_uppercase[: len(choices)]:
        last = ascii_uppercase[len(choices) - 1]
        raise DataError(f"{row.place}: found answer {row.values['answer']!r}, expected a letter from (A) to ({last}).")
    return match[1]


def _picture(row: Row, folder: Path) -> Picture:
    image: Any = row.values.get("image")
    embedded, path = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (None, None)
    if not isinstance(embedded, bytes | None):
        raise DataError(f"{row.place}: found image.bytes of type {type(embedded).__name__}, expected bytes.")
    if embedded:
        return Picture.from_bytes(str(row.values.get("filename") or path or row.place), embedded)
    name = str(path or row.values.get("filename") or "")
    inside = PurePosixPath(name)
    if not name or inside.is_absolute() or ".." in inside.parts or "\\" in name:
        raise DataError(f"{row.place}: found picture {name!r}, expected bytes or a path inside the data's folder.")
    for file in (folder / inside, folder / "img" / inside):
        if file.is_file():
            return Picture.from_file(name, file)
    raise DataError(f"{row.place}: picture {name} is missing in {folder}; expected it there or under img.")


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


def _task(name: str, parts: tuple[str, ...], description: str) -> Task:
    return Task(
        name=name,
        version=2,
        description=description,
        hub=HubDataset("nyu-visionx/CV-Bench", tuple(f"{SPLIT}_{part.lower()}.parquet" for part in parts)),
        questions=partial(read_questions, parts=parts),
        prompt=render,
        score=score_letter,
        metrics=measure,
    )


CVBENCH = _task("cvbench", ("2D", "3D"), "CV-Bench: count, relation, depth and distance, 2638 questions")
CVBENCH_2D = _task("cvbench-2d", ("2D",), "CV-Bench 2D: count and relation, 1438 questions")
CVBENCH_3D = _task("cvbench-3d", ("3D",), "CV-Bench 3D: depth and distance, 1200 questions")
