"""What a benchmark is made of: annotation files, each with the folder of its pictures and the name of its source."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from cambrian_data.cvbench.annotations import Annotations
from cambrian_data.cvbench.candidates import Task
from cambrian_data.cvbench.layout import Origin
from cambrian_data.cvbench.scenes import SOURCES as SCENE_SOURCES
from cambrian_data.cvbench.scenes import scenes_hash
from cambrian_data.cvbench.sources import ade20k, coco, kinds, omni3d
from cambrian_data.errors import DataError

OMNI3D_SETS = ("KITTI", "nuScenes", "Objectron", "Hypersim", "SUNRGBD", "ARKitScenes")
COCO_SETS = {"train": "Training", "val": "Validation", "test": "Test"}
ADE20K_SETS = {"training": "Training", "validation": "Validation"}
CHUNK = 1 << 20  # bytes read at once


class Form(StrEnum):
    """The form of annotations."""

    COCO = "coco"
    ADE20K = "ade20k"
    ADE20K_MASKS = "ade20k-masks"
    OMNI3D = "omni3d"
    SCENES = "scenes"


PARTS = {"2D": (Task.COUNT, Task.RELATION), "3D": (Task.DEPTH, Task.DISTANCE)}
"""The tasks of each part."""

SOURCES: dict[Form, dict[str, str]] = {
    Form.COCO: {"2D": "COCO"},
    Form.ADE20K: {"2D": "ADE20K"},
    Form.ADE20K_MASKS: {"2D": "ADE20K"},
    Form.OMNI3D: {"3D": "Omni3D"},
    Form.SCENES: SCENE_SOURCES,
}
"""For each form and each part that it serves, the source by which the official score weighs."""


FILES = {Form.COCO: kinds.COCO_INSTANCES, Form.OMNI3D: kinds.OMNI3D_CUBOIDS}
"""What a form is called whose annotations are one file."""


class Input(NamedTuple):
    """Annotations that questions are to be made from.

    Attributes:
        form: of the annotations.
        path: a file (COCO, Omni3D, one of ADE20K's full format) or a folder (ADE20K, its masks, scenes).
        images: folder of the pictures; needed but for ADE20K's full format and scenes, whose pictures lie with them.
        classes: the table of the 150 classes, for masks only.
        exhaustive: for ADE20K's full format, believe that all was outlined of what was outlined, and ask Count too;
            only for questions that people review.
    """

    form: Form
    path: Path
    images: Path | None = None
    classes: Path | None = None
    exhaustive: bool = False


class Material(NamedTuple):
    """Annotations that have been read.

    Attributes:
        annotations: of one part's kind of things.
        origin: what is said about where they come from.
        images: folder of their pictures.
    """

    annotations: Annotations[Any]
    origin: Origin
    images: Path


def tasks(one: Input, part: str) -> tuple[Task, ...]:
    """What an input serves of a part: masks do not say how many things there are, nor does ADE20K surely."""
    if part not in SOURCES[one.form]:
        return ()
    is_uncounted = one.form is Form.ADE20K_MASKS or (one.form is Form.ADE20K and not one.exhaustive)
    return (Task.RELATION,) if is_uncounted else PARTS[part]


def sources(inputs: Sequence[Input], task: Task) -> list[str]:
    """The sources that serve a task, in alphabetical order."""
    return sorted({SOURCES[one.form][task.part] for one in inputs if task in tasks(one, task.part)})


def read(inputs: Sequence[Input], part: str, source: str) -> Iterator[Material]:
    """The annotations of one source for one part, file by file.

    Raises:
        DataError: if a file is broken, or the folder of its pictures is not given.
    """
    for one in inputs:
        if SOURCES[one.form].get(part) == source:
            yield Material(read_annotations(one, part), origin(one, source), images_of(one))


def read_annotations(one: Input, part: str) -> Annotations[Any]:
    """What a reader makes of it."""
    match one.form:
        case Form.COCO:
            return coco.read(one.path)
        case Form.ADE20K:
            return ade20k.read(one.path, exhaustive=one.exhaustive)
        case Form.ADE20K_MASKS:
            from cambrian_data.cvbench.sources import ade20k_masks  # needs scipy, which no other form does

            return ade20k_masks.read(one.path, table_of_classes(one))
        case Form.OMNI3D:
            return omni3d.read(one.path)
        case Form.SCENES if part == "2D":
            return coco.read(one.path / "instances.json")
        case Form.SCENES:
            return omni3d.read(one.path / "cuboids.json")


def table_of_classes(one: Input) -> Path:
    """The file with the names of the masks' classes.

    Raises:
        DataError: if it is not given.
    """
    if one.classes is None:
        raise DataError(f"{one.path}: masks hold numbers; give the table of their 150 classes, object150_info.csv.")
    return one.classes


def check(one: Input) -> None:
    """Finds what is missing before anything is read.

    Raises:
        DataError: if scenes are unfinished, an annotation file is a folder, or pictures or classes are not given or not
            there.
    """
    if one.form is Form.SCENES:
        scenes_hash(one.path)
    if one.form in FILES and one.path.is_dir():
        raise kinds.refuse(one.path, "a folder", FILES[one.form])
    images_of(one)
    if one.form is Form.ADE20K_MASKS:
        table_of_classes(one)


def images_of(one: Input) -> Path:
    """The folder of the pictures.

    Raises:
        DataError: if it is not given, or is no folder.
    """
    found = one.images
    if one.form is Form.SCENES:
        found = one.path / "images"
    elif one.form is Form.ADE20K and found is None:
        found = one.path if one.path.is_dir() else one.path.parent
    if found is None:
        raise DataError(f"{one.path}: where are its pictures? Give the folder that their paths begin in.")
    if not found.is_dir():
        raise DataError(f"{one.path}: the folder of its pictures, {found}, is not there; give another one.")
    return found


def origin(one: Input, source: str) -> Origin:
    """The names of a source, as the hub has them where the file is one of the published ones."""
    stem = one.path.stem
    if one.form is Form.SCENES:
        return Origin(source, f"Rendered scenes {scenes_hash(one.path)[:12]}")
    if one.form is Form.COCO:
        published = re.fullmatch(r"instances_(train|val|test)(\d{4})", stem)
        return Origin(source, f"COCO {published[2]} {COCO_SETS[published[1]]} Set" if published else f"COCO {stem}")
    if one.form is Form.OMNI3D:
        name = omni3d_set(stem)
        return Origin(source, f"Omni3D {name}", f"omni3d_{re.sub(r'[^a-z0-9]+', '-', name.lower())}")
    named = ADE20K_SETS.get(one.path.name.lower())
    return Origin(source, f"ADE20K {named} Set" if named else "ADE20K")


def omni3d_set(stem: str) -> str:
    """The data set of an Omni3D file, by the file's name: SUNRGBD for SUNRGBD_val and Omni3D_SUNRGBD_sample."""
    words = re.split(r"[_.-]", stem)
    return next((name for name in OMNI3D_SETS if name.lower() in map(str.lower, words)), stem)


def annotation_files(one: Input) -> list[Path]:
    """Every file that the annotations are read from, in an order that does not depend on the file system.

    Raises:
        DataError: if there is none.
    """
    match one.form:
        case Form.SCENES:
            files = [one.path / "instances.json", one.path / "cuboids.json"]
        case Form.ADE20K if one.path.is_dir():
            scenes = sorted(one.path.rglob("*.json"))
            files = [*scenes, *sorted(one.path.rglob("*.png"))] if scenes else []  # what is seen stands in masks
        case Form.ADE20K:
            own = (one.path.with_name(f"{one.path.stem}_seg.png"), *one.path.with_suffix("").glob("*.png"))
            files = [one.path, *sorted(file for file in own if file.is_file())]
        case Form.ADE20K_MASKS:
            masks = sorted(one.path.rglob("*.png"))
            files = [*masks, table_of_classes(one)] if masks else []
        case _:
            files = [one.path]
    if not files:
        raise DataError(f"{one.path}: holds no annotation file of the form {one.form}; give another path.")
    return files


def fingerprint(one: Input) -> str:
    """SHA-256 over names and content of the annotation files, wherever they lie.

    Raises:
        DataError: if one cannot be read.
    """
    digest = hashlib.sha256()
    for file in annotation_files(one):
        name = file.relative_to(one.path).as_posix() if file.is_relative_to(one.path) else file.name
        digest.update(f"{name}\0".encode())
        try:
            with file.open("rb") as stream:
                while chunk := stream.read(CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise DataError(f"cannot read {file}: {error.strerror or error}.") from error
    return digest.hexdigest()
