"""The shape that COCO and Omni3D files share: images, annotations and categories that refer to each other by id.

Files are decoded straight into typed entries, so that outlines and other keys we do not use cost nothing. Only when
that fails is the file read a second time, to say which image, annotation and field is to blame.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from cambrian_data.boxes import Box
from cambrian_data.cvbench.annotations import Annotations, Matrix, Picture, Thing
from cambrian_data.cvbench.sources import kinds
from cambrian_data.errors import DataError
from cambrian_data.records import shown

ROUNDED = 1e-6  # that a part may exceed 1
OUTSIDE = 2.0  # pixels that a box may reach beyond its picture: published boxes are rounded

Edges = tuple[float, float, float, float]


class Category(msgspec.Struct, gc=False):
    """An entry of "categories"."""

    id: int
    name: str


class Sized(Protocol):
    """Whatever has a picture's size."""

    @property
    def width(self) -> int:
        """In pixels."""

    @property
    def height(self) -> int:
        """In pixels."""


class ImageEntry(Sized, Protocol):
    """An entry of "images"."""

    id: int

    @property
    def name(self) -> str:
        """The picture's path, as the file gives it."""

    @property
    def intrinsics(self) -> Matrix | None:
        """The camera's K, pixels; None where the file has none."""


class AnnotationEntry(Protocol):
    """An entry of "annotations"."""

    id: int
    image_id: int
    category_id: int


Image = TypeVar("Image", bound=ImageEntry)
Entry = TypeVar("Entry", bound=AnnotationEntry)
Document = TypeVar("Document", bound=msgspec.Struct)
Hook = Callable[[type, Any], Any]


def decode(file: Path, form: type[Document], kind: str, hook: Hook | None = None) -> Document:
    """The file as typed entries.

    Args:
        file: that is read.
        form: of its content.
        kind: that it must be of, one of the names in `kinds`.
        hook: for types of our own, as msgspec wants it.

    Raises:
        DataError: if it cannot be read, is of another kind, or an entry lacks a field or has one of a wrong type.
    """
    content = kinds.read_bytes(file, kind)
    try:
        found = kinds.of_document(kinds.sketch(content))
        if found != kind:
            raise kinds.refuse(file, found, kind)
        return msgspec.json.decode(content, type=form, dec_hook=hook)
    except (msgspec.DecodeError, UnicodeDecodeError):  # NaN, too, is no JSON to msgspec, though many files hold it
        return decode_slowly(file, content, form, kind, hook)


def decode_slowly(file: Path, content: bytes, form: type[Document], kind: str, hook: Hook | None) -> Document:
    """The same with Python's reader, which takes NaN, and with errors that name image and field."""
    document = kinds.parse(file, content, kind, without_outline)
    try:
        return msgspec.convert(document, form, dec_hook=hook)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at ")
        raise DataError(f"{file}: {place(document, where.strip('`'))}: {problem}{field(where)}.") from error


def without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry without what fills memory and is not used: the outline of a thing whose area is stated."""
    if entry.get("area") is not None:
        entry.pop("segmentation", None)
    return entry


def place(document: Any, where: str) -> str:
    """Words for the entry of a path such as `$.annotations[3].bbox`: its number, and the image's name if known."""
    match = re.match(r"\$\.(\w+)\[(\d+)\]", where)
    if match is None:
        return where or "the file"
    entries, index = match[1], int(match[2])
    entry = document[entries][index]
    identity = entry.get("id") if isinstance(entry, dict) else None
    number = f"number {index + 1}" if identity is None else str(identity)
    noun = {"annotations": "annotation", "images": "image", "categories": "category"}.get(entries, entries)
    if not isinstance(entry, dict) or entries not in ("annotations", "images"):
        return f"{noun} {number}"
    if entries == "images":
        return f"image {shown(stated_path(entry) or identity)}"
    images: list[Any] = document["images"]
    image: Any = next((image for image in images if same_id(image, entry.get("image_id"))), {})
    return f"image {shown(stated_path(image) or entry.get('image_id'))}, {noun} {number}"


def stated_path(image: dict[str, Any]) -> object:
    """The path of a parsed image, in COCO's or Omni3D's field."""
    return image.get("file_name") or image.get("file_path")


def same_id(image: object, image_id: object) -> bool:
    """Whether the parsed image has this id."""
    return isinstance(image, dict) and image_id is not None and image.get("id") == image_id


def field(where: str) -> str:
    """Words for the field at the end of a path, "" if the path ends at an entry."""
    name = re.search(r"\]\.(\w+[^`]*)", where)
    return f', in the field "{name[1]}"' if name else ""


