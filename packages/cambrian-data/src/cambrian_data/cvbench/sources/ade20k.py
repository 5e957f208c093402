"""ADE20K in its full format: a JSON file a picture, with whole things and their parts, masks beside it.

ADE20K was annotated with whatever names came to mind, so it never says what is not there. Nor is all there of what was
named: of the scenes handed out with its code, one has a banner outlined and five not, another misses persons as large
as those that it has. So no category is complete in any picture, which rules out counting and has boxes drawn where a
name alone might mean something else. Whoever will review every question can ask for more.

`crop` and `depth_ordering_rank` are not read: in those scenes the former goes with `occluded` and not with the
picture's edge, the latter is the number of the thing plus one.

Source: README.md (github CSAILVision/ADE20K), release 2021_17_01.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import msgspec

from cambrian_data.cvbench.annotations import Annotations, Instance, Picture
from cambrian_data.cvbench.sources import kinds
from cambrian_data.cvbench.sources.ade20k_names import NAMELESS, first_synonym, is_group
from cambrian_data.cvbench.sources.ade20k_shapes import Shape, find_shapes
from cambrian_data.cvbench.sources.kinds import ADE20K_SCENE
from cambrian_data.errors import DataError
from cambrian_data.images import ImageSize
from cambrian_data.records import shown

WHOLE = 0.95  # part of an outline; the rest is slack of drawing

PART = "a part of another thing"
NAMELESS_THING = 'a thing without a name ("-")'
UNSEEN = "a thing of which nothing is seen"

Progress = Callable[[int, int], None]
Numbers = list[float] | float  # the files come from MATLAB, where a list of one is a number
Text = str | list[str]  # and an empty list stands for no text


class Polygon(msgspec.Struct):
    """An outline, pixels."""

    x: Numbers
    y: Numbers


class Parts(msgspec.Struct):
    """A thing's place in the tree of parts: 0 for whole things."""

    part_level: int


class Ade20kObject(msgspec.Struct):
    """An entry of "object"."""

    id: int
    name: str
    polygon: Polygon
    parts: Parts
    name_ndx: int
    raw_name: Text = ""
    hypernym: Text = ""
    occluded: Text = ""
    instance_mask: Text = ""

    @property
    def category(self) -> str:
        """The first of its name's synonyms."""
        return first_synonym(self.name)

    @property
    def is_group(self) -> bool:
        """Whether it is several things in one outline."""
        return is_group(self.name, self.raw_name if isinstance(self.raw_name, str) else "")

    @property
    def hypernyms(self) -> list[str]:
        """WordNet's names for what it is, itself first."""
        return [self.hypernym] if isinstance(self.hypernym, str) else self.hypernym

    @property
    def corners(self) -> list[tuple[float, float]]:
        """Of its polygon, pixels."""
        return list(zip(listed(self.polygon.x), listed(self.polygon.y), strict=True))


class Ade20kScene(msgspec.Struct):
    """The file's "annotation"; imsize is height, width and, for most, the number of channels."""

    filename: str
    imsize: list[int]
    object: list[Ade20kObject] | Ade20kObject = []


class Ade20kFile(msgspec.Struct):
    """What we read of a file."""

    annotation: Ade20kScene


class Read(NamedTuple):
    """One scene, read."""

    picture: Picture[Instance]
    left_out: Counter[str]


def listed(numbers: Numbers) -> list[float]:
    """The numbers as a list."""
    return numbers if isinstance(numbers, list) else [numbers]


def read(path: Path, progress: Progress | None = None, *, exhaustive: bool = False) -> Annotations[Instance]:
    """Reads the scenes of a folder and of all folders in it, or one scene.

    Args:
        path: of the folder, or of a scene's JSON file; pictures and masks lie beside the JSON files.
        progress: called with (scenes read, scenes).
        exhaustive: believe that who outlined one thing of a category outlined all that can be counted; only for
            questions that a person reviews.

    Raises:
        DataError: naming the file, and as far as they are known the image and the field.
    """
    path = Path(path)
    root, files = scene_files(path)
    scenes: list[Read] = []
    for file in files:
        scenes.append(read_scene(file, root, exhaustive))
        if progress is not None:
            progress(len(scenes), len(files))
    pictures = sorted((scene.picture for scene in scenes), key=lambda picture: picture.file_name)
    left_out = sum((scene.left_out for scene in scenes), Counter())
    categories = {thing.category for picture in pictures for thing in picture.things}
    return Annotations(path, tuple(sorted(categories)), tuple(pictures), dict(sorted(left_out.items())))


def scene_files(path: Path) -> tuple[Path, list[Path]]:
    """The folder that pictures are named from, and the scenes' files.

    Raises:
        DataError: if a folder holds none.
    """
    if not path.is_dir():
        return path.parent, [path]
    files = sorted(path.rglob("*.json"))
    if not files:
        raise DataError(f"{path}: holds no JSON file; expected a folder of scenes, each {ADE20K_SCENE}.")
    return path, files


