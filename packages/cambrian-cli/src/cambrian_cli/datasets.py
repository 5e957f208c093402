"""From the data sources of a recipe to the conversations that training takes.

A source is a file of records with its folder of images, a stream, or captions, grounded descriptions or questions of
rendered scenes. What is made of scenes is made on first use and kept in the user's cache under everything that
determines its bytes. No record of a file and no image is read here: training measures every sample first, and a record
or image that cannot be read is then an error with file and line, or left out and listed; it is never replaced.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from cambrian_cli.errors import CommandError
from cambrian_cli.output import Advance, progress

if TYPE_CHECKING:
    from cambrian_cli.record_file import RecordFile
    from cambrian_cli.streams import ShardedSource
    from cambrian_model.training.recipe import Recipe
    from cambrian_model.training.recipe.data import (
        GroundingSection,
        SceneQuestionsSection,
        ScenesSection,
        SourceSection,
        TrainingQuestionsSection,
    )

    Source: TypeAlias = list["Sample"] | RecordFile | ShardedSource

OnBad = Literal["error", "skip"]
Sample = dict[str, Any]


def build(recipe: "Recipe", stages: Iterable[str] | None = None, on_bad: OnBad = "error") -> "dict[str, Source]":
    """Reads or makes the sources that the named stages (all by default) train on and are validated on.

    Args:
        recipe: Names them.
        stages: Which stages.
        on_bad: Whether a file that breaks off is an error, or its rest is one bad sample; single records that cannot be
            read are for the training to judge.

    Raises:
        CommandError: A source without a file.
        DataError: A file that cannot be read.
    """
    chosen = [recipe.stages[name] for name in (stages or recipe.stages) if name in recipe.stages]
    names = dict.fromkeys(name for stage in chosen for name in stage.sources)
    return {name: read(name, recipe.data[name], on_bad, recipe.seed) for name in names}


def read(name: str, source: "SourceSection", on_bad: OnBad = "error", seed: int = 0) -> "Source":
    """Returns the conversations of one source, image paths absolute; `seed` is of the order of a stream."""
    if source.stream is not None:
        from cambrian_cli.streams import open_stream

        return open_stream(name, source, seed)
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
    return read_records(records, Path(source.images) if source.images else records.parent, on_bad)


def read_records(path: Path, images: Path, on_bad: OnBad = "error") -> "RecordFile":
    """Returns the conversations of a records file, each of which is read when it is asked for."""
    from cambrian_cli.record_file import RecordFile

    return RecordFile(path, images, on_bad)


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
