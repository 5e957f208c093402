"""From the data sources of a recipe to the conversations that training takes.

A source is a file of records with its folder of images, or captions, grounded descriptions or questions of rendered
scenes. What is made of scenes is made on first use and kept in the user's cache under everything that determines its
bytes. Every image of a file is opened before training begins: a missing or broken one is an error with the record's
file and line, and is never replaced.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cambrian_cli.errors import CommandError
from cambrian_cli.output import Advance, progress

if TYPE_CHECKING:
    from cambrian_data.records import Record
    from cambrian_model.training.recipe import (
        GroundingSection,
        Recipe,
        SceneQuestionsSection,
        ScenesSection,
        SourceSection,
        TrainingQuestionsSection,
    )

Sample = dict[str, Any]


def build(recipe: "Recipe", stages: Iterable[str] | None = None) -> dict[str, list[Sample]]:
    """Reads or makes the sources that the named stages (all by default) train on.

    Raises:
        CommandError: A source without a file, or with an image that is missing, broken or outside its folder.
        DataError: A record that cannot be read.
    """
    chosen = [recipe.stages[name] for name in (stages or recipe.stages) if name in recipe.stages]
    return {name: read(name, recipe.data[name]) for name in dict.fromkeys(stage.data for stage in chosen)}


def read(name: str, source: "SourceSection") -> list[Sample]:
    """Returns the conversations of one source, image paths absolute."""
    if source.scenes is not None:
        return read_scenes(source.scenes)
    if source.grounding is not None:
        return read_grounding(source.grounding)
    if source.questions is not None:
        return read_questions(source.questions.cvbench)
    if source.records is None:
        raise CommandError(
            f"the recipe leaves data.{name} to you: --set data.{name}.records=FILE, "
            f"and --set data.{name}.images=FOLDER if its image paths do not begin beside that file."
        )
    records = Path(source.records)
    return read_records(records, Path(source.images) if source.images else records.parent)


def read_records(path: Path, images: Path) -> list[Sample]:
    """Returns the conversations of a records file after opening every image that they name."""
    from cambrian_data import formats

    samples = []
    paths: dict[str, str] = {}
    with progress(f"checking {path.name}") as advance:
        records = list(formats.read_records(path))
        for number, record in enumerate(records, start=1):
            samples.append(_with_images(record, images, paths))
            advance(number, len(records), images=len(paths))
    if not samples:
        raise CommandError(f"{path}: holds no records; training needs at least one.")
    return samples


def read_scenes(scenes: "ScenesSection") -> list[Sample]:
    """Returns the captions of rendered scenes, which are made if they are not there yet."""
    folder = cached_scenes(scenes.count, scenes.seed, scenes.side)
    return _read_made(folder, "captions.jsonl")


def read_grounding(grounding: "GroundingSection") -> list[Sample]:
    """Returns descriptions and readings of rendered scenes; they are made if they are not there yet."""
    from cambrian_data.grounding.records import FORMAT_VERSION, RECORDS, write_scene_grounding

    scenes = cached_scenes(grounding.scenes.count, grounding.scenes.seed, grounding.scenes.side)
    parts = (f"v{FORMAT_VERSION}", f"grid{grounding.grid_side}", f"readings{grounding.readings_per_picture}")
    folder = cache_folder() / "grounding" / scenes.name / "-".join((*parts, f"seed{grounding.seed}"))
    with _kept_whole(folder), progress("describing scenes") as advance:
        write_scene_grounding(
            scenes,
            folder,
            grid_side=grounding.grid_side,
            readings_per_picture=grounding.readings_per_picture,
            seed=grounding.seed,
            progress=advance,
        )
    return _read_made(folder, RECORDS)


def read_questions(questions: "TrainingQuestionsSection") -> list[Sample]:
    """Returns CV-Bench's questions about rendered scenes with their answers; both are made if they are not there."""
    from cambrian_data.cvbench.scenes import RECORDS, write_scene_records

    kind = f"{'reasoned' if questions.reasoning else 'letters'}-{'format' if questions.format_prompt else 'free'}"
    with _made_once("questions", questions, kind) as made:
        write_scene_records(
            made.scenes,
            made.folder,
            count_per_task=questions.count_per_task,
            seed=questions.seed,
            format_prompt=questions.format_prompt,
            reasoning=questions.reasoning,
            progress=made.advance,
        )
    return _read_made(made.folder, RECORDS)