def read_scene(file: Path, root: Path, exhaustive: bool) -> Read:
    """Reads one scene; its picture is named by its path in the root.

    Raises:
        DataError: naming the file, and as far as they are known the image and the field.
    """
    scene = decode(file)
    where = f"{file}: image {shown(scene.filename)}"
    size = check_scene(scene, where)
    objects = scene.object if isinstance(scene.object, list) else [scene.object]
    check_objects(objects, where)
    name = (file.parent / scene.filename).relative_to(root).as_posix()
    whole = [entry for entry in objects if entry.parts.part_level == 0 and entry.category != NAMELESS]
    try:
        shapes = find_shapes(file.parent, PurePath(scene.filename).stem, size, whole)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    seen = [(entry, shape) for entry in whole if (shape := shapes[entry.id]) is not None]
    things = tuple(to_instance(entry, shape) for entry, shape in sorted(seen, key=lambda pair: pair[0].id))
    left_out = Counter(reason for entry in objects if (reason := reason_to_leave_out(entry, shapes)) is not None)
    sure = complete(objects, things) if exhaustive else frozenset()
    return Read(Picture(name, *size, things, complete=sure), left_out)


def to_instance(entry: Ade20kObject, shape: Shape) -> Instance:
    """A thing that is seen.

    The outline of one that its annotator marked as occluded may end where the hidden part begins. Then all of it is
    seen, more or less, which measures nothing.
    """
    visibility = shape.visibility
    if entry.occluded == "yes" and visibility is not None and visibility > WHOLE:
        visibility = None
    return Instance(entry.id, entry.category, shape.box, shape.area, entry.is_group, visibility)


def reason_to_leave_out(entry: Ade20kObject, shapes: dict[int, Shape | None]) -> str | None:
    """Why an entry gives no thing, None if it gives one."""
    if entry.parts.part_level > 0:
        return PART
    if entry.category == NAMELESS:
        return NAMELESS_THING
    return UNSEEN if shapes[entry.id] is None else None


def complete(objects: Sequence[Ade20kObject], things: Sequence[Instance]) -> frozenset[str]:
    """The categories of which every instance in the picture is among the things, if all were outlined that are named.

    Not so those with a group, with a part of the same name (the doors of a building), with a thing that is not seen
    (its outline may only be drawn in a wrong order), and those that another thing's kind belongs to (the van is a
    truck), as WordNet has it.
    """
    seen = {thing.id for thing in things}
    doubtful = {entry.category for entry in objects if entry.is_group or entry.id not in seen}
    broader = {first_synonym(name) for entry in objects for name in entry.hypernyms if name != entry.name}
    return frozenset(thing.category for thing in things) - doubtful - broader


def check_scene(scene: Ade20kScene, where: str) -> ImageSize:
    """The picture's size.

    Raises:
        DataError: if it has none, or the picture's name is no plain one.
    """
    if len(scene.imsize) not in (2, 3) or min(scene.imsize) < 1:
        raise DataError(f'{where}: "imsize" is {scene.imsize}; expected height, width and number of channels.')
    if not scene.filename or PurePath(scene.filename).name != scene.filename or "\\" in scene.filename:
        raise DataError(f'{where}: "filename" is {shown(scene.filename)}; expected the name of a picture beside it.')
    return ImageSize(scene.imsize[1], scene.imsize[0])


def check_objects(objects: Sequence[Ade20kObject], where: str) -> None:
    """Raises DataError for an id given twice, an empty name, or a polygon that is none."""
    ids: set[int] = set()
    for entry in objects:
        at = f"{where}, object {entry.id}"
        if entry.id in ids:
            raise DataError(f'{at}: "id" {entry.id} occurs twice; ids of objects must be unique.')
        ids.add(entry.id)
        if not entry.category:
            raise DataError(f'{at}: "name" is {shown(entry.name)}; expected synonyms, separated by commas.')
        across, down = listed(entry.polygon.x), listed(entry.polygon.y)
        if len(across) != len(down):
            raise DataError(f'{at}: "polygon" has {len(across)} values of x and {len(down)} of y; expected as many.')
        if not all(map(math.isfinite, (*across, *down))):
            raise DataError(f'{at}: "polygon" holds a number that is not finite.')


def decode(file: Path) -> Ade20kScene:
    """The file as a scene.

    Raises:
        DataError: if it cannot be read, is of another kind, or an object lacks a field or has one of a wrong type.
    """
    content = kinds.read_bytes(file, ADE20K_SCENE)
    try:
        return msgspec.json.decode(content, type=Ade20kFile).annotation
    except (msgspec.DecodeError, UnicodeDecodeError):
        return decode_slowly(file, content)


def decode_slowly(file: Path, content: bytes) -> Ade20kScene:
    """The same with Python's reader and errors that name the object; not all published files are in UTF-8."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    document = kinds.parse(file, text, ADE20K_SCENE)
    try:
        return msgspec.convert(document, Ade20kFile).annotation
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at ")
        raise DataError(f"{file}: {place(document, where.strip('`'))}: {problem}.") from error


def place(document: Any, where: str) -> str:
    """Words for a path such as `$.annotation.object[3].polygon.x`: the image, the object's id, and the field."""
    scene = document["annotation"]
    image = f"image {shown(scene.get('filename'))}"
    match = re.match(r"\$\.annotation\.object(?:\[(\d+)\])?\.?(.*)", where)
    if match is None:
        return f"{image}, {where}"
    entry = scene["object"] if match[1] is None else scene["object"][int(match[1])]
    number = entry.get("id", match[1]) if isinstance(entry, dict) else match[1]
    return f"{image}, object {number}" + (f', field "{match[2]}"' if match[2] else "")
