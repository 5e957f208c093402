"""COCO-format instances: any file with COCO's images, annotations with bbox, and categories.

Source: COCO data format (cocodataset.org/#format-data).
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from cambrian_data.cvbench.annotations import Annotations, Instance
from cambrian_data.cvbench.sources.dataset_file import (
    COCO_INSTANCES,
    Category,
    Edges,
    assemble,
    checked_box,
    decode,
    measured,
)
from cambrian_data.errors import DataError


class CocoImage(msgspec.Struct, gc=False):
    """An entry of "images"."""

    id: int
    width: int
    height: int
    name: str = msgspec.field(name="file_name")


class CocoAnnotation(msgspec.Struct, gc=False):
    """An entry of "annotations"; visibility is an addition of our scenes."""

    id: int
    image_id: int
    category_id: int
    bbox: Edges
    area: float | None = None
    iscrowd: int = 0
    visibility: float | None = None


class CocoFile(msgspec.Struct):
    """What we read of a file."""

    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[Category]


def read(file: Path) -> Annotations[Instance]:
    """Reads the instances of a file.

    Raises:
        DataError: naming the file, and as far as they are known the image and the field.
    """
    content = decode(Path(file), CocoFile, COCO_INSTANCES)
    return assemble(Path(file), content.images, content.annotations, content.categories, to_instance)


def to_instance(entry: CocoAnnotation, category: str, image: CocoImage, where: str) -> Instance:
    """One annotation, checked; its box is COCO's left, top, width, height."""
    left, top, width, height = entry.bbox
    box = checked_box((left, top, left + width, top + height), image, where, "bbox")
    area = box.area if entry.area is None else entry.area
    if not math.isfinite(area) or area < 0:
        raise DataError(f'{where}: "area" is {area}; expected a number of pixels.')
    return Instance(entry.id, category, box, area, bool(entry.iscrowd), measured(entry.visibility, where, "visibility"))
