"""COCO-format instances: any file with COCO's images, annotations with bbox, and categories.

What pycocotools takes is taken: crowds, float boxes, polygons and run lengths, compressed or not, missing areas. Files
are not read with pycocotools itself, which keeps every outline in memory; a test holds the two equal.

Source: COCO data format (cocodataset.org/#format-data).
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from cambrian_data.cvbench.annotations import Annotations, Instance, Matrix
from cambrian_data.cvbench.sources.dataset_file import Category, Edges, assemble, checked_box, decode, measured
from cambrian_data.cvbench.sources.kinds import COCO_INSTANCES
from cambrian_data.cvbench.sources.outlines import Area, area_of
from cambrian_data.errors import DataError


class CocoImage(msgspec.Struct, gc=False):
    """An entry of "images"."""

    id: int
    width: int
    height: int
    name: str = msgspec.field(name="file_name")

    @property
    def intrinsics(self) -> Matrix | None:
        """COCO knows no cameras."""
        return None


class CocoAnnotation(msgspec.Struct, gc=False):
    """An entry of "annotations"; visibility is an addition of our scenes."""

    id: int
    image_id: int
    category_id: int
    bbox: Edges
    area: float | None = None
    iscrowd: int | bool = 0
    visibility: float | None = None


class CocoFile(msgspec.Struct):
    """What we read of a file."""

    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[Category]


class Outlined(msgspec.Struct, gc=False):
    """An entry of "annotations" where areas are missing; an outline becomes its area at once, and is not kept."""

    id: int
    area: float | None = None
    segmentation: Area | None = None


class OutlinedFile(msgspec.Struct):
    """What we read of a file in which areas are missing."""

    annotations: list[Outlined]


def read(file: Path) -> Annotations[Instance]:
    """Reads the instances of a file.

    A missing area is taken from the outline, and without one from the box.

    Raises:
        DataError: naming the file, and as far as they are known the image and the field.
    """
    content = decode(Path(file), CocoFile, COCO_INSTANCES)
    if any(entry.area is None for entry in content.annotations):
        fill_areas(Path(file), content.annotations)
    return assemble(Path(file), content.images, content.annotations, content.categories, to_instance)


def fill_areas(file: Path, annotations: list[CocoAnnotation]) -> None:
    """Reads the file once more, for the areas of outlines."""
    outlined = decode(file, OutlinedFile, COCO_INSTANCES, area_of).annotations
    for entry, outline in zip(annotations, outlined, strict=True):
        if entry.area is None and outline.segmentation:
            entry.area = float(outline.segmentation)


def to_instance(entry: CocoAnnotation, category: str, image: CocoImage, where: str) -> Instance:
    """One annotation, checked; its box is COCO's left, top, width, height."""
    left, top, width, height = entry.bbox
    box = checked_box((left, top, left + width, top + height), image, where, "bbox")
    area = box.area if entry.area is None else entry.area
    if not math.isfinite(area) or area < 0:
        raise DataError(f'{where}: "area" is {area}; expected a number of pixels.')
    return Instance(entry.id, category, box, area, bool(entry.iscrowd), measured(entry.visibility, where, "visibility"))
