"""The pictures that questions are asked about: the source's own, or with boxes drawn."""

from __future__ import annotations

import io
from pathlib import Path

from cambrian_data.boxes import Box
from cambrian_data.cvbench.drawing import draw_boxes
from cambrian_data.cvbench.questions import BOX_COLOURS, Question
from cambrian_data.errors import ImageError
from cambrian_data.images import load_image, locate


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
    file = locate(images, question.candidate.picture.file_name)
    picture = load_image(file)
    stated = question.candidate.picture.width, question.candidate.picture.height
    if picture.size != stated:
        raise ImageError(
            f"{file}: is {picture.width} x {picture.height} pixels; its annotations state {stated[0]} x {stated[1]}. "
            "Use the pictures that were annotated."
        )
    drawn = boxes(question)
    if not drawn and file.suffix.lower() == ".png":
        return file.read_bytes()
    stream = io.BytesIO()
    draw_boxes(picture, drawn).save(stream, "PNG", compress_level=6)
    return stream.getvalue()
