"""The pictures that questions are asked about: the source's own, or with boxes drawn.

A photograph may state in its EXIF data that it is to be turned before it is looked at. Its annotations were drawn on it
as it is stored or as it is seen, and only their width and height can tell. Where these fit neither, or both, nobody
knows where the things are: that is an error, not a guess.
"""

from __future__ import annotations

import io
from enum import StrEnum
from pathlib import Path

from PIL import ExifTags, Image

from cambrian_data.boxes import Box
from cambrian_data.cvbench.annotations import Picture, Thing
from cambrian_data.cvbench.drawing import draw_boxes
from cambrian_data.cvbench.questions import BOX_COLOURS, Question
from cambrian_data.errors import ImageError
from cambrian_data.images import QUARTER_TURNS, load_image, locate, opened, to_rgb

UNTURNED = 1
"""The EXIF orientation of a picture that is stored as it is seen."""


class View(StrEnum):
    """How a file shows what was annotated: it needs no turning, or upright as EXIF has it, or just as it is stored."""

    PLAIN = "plain"
    UPRIGHT = "upright"
    STORED = "stored"


def boxes(question: Question) -> dict[str, Box]:
    """The boxes that are drawn, by colour."""
    candidate = question.candidate
    return {
        colour: thing.box
        for thing, colour, boxed in zip(candidate.subjects, BOX_COLOURS, candidate.boxed, strict=False)
        if boxed
    }


def show(question: Question, images: Path) -> bytes:
    """The question's picture as PNG: the file itself if it is one and nothing is drawn on it.

    Args:
        question: that is asked.
        images: folder of the pictures that its annotations name.

    Raises:
        ImageError: if the picture is missing, broken, outside its folder, or not of the size its annotations state.
    """
    annotated = question.candidate.picture
    file = locate(images, annotated.file_name)
    view, drawn = annotated_view(file, annotated), boxes(question)
    if not drawn and view is View.PLAIN and file.suffix.lower() == ".png":
        load_image(file)  # only a whole picture is handed on
        return file.read_bytes()
    picture = load_stored(file) if view is View.STORED else load_image(file)
    stream = io.BytesIO()
    draw_boxes(picture, drawn).save(stream, "PNG", compress_level=6)
    return stream.getvalue()


def annotated_view(file: Path, annotated: Picture[Thing]) -> View:
    """How the file shows what was annotated, from its header: nothing is decoded.

    Raises:
        ImageError: if the file is missing, no picture, or not of the size its annotations state in any view, or if its
            orientation leaves open which view was annotated.
    """
    with opened(file) as image:
        stored = image.size
        exif = Image.Image.getexif(image)  # a PNG's own would decode the whole picture to look further
        orientation = UNTURNED if image.format == "TIFF" else exif.get(ExifTags.Base.Orientation, UNTURNED)
    is_turned = orientation in range(UNTURNED + 1, max(QUARTER_TURNS) + 1)
    seen = stored[::-1] if orientation in QUARTER_TURNS else stored
    stated = annotated.width, annotated.height
    if stated not in (stored, seen):
        raise ImageError(
            f"{file}: is {seen[0]} x {seen[1]} pixels; its annotations state {stated[0]} x {stated[1]}. "
            "Use the pictures that were annotated."
        )
    if is_turned and stored == seen:
        raise ImageError(
            f"{file}: EXIF orientation {orientation} turns it, and its size does not tell whether it was annotated "
            "before or after that; save it as it was annotated, without the tag."
        )
    if not is_turned:
        return View.PLAIN
    return View.UPRIGHT if stated == seen else View.STORED


def load_stored(file: Path) -> Image.Image:
    """The picture as `load_image` gives it, but without turning it.

    Raises:
        ImageError: as `load_image`.
    """
    with opened(file) as image:
        image.load()
        return to_rgb(file, image)
