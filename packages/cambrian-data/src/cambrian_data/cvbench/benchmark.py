"""A benchmark from annotation files, in the hub's layout of CV-Bench: what `cambrian cvbench build` writes.

Sources are read one after the other, and of each only the questions are kept. Then all of their pictures are looked at,
before the first is written; and then each is drawn, written and embedded on its own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cambrian_data.cvbench import layout
from cambrian_data.cvbench.annotations import Annotations
from cambrian_data.cvbench.build import Candidates, candidates_2d, candidates_3d, select, tally
from cambrian_data.cvbench.candidates import Task
from cambrian_data.cvbench.card import CARD, card
from cambrian_data.cvbench.folder import Writer, lack, make_once
from cambrian_data.cvbench.geometry import FILE as GEOMETRY
from cambrian_data.cvbench.geometry import geometry
from cambrian_data.cvbench.inputs import PARTS, SOURCES, Form, Input, Material, check, fingerprint, read, sources
from cambrian_data.cvbench.layout import Origin
from cambrian_data.cvbench.pictures import annotated_view, show
from cambrian_data.cvbench.questions import Question
from cambrian_data.cvbench.rejections import Rejections, in_order
from cambrian_data.cvbench.rules import Rules, stated
from cambrian_data.cvbench.scenes import check_arguments
from cambrian_data.cvbench.summary import BenchmarkSummary, SourceFile, SourceTask
from cambrian_data.cvbench.tables import PartTable
from cambrian_data.errors import DataError, ImageError
from cambrian_data.images import locate
from cambrian_data.records import shown

FORMAT_VERSION = 1  # raised whenever the same arguments give other bytes

Progress = Callable[[str, int, int], None]


class InputRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One input, by its content."""

    form: str
    name: str
    sha256: str
    exhaustive: bool = False


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Everything but the pictures that determines the bytes; rules for photographs and for scenes, where either is."""

    inputs: list[InputRequest]
    count_per_task: int | None
    seed: int
    rules: dict[str, dict[str, Any]]
    format_version: int = FORMAT_VERSION


class RuleSets(NamedTuple):
    """Which rules hold for what.

    Attributes:
        photographs: for annotated photographs.
        scenes: for rendered scenes.
    """

    photographs: Rules
    scenes: Rules

    def of(self, form: Form) -> Rules:
        """Those that hold for an input."""
        return self.scenes if form is Form.SCENES else self.photographs

    def used(self, inputs: Sequence[Input]) -> dict[str, Rules]:
        """Those that hold for any input, by name."""
        forms = {one.form for one in inputs}
        found = {"photographs": self.photographs} if forms - {Form.SCENES} else {}
        return found | ({"scenes": self.scenes} if Form.SCENES in forms else {})


class Asked(NamedTuple):
    """A question, and where its picture lies.

    Attributes:
        question: that is asked.
        origin: of its picture.
        annotations: the file that its picture was annotated in.
        images: folder of the pictures.
    """

    question: Question
    origin: Origin
    annotations: Path
    images: Path


class SourceChoice(NamedTuple):
    """What one source is asked about in one part."""

    asked: dict[Task, list[Asked]]
    tasks: list[SourceTask]
    files: list[SourceFile]


def write_benchmark(
    inputs: Sequence[Input],
    output: Path,
    *,
    count_per_task: int | None,
    seed: int = 0,
    rules: Rules | None = None,
    scene_rules: Rules | None = None,
    progress: Progress | None = None,
) -> BenchmarkSummary:
    """Writes a benchmark from annotation files; on a finished folder it only reads the manifest.

    Args:
        inputs: annotations with their pictures, at least one; their order does not matter.
        output: made if missing; must be empty, or hold the same benchmark, finished or not.
        count_per_task: questions of each task, shared evenly by the task's sources, as the official score weighs
            sources alike; what one source cannot give, no other gives for it. None for as many as can be balanced.
        seed: of choice, letters and order. Same inputs, pictures and arguments, same bytes (with the same Pillow and
            pyarrow).
        rules: for photographs; by default `Rules.photographs()`.
        scene_rules: for rendered scenes; by default `Rules()`.
        progress: called with (what is done, steps done, steps in all).

    Raises:
        DataError: if an annotation file or a picture is broken or missing, nothing can be asked, or the folder cannot
            be used. Pictures are looked at before anything is written.
    """
    order = list(Form)
    inputs = sorted(inputs, key=lambda one: (order.index(one.form), one.path.name, str(one.path)))
    output = Path(output)
    sets = RuleSets(rules or Rules.photographs(), scene_rules or Rules())
    request = to_request(inputs, count_per_task, seed, sets)
    make = partial(make_benchmark, inputs, count_per_task, seed, sets, progress)
    return make_once(output, request, BenchmarkSummary, make, partial(missing, output))


def to_request(inputs: Sequence[Input], count_per_task: int | None, seed: int, sets: RuleSets) -> Request:
    """The request, checked; annotations are known by their content, wherever they lie."""
    check_arguments(count_per_task, seed)
    if not inputs:
        raise DataError("no annotations are given to make questions from; give at least one file.")
    for one in inputs:
        check(one)
    return Request(
        inputs=[to_input_request(one) for one in inputs],
        count_per_task=count_per_task,
        seed=seed,
        rules={name: stated(rules) for name, rules in sets.used(inputs).items()},
    )


def to_input_request(one: Input) -> InputRequest:
    """An input by its content."""
    return InputRequest(form=one.form, name=one.path.name, sha256=fingerprint(one), exhaustive=one.exhaustive)


def make_benchmark(
    inputs: Sequence[Input],
    count_per_task: int | None,
    seed: int,
    sets: RuleSets,
    progress: Progress | None,
    writer: Writer,
) -> BenchmarkSummary:
    """Chooses the questions, looks at their pictures, and writes everything."""
    chosen = choose_questions(inputs, count_per_task, seed, sets, progress)
    order = list(Task)
    tasks = sorted((one for part in chosen for one in part.tasks), key=lambda one: (order.index(one.task), one.source))
    files = [one for part in chosen for one in part.files]
    asked = [one for task in Task for part in chosen for one in part.asked.get(task, [])]
    if not asked:
        raise DataError(
            f"no question can be asked about {', '.join(str(one.path) for one in inputs)}: the rules allow "
            f"{sum(one.candidates for one in tasks)} candidates, which cannot be balanced over the answers. "
            f"Use more pictures, or wider rules; {refusals(tasks)}"
        )
    check_pictures(asked, progress)
    parts = [part for part, of_part in PARTS.items() if any(one.question.task in of_part for one in asked)]
    write_tables(asked, parts, writer, progress)
    summary = BenchmarkSummary(
        num_questions=len(asked),
        num_pictures=writer.num_pictures,
        parts=parts,
        tasks=tasks,
        files=files,
        content_hash="",
    )
    writer.table(CARD, card(summary, sets.used(inputs), count_per_task, seed).encode())
    return msgspec.structs.replace(summary, content_hash=writer.content_hash)


def refusals(tasks: Sequence[SourceTask]) -> str:
    """What was refused most, in words."""
    found = sum((Counter(one.rejections) for one in tasks), Counter[str]()).most_common(3)
    return f"most often refused: {', '.join(f'{key} ({number})' for key, number in found) or 'nothing'}."


# --- the questions


def choose_questions(
    inputs: Sequence[Input], count_per_task: int | None, seed: int, sets: RuleSets, progress: Progress | None = None
) -> list[SourceChoice]:
    """What every source is asked about, source after source in alphabetical order.

    Raises:
        DataError: if an annotation file is broken, or a picture is annotated in two files of a source.
    """
    number = sum(len(SOURCES[one.form]) for one in inputs)
    found: list[SourceChoice] = []
    for part, of_part in PARTS.items():
        serving = {task: sources(inputs, task) for task in of_part}
        for source in sorted({name for names in serving.values() for name in names}):
            counts = {
                task: None if count_per_task is None else share(count_per_task, len(names), names.index(source))
                for task, names in serving.items()
                if source in names
            }
            rules = sets.scenes if source == SOURCES[Form.SCENES].get(part) else sets.photographs
            tell = partial(told, progress, sum(len(one.files) for one in found), number)
            found.append(choose_of_source(inputs, part, source, counts, seed, rules, tell))
    return found


def told(progress: Progress | None, done: int, number: int, more: int) -> None:
    """Tells the caller how many annotation files have been read."""
    if progress is not None:
        progress("annotation files", done + more, number)


def share(count: int, number: int, place: int) -> int:
    """The part of a count that falls to one of several.

    >>> [share(5, 2, place) for place in range(2)]
    [3, 2]
    """
    return count // number + (place < count % number)


def choose_of_source(
    inputs: Sequence[Input],
    part: str,
    source: str,
    counts: Mapping[Task, int | None],
    seed: int,
    rules: Rules,
    read_so_far: Callable[[int], None],
) -> SourceChoice:
    """What one source is asked about in one part: so many questions of each task that it serves."""
    rejected: dict[Task, Rejections] = defaultdict(Counter)
    candidates: dict[Task, Candidates] = {task: [] for task in PARTS[part]}
    homes: dict[str, Material] = {}
    files: list[SourceFile] = []
    for material in read(inputs, part, source):
        place_pictures(material, homes)
        make = candidates_2d if part == "2D" else candidates_3d
        for task, found in make(material.annotations, rules, rejected).items():
            candidates[task] += found
        files.append(to_source_file(material, source, part))
        read_so_far(len(files))
    asked, tasks = {}, []
    for task, count in counts.items():
        found = candidates[task]
        questions = select(found, task, count=count, seed=seed, rules=rules, rejected=rejected[task])
        asked[task] = [to_asked(question, homes) for question in questions]
        tasks.append(to_source_task(task, source, count, questions, len(found), rejected[task]))
    return SourceChoice(asked, tasks, files)


def place_pictures(material: Material, homes: dict[str, Material]) -> None:
    """Notes where each picture is annotated, and lies.

    Raises:
        DataError: if one is annotated in two files.
    """
    bare = material._replace(annotations=Annotations(material.annotations.file, (), ()))
    for picture in material.annotations.pictures:
        other = homes.setdefault(picture.file_name, bare)
        if other is not bare:
            raise DataError(
                f"picture {shown(picture.file_name)} is annotated in {other.annotations.file} and in "
                f"{material.annotations.file}; give one of them, or give pictures of the same name different names."
            )


def to_asked(question: Question, homes: dict[str, Material]) -> Asked:
    """The question with the place of its picture."""
    home = homes[question.candidate.picture.file_name]
    return Asked(question, home.origin, home.annotations.file, home.images)


def to_source_file(material: Material, source: str, part: str) -> SourceFile:
    """What was read."""
    annotations = material.annotations
    return SourceFile(
        source=source,
        dataset=material.origin.dataset,
        name=annotations.file.name,
        part=part,
        pictures=len(annotations.pictures),
        things=sum(len(picture.things) for picture in annotations.pictures),
        left_out=dict(annotations.left_out),
    )


def to_source_task(
    task: Task, source: str, wanted: int | None, questions: Sequence[Question], candidates: int, rejected: Rejections
) -> SourceTask:
    """What one source was asked in one task."""
    return SourceTask(
        task=task,
        source=source,
        wanted=wanted,
        questions=len(questions),
        pictures=len({question.candidate.picture.file_name for question in questions}),
        candidates=candidates,
        answers=tally(question.candidate.answer for question in questions),
        letters=tally(question.letter for question in questions),
        categories=tally(question.candidate.category[0] for question in questions),
        rejections=in_order(rejected),
    )


# --- the files


def check_pictures(asked: Sequence[Asked], progress: Progress | None) -> None:
    """Looks at the header of every picture.

    Raises:
        ImageError: naming the picture and the annotations, if it is missing, no picture, or not what was annotated.
    """
    for done, one in enumerate(asked, start=1):
        picture = one.question.candidate.picture
        with blaming(one):
            annotated_view(locate(one.images, picture.file_name), picture)
        if progress is not None:
            progress("pictures looked at", done, len(asked))


@contextmanager
def blaming(one: Asked) -> Iterator[None]:
    """Names the annotations in an error about their picture."""
    try:
        yield
    except ImageError as error:
        candidate = one.question.candidate
        ids = ", ".join(str(thing.id) for thing in candidate.subjects)
        named = f", annotation{'s' if len(candidate.subjects) > 1 else ''} {ids}" if ids else ""
        raise ImageError(f"{one.annotations}: image {shown(candidate.picture.file_name)}{named}: {error}") from error


def write_tables(asked: Sequence[Asked], parts: Sequence[str], writer: Writer, progress: Progress | None) -> None:
    """Writes pictures, tables and geometry, question by question."""
    names = layout.file_names([one.question for one in asked], [one.origin for one in asked])
    with ExitStack() as stack:
        shapes = stack.enter_context(writer.stream(GEOMETRY))
        lines = {part: stack.enter_context(writer.stream(layout.table(part))) for part in parts}
        files = {part: stack.enter_context(writer.stream(layout.parquet(part))) for part in parts}
        tables = {part: stack.enter_context(PartTable(file)) for part, file in files.items()}
        for index, (one, name) in enumerate(zip(asked, names, strict=True)):
            with blaming(one):
                picture = show(one.question, one.images)
            part, row = one.question.task.part, layout.row(one.question, index, name, one.origin)
            writer.picture(name, picture)
            tables[part].add(row, picture)
            lines[part].write(msgspec.json.encode(row) + b"\n")
            shapes.write(msgspec.json.encode(geometry(one.question, index, name, one.origin)) + b"\n")
            if progress is not None:
                progress("questions", index + 1, len(asked))


def missing(output: Path, summary: BenchmarkSummary) -> str | None:
    """What a finished folder lacks, in words; None if nothing."""
    tables = [name for part in summary.parts for name in (layout.table(part), layout.parquet(part))]
    return lack(output, [*tables, GEOMETRY, CARD], summary.num_pictures)
