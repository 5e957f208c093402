"""From a folder of scenes to a benchmark in the hub's layout, and to training records; made once, like the scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cambrian_data.cvbench import layout
from cambrian_data.cvbench.build import TaskSummary, build, candidates_2d, candidates_3d, summarise
from cambrian_data.cvbench.candidates import Task
from cambrian_data.cvbench.folder import Writer, lack, make_once
from cambrian_data.cvbench.layout import Origin
from cambrian_data.cvbench.pictures import boxes, show
from cambrian_data.cvbench.questions import Question
from cambrian_data.cvbench.rules import Rules, stated
from cambrian_data.cvbench.sources import coco, omni3d
from cambrian_data.cvbench.training import to_record
from cambrian_data.errors import DataError
from cambrian_data.formats import chat
from cambrian_data.scenes.generate import MANIFEST as SCENES_MANIFEST
from cambrian_data.scenes.generate import ScenesSummary

FORMAT_VERSION = 2  # raised whenever the same arguments give other bytes
SOURCES = {"2D": "Scenes2D", "3D": "Scenes3D"}
RECORDS = "records.jsonl"

Progress = Callable[[int, int], None]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that determines the bytes: of the benchmark, or of records if format_prompt and reasoning are set."""

    scenes: str
    count_per_task: int | None
    seed: int
    rules: dict[str, Any]
    format_prompt: bool | None = None
    reasoning: bool | None = None
    format_version: int = FORMAT_VERSION


class QuestionsSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder of questions holds.

    Attributes:
        num_questions: over all tasks.
        num_pictures: written.
        tasks: what was asked in each, and how evenly.
        content_hash: SHA-256 over the bytes of all files but the manifest.
    """

    num_questions: int
    num_pictures: int
    tasks: dict[str, TaskSummary]
    content_hash: str


class SceneQuestions(NamedTuple):
    """Questions about scenes, in the order of the tasks, and how they are spread."""

    questions: list[Question]
    tasks: dict[str, TaskSummary]


def write_scene_benchmark(
    scenes_dir: Path,
    output: Path,
    *,
    count_per_task: int | None,
    seed: int = 0,
    rules: Rules | None = None,
    progress: Progress | None = None,
) -> QuestionsSummary:
    """Writes a benchmark about rendered scenes in the hub's layout; on a finished folder it only reads the manifest.

    Args:
        scenes_dir: written by `write_scenes`.
        output: made if missing; must be empty, or hold the same questions, finished or not.
        count_per_task: questions of each task; fewer, as the summary says, if no more can be balanced. None for as
            many as can.
        seed: of choice, letters and order; same arguments, same bytes.
        rules: by default those of `Rules`.
        progress: called with (questions written, questions).

    Raises:
        DataError: if the scenes are unfinished or broken, a task has no question, or the folder cannot be used.
    """
    scenes_dir, output = Path(scenes_dir), Path(output)
    request = to_request(scenes_dir, count_per_task, seed, rules)

    def make(writer: Writer) -> QuestionsSummary:
        made = scene_questions(scenes_dir, count_per_task=count_per_task, seed=seed, rules=rules)
        images = scenes_dir / "images"
        rows: dict[str, list[bytes]] = {part: [] for part in SOURCES}
        names = picture_names(made.questions)
        for index, (question, name) in enumerate(zip(made.questions, names, strict=True)):
            part = question.task.part
            origin = Origin(SOURCES[part], f"Rendered scenes {request.scenes[:12]}")
            writer.picture(name, show(question, images))
            rows[part].append(msgspec.json.encode(layout.row(question, index, name, origin)))
            report(progress, index + 1, len(names))
        for part, lines in rows.items():
            writer.table(layout.table(part), b"".join(line + b"\n" for line in lines))
        return to_summary(made, writer)

    tables = [layout.table(part) for part in SOURCES]
    return make_once(output, request, QuestionsSummary, make, partial(missing, output, tables))


def write_scene_records(
    scenes_dir: Path,
    output: Path,
    *,
    count_per_task: int | None,
    seed: int = 0,
    format_prompt: bool = True,
    reasoning: bool = False,
    rules: Rules | None = None,
    progress: Progress | None = None,
) -> QuestionsSummary:
    """Writes the same questions as training records: records.jsonl, in chat form, and the pictures it names.

    Args:
        scenes_dir: as for write_scene_benchmark, and so for the other arguments.
        output: as there.
        count_per_task: as there.
        seed: as there.
        format_prompt: end questions as the evaluation does, asking for a letter.
        reasoning: answer with names, places, relation and letter; with the letter alone otherwise.
        rules: as there.
        progress: as there.

    Raises:
        DataError: as for write_scene_benchmark.
    """
    scenes_dir, output = Path(scenes_dir), Path(output)
    request = to_request(scenes_dir, count_per_task, seed, rules, format_prompt, reasoning)

    def make(writer: Writer) -> QuestionsSummary:
        made = scene_questions(scenes_dir, count_per_task=count_per_task, seed=seed, rules=rules)
        images = scenes_dir / "images"
        lines: list[bytes] = []
        written: set[str] = set()
        for index, question in enumerate(made.questions):
            task = question.task
            drawn = boxes(question)
            name = f"img/boxes/{index:06d}.png" if drawn else f"img/plain/{question.candidate.picture.file_name}"
            if name not in written:
                writer.picture(name, show(question, images))
                written.add(name)
            record = to_record(
                question,
                id=f"cvbench-{request.scenes[:12]}-{seed}-{task.lower()}-{index:06d}",
                source=SOURCES[task.part],
                image=name,
                format_prompt=format_prompt,
                reasoning=reasoning,
            )
            lines.append(msgspec.json.encode(chat.from_record(record)))
            report(progress, index + 1, len(made.questions))
        writer.table(RECORDS, b"".join(line + b"\n" for line in lines))
        return to_summary(made, writer)

    return make_once(output, request, QuestionsSummary, make, partial(missing, output, [RECORDS]))


def scene_questions(
    scenes_dir: Path, *, count_per_task: int | None, seed: int = 0, rules: Rules | None = None
) -> SceneQuestions:
    """The questions themselves, in memory: Count, Relation, Depth, Distance.

    Raises:
        DataError: if an annotation file is broken or a task has no question.
    """
    scenes_dir, rules = Path(scenes_dir), rules or Rules()
    check_arguments(count_per_task, seed)
    flat, solid = scenes_dir / "instances.json", scenes_dir / "cuboids.json"
    candidates = {flat: candidates_2d(coco.read(flat), rules), solid: candidates_3d(omni3d.read(solid), rules)}
    made: dict[Task, list[Question]] = {}
    for file, found in candidates.items():
        made |= build(file, found, count_per_task=count_per_task, seed=seed, rules=rules)
    return SceneQuestions(
        [question for questions in made.values() for question in questions],
        {
            str(task): summarise(made[task], len(of_task))
            for found in candidates.values()
            for task, of_task in found.items()
        },
    )


def check_arguments(count_per_task: int | None, seed: int) -> None:
    """Raises DataError for an argument that is out of range."""
    if count_per_task is not None and count_per_task < 1:
        raise DataError(f"count_per_task is {count_per_task}; expected at least 1, or None for as many as possible.")
    if seed < 0:
        raise DataError(f"seed is {seed}; expected 0 or more.")


def to_request(
    scenes_dir: Path,
    count_per_task: int | None,
    seed: int,
    rules: Rules | None,
    format_prompt: bool | None = None,
    reasoning: bool | None = None,
) -> Request:
    """The request, checked; scenes are known by their content, wherever they lie."""
    check_arguments(count_per_task, seed)
    return Request(
        scenes=scenes_hash(scenes_dir),
        count_per_task=count_per_task,
        seed=seed,
        rules=stated(rules or Rules()),
        format_prompt=format_prompt,
        reasoning=reasoning,
    )


def scenes_hash(scenes_dir: Path) -> str:
    """The content hash of finished scenes.

    Raises:
        DataError: if the folder holds none.
    """
    manifest = Path(scenes_dir) / SCENES_MANIFEST
    try:
        return msgspec.json.decode(manifest.read_bytes(), type=ScenesSummary).content_hash
    except OSError as error:
        raise DataError(f"{scenes_dir} holds no finished scenes ({error}); make them with write_scenes.") from error
    except msgspec.DecodeError as error:
        raise DataError(f"{manifest} is not a manifest of scenes ({error}); make the scenes again.") from error


def picture_names(questions: Sequence[Question]) -> list[str]:
    """The name of each question's picture in the benchmark."""
    return layout.file_names(questions, [Origin(SOURCES[one.task.part], "") for one in questions])


def to_summary(made: SceneQuestions, writer: Writer) -> QuestionsSummary:
    """What was written."""
    return QuestionsSummary(
        num_questions=len(made.questions),
        num_pictures=writer.num_pictures,
        tasks=made.tasks,
        content_hash=writer.content_hash,
    )


def missing(output: Path, tables: Sequence[str], summary: QuestionsSummary) -> str | None:
    """What a finished folder lacks, in words; None if nothing."""
    return lack(output, tables, summary.num_pictures)


def report(progress: Progress | None, done: int, count: int) -> None:
    """Tells the caller how far we are."""
    if progress is not None:
        progress(done, count)
