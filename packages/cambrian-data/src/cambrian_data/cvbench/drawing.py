"""Boxes drawn on pictures: red, blue and green, as the questions name them."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image, ImageDraw

from cambrian_data.boxes import Box

RGB = {"red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 255, 0)}
LINES_PER_SIDE = 200  # a line is this part of the shorter side, one pixel at least


def draw_boxes(picture: Image.Image, boxes: Mapping[str, Box]) -> Image.Image:
    """A copy of the picture with a box of each colour, its lines just outside the thing so that they hide none of it.

    Where the thing touches the picture's edge, the line lies on the edge.
    """
    drawn = picture.copy()
    pen = ImageDraw.Draw(drawn)
    line = max(1, round(min(picture.size) / LINES_PER_SIDE))
    for colour, box in boxes.items():
        outline = (
            max(round(box.left) - line, 0),
            max(round(box.top) - line, 0),
            min(round(box.right) + line, picture.width) - 1,
            min(round(box.bottom) + line, picture.height) - 1,
        )
        pen.rectangle(outline, outline=RGB[colour], width=line)
    return drawn