def cached_benchmark(questions: "SceneQuestionsSection") -> Path:
    """Returns the folder of a benchmark about rendered scenes, in the hub's layout of CV-Bench."""
    from cambrian_data.cvbench import write_scene_benchmark

    with _made_once("cvbench", questions) as made:
        write_scene_benchmark(
            made.scenes,
            made.folder,
            count_per_task=questions.count_per_task,
            seed=questions.seed,
            progress=made.advance,
        )
    return made.folder


def cached_scenes(count: int, seed: int, side: int) -> Path:
    """Returns the folder of a set of scenes in the user's cache; processes that want the same set make it once."""
    from cambrian_data.scenes import FORMAT_VERSION, write_scenes

    folder = cache_folder() / "scenes" / f"v{FORMAT_VERSION}-count{count}-seed{seed}-side{side}"
    with _kept_whole(folder), progress("rendering scenes") as advance:
        write_scenes(folder, count=count, seed=seed, side=side, processes=_processes(count), progress=advance)
    return folder


def held_out_seed(recipe: "Recipe") -> int:
    """Returns a seed of scenes that neither a source of the recipe nor a pretrained part has used."""
    return 1 + max(recipe.training_seeds().values(), default=0)


def cache_folder() -> Path:
    """Returns the folder for what can be made again: ``$XDG_CACHE_HOME/cambrian`` or ``~/.cache/cambrian``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cambrian"


def question_and_reference(sample: Mapping[str, Any]) -> tuple[str, str]:
    """Returns what the user asks first in a conversation, and what is replied."""
    texts = {"user": "", "assistant": ""}
    for message in reversed(sample["messages"]):  # so that the first turn of each role is what stays
        texts[message["role"]] = " ".join(part["text"] for part in message["content"] if part["type"] == "text")
    return texts["user"].strip(), texts["assistant"].strip()


class _Made(NamedTuple):
    """A folder of questions that is being made: the scenes they are about, and who is told of the progress."""

    scenes: Path
    folder: Path
    advance: Advance


@contextlib.contextmanager
def _made_once(what: str, questions: "SceneQuestionsSection", kind: str = "") -> Iterator[_Made]:
    """Gives the one folder in the cache for these questions, locked; its name holds what determines its bytes."""
    from cambrian_data.cvbench.scenes import FORMAT_VERSION

    scenes = cached_scenes(questions.scenes.count, questions.scenes.seed, questions.scenes.side)
    parts = [f"v{FORMAT_VERSION}", f"per-task-{questions.count_per_task or 'all'}", f"seed{questions.seed}", kind]
    folder = cache_folder() / what / scenes.name / "-".join(filter(None, parts))
    with _kept_whole(folder), progress("writing questions") as advance:
        yield _Made(scenes, folder, advance)


def _read_made(folder: Path, file: str) -> list[Sample]:
    """Returns the conversations of a folder that was made here, so that its images need no check."""
    from cambrian_data import formats

    return [
        record.to_dict()
        | {"images": [str(folder / str(image)) for image in record.images], "location": record.location}
        for record in formats.read_records(folder / file)
    ]


def _with_images(record: "Record", folder: Path, paths: dict[str, str]) -> Sample:
    """Returns the record as training takes it; `paths` remembers the images that have been opened."""
    from cambrian_data import images
    from cambrian_data.errors import ImageError

    for image in record.images:
        if isinstance(image, bytes) or image in paths:
            continue
        try:
            path = images.locate(folder, image)
            images.verify(path)
        except ImageError as error:
            raise CommandError(f"{record.location}: {error}") from error
        paths[image] = str(path.resolve())
    found = [paths[image] if isinstance(image, str) else image for image in record.images]
    return record.to_dict() | {"images": found, "location": record.location}


def _processes(count: int) -> int:
    """Returns how many processes render: starting one takes as long as some 50 scenes."""
    return max(1, min(os.cpu_count() or 1, count // 200))


@contextlib.contextmanager
def _kept_whole(folder: Path) -> Iterator[None]:
    """Locks a folder of the cache that is to be made, after deleting it if it is not as it was when it was made."""
    sizes = folder.with_name(f"{folder.name}.sizes.json")
    with _locked(folder.with_name(f"{folder.name}.lock")):
        if folder.is_dir() and not (sizes.is_file() and json.loads(sizes.read_text()) == _sizes(folder)):
            shutil.rmtree(folder)
            sizes.unlink(missing_ok=True)
        yield
        unfinished = sizes.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(_sizes(folder)))
        unfinished.replace(sizes)


def _sizes(folder: Path) -> dict[str, int]:
    """Returns the size of every file in a folder by its path inside."""
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock that ends with the process, so that a killed run leaves nothing to clean up."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