def assemble(
    file: Path,
    images: Sequence[Image],
    annotations: Iterable[Entry],
    categories: Sequence[Category],
    to_thing: Callable[[Entry, str, Image, str], Thing | str],
) -> Annotations[Thing]:
    """Puts every annotation into its picture, in an order that does not depend on the file's.

    Args:
        file: for messages.
        images: of the file.
        annotations: of the file.
        categories: of the file.
        to_thing: (annotation, category, image, place for messages) -> the thing, or the reason to leave it out.

    Raises:
        DataError: if ids are double or unknown, or whatever to_thing finds.
    """
    image_of = by_id(file, "image", images)
    name_of = {number: category.name for number, category in by_id(file, "category", categories).items()}
    places = {number: f"{file}: image {shown(image.name)}" for number, image in image_of.items()}
    things: dict[int, list[Thing]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    seen: set[int] = set()
    for entry in annotations:
        image = image_of.get(entry.image_id)
        if image is None:
            raise DataError(
                f'{file}: annotation {entry.id}: "image_id" is {entry.image_id}, which is no image of this file.'
            )
        where = f"{places[entry.image_id]}, annotation {entry.id}"
        if entry.id in seen:
            raise DataError(f'{where}: "id" {entry.id} occurs twice; ids of annotations must be unique.')
        seen.add(entry.id)
        if entry.category_id not in name_of:
            raise DataError(f'{where}: "category_id" is {entry.category_id}, which is no category of this file.')
        thing = to_thing(entry, name_of[entry.category_id], image, where)
        if isinstance(thing, str):
            left_out[thing] += 1
        else:
            things[entry.image_id].append(thing)
    pictures = [
        Picture(
            image.name,
            image.width,
            image.height,
            tuple(sorted(things[image.id], key=lambda thing: thing.id)),
            image.intrinsics,
        )
        for image in sorted(images, key=lambda image: image.name)
    ]
    return Annotations(file, tuple(sorted(set(name_of.values()))), tuple(pictures), dict(sorted(left_out.items())))


def by_id(file: Path, noun: str, entries: Sequence[Any]) -> dict[int, Any]:
    """The entries by their ids. Two categories may share a name: they are one to whoever reads the question.

    Raises:
        DataError: for an id or a picture given twice, an empty name, or a picture without pixels.
    """
    found: dict[int, Any] = {}
    names: set[str] = set()
    for entry in entries:
        if entry.id in found:
            raise DataError(f'{file}: {noun} "id" {entry.id} occurs twice; ids must be unique.')
        if not entry.name.strip():
            raise DataError(f"{file}: {noun} {entry.id}: the name {shown(entry.name)} is empty.")
        if noun == "category" and (entry.name != entry.name.strip() or not entry.name.isprintable()):
            raise DataError(
                f"{file}: category {entry.id}: the name {shown(entry.name)} has white space around it, or a control "
                "character in it; questions would hold it. Write the name alone."
            )
        if noun == "image" and entry.name in names:
            raise DataError(f"{file}: {noun} {entry.id}: the name {shown(entry.name)} occurs twice.")
        if noun == "image" and (entry.width < 1 or entry.height < 1):
            raise DataError(
                f'{file}: image {shown(entry.name)}: "width" and "height" are {entry.width} and {entry.height}; '
                "expected at least one pixel."
            )
        found[entry.id] = entry
        names.add(entry.name)
    return found


def checked_box(edges: Edges, image: Sized, where: str, name: str) -> Box:
    """The box, cut at the picture's edges.

    Raises:
        DataError: if it is not finite, is turned inside out, or lies outside the picture.
    """
    left, top, right, bottom = edges
    if not all(map(math.isfinite, edges)):
        raise DataError(f'{where}: "{name}" is {list(edges)}; expected finite numbers.')
    if right < left or bottom < top:
        raise DataError(f'{where}: "{name}" has the edges {list(edges)}; width and height must not be negative.')
    if left < -OUTSIDE or top < -OUTSIDE or right > image.width + OUTSIDE or bottom > image.height + OUTSIDE:
        raise DataError(
            f'{where}: "{name}" has the edges {list(edges)}, outside the picture of {image.width} x {image.height}.'
        )
    return Box(max(left, 0.0), max(top, 0.0), min(right, float(image.width)), min(bottom, float(image.height)))


def measured(value: float | None, where: str, name: str) -> float | None:
    """A part 0..1; None where the file has no value, or a negative one, which stands for none in Omni3D.

    Raises:
        DataError: if it is not finite, or above 1.
    """
    if value is None:
        return None
    if not math.isfinite(value) or value > 1 + ROUNDED:
        raise DataError(f'{where}: "{name}" is {value}; expected a part, 0 to 1, or a negative number for none.')
    return min(value, 1.0) if value >= 0 else None
