"""Annotation files as they are published, read with json, numpy and PIL alone.

Source: COCO's data format page; ADE20K's index of the 2021 release; Omni3D's DATA.md.
"""

import csv
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage  # type: ignore[import-untyped]

Box = tuple[float, float, float, float]
NOT_MEASURED = -1
IGNORED_CATEGORIES = {"dontcare", "ignore", "void"}


class Source(NamedTuple):
    """Annotations that a benchmark was made from.

    Attributes:
        form: coco, ade20k, ade20k-masks, omni3d or scenes.
        path: the file or folder.
        images: folder that the pictures' names begin in; not used for ade20k and scenes.
        classes: object150_info.csv, for ade20k-masks.
    """

    form: str
    path: Path
    images: Path = Path()
    classes: Path = Path()


@dataclass(frozen=True)
class Thing:
    """One annotation.

    Attributes:
        id: its number in the file.
        name: the category's name as the file has it, with all synonyms.
        box: left, top, right, bottom, pixels, inside the picture.
        area: square pixels: as the file says, or of the outline; for cuboids that of the box.
        crowd: stands for several things.
        part: belongs to another annotation of the picture.
        visibility: 0..1, None where not measured.
        truncation: 0..1, None where not measured.
        vertices: 8 x 3, metres, camera frame; 0 x 3 for a flat annotation.
    """

    id: int
    name: str
    box: Box
    area: float
    crowd: bool = False
    part: bool = False
    visibility: float | None = None
    truncation: float | None = None
    vertices: np.ndarray = field(default_factory=lambda: np.empty((0, 3)))

    @property
    def shown(self) -> str:
        """The name without its synonyms."""
        return shown_name(self.name)


def shown_name(name: str) -> str:
    """The first of a category's synonyms."""
    return name.split(",")[0].strip()


@dataclass(frozen=True)
class Picture:
    """One picture with all its annotations.

    Attributes:
        source: such as COCO.
        file_name: as the annotations have it.
        file: the picture itself.
        width: pixels.
        height: pixels.
        things: usable ones, crowds and parts among them.
        names: of all categories that the file knows.
        intrinsics: 3 x 3, None for flat annotations.
        num_raw: annotations in the file, the unusable ones among them.
        file_key: which of the given sources it came from.
        is_complete: whether all of every category that the file knows was annotated in it.
    """

    source: str
    file_name: str
    file: Path
    width: int
    height: int
    things: tuple[Thing, ...]
    names: frozenset[str]
    intrinsics: np.ndarray | None
    num_raw: int
    file_key: int
    is_complete: bool = True


def read(sources: list[Source]) -> list[Picture]:
    """The pictures of all sources."""
    found = []
    for key, source in enumerate(sources):
        if source.form == "coco":
            found += read_coco(source.path, source.images, "COCO", key)
        elif source.form == "ade20k":
            found += read_ade20k(source.path, key)
        elif source.form == "ade20k-masks":
            found += read_masks(source, key)
        elif source.form == "omni3d":
            found += read_omni3d(source.path, source.images, "Omni3D", key)
        else:
            assert source.form == "scenes", source.form
            found += read_coco(source.path / "instances.json", source.path / "images", "Scenes2D", key)
            found += read_omni3d(source.path / "cuboids.json", source.path / "images", "Scenes3D", key)
    return found


def clipped(box: Any, width: int, height: int) -> Box:
    """The part of a box inside the picture."""
    left, top, right, bottom = (float(edge) for edge in box)
    return max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))


def by_image(annotations: list[dict]) -> dict[int, list[dict]]:
    """The annotations of each picture."""
    found = defaultdict(list)
    for annotation in annotations:
        found[annotation["image_id"]].append(annotation)
    return found


def read_coco(file: Path, images: Path, source: str, key: int) -> list[Picture]:
    """COCO instances; also those of rendered scenes, which add `visibility`."""
    data = json.loads(file.read_text())
    names = {category["id"]: category["name"] for category in data["categories"]}
    grouped = by_image(data["annotations"])
    found = []
    for image in data["images"]:
        width, height = image["width"], image["height"]
        things = tuple(
            Thing(
                id=one["id"],
                name=names[one["category_id"]],
                box=clipped(corners(one["bbox"]), width, height),
                area=one["area"],
                crowd=bool(one.get("iscrowd", 0)),
                visibility=one.get("visibility"),
            )
            for one in grouped[image["id"]]
        )
        path = images / image["file_name"]
        known = frozenset(names.values())
        found.append(Picture(source, image["file_name"], path, width, height, things, known, None, len(things), key))
    return found


def corners(box: list[float]) -> Box:
    """Left, top, width, height as left, top, right, bottom."""
    left, top, width, height = box
    return left, top, left + width, top + height


def read_omni3d(file: Path, images: Path, source: str, key: int) -> list[Picture]:
    """Omni3D; cuboids that are not valid or behind the camera are left out, as its own loader does."""
    data = json.loads(file.read_text())
    names = {category["id"]: category["name"] for category in data["categories"]}
    grouped = by_image(data["annotations"])
    found = []
    for image in data["images"]:
        raw = grouped[image["id"]]
        usable = [one for one in raw if is_usable(one, names[one["category_id"]])]
        things = tuple(to_cuboid(one, names[one["category_id"]], image) for one in usable)
        path, matrix = images / image["file_path"], np.array(image["K"])
        known = frozenset(names.values()) - IGNORED_CATEGORIES
        found.append(
            Picture(
                source, image["file_path"], path, image["width"], image["height"], things, known, matrix, len(raw), key
            )
        )
    return found


def is_usable(annotation: dict, name: str) -> bool:
    """Whether the cuboid may be used at all."""
    if not annotation["valid3D"] or annotation["behind_camera"] or name in IGNORED_CATEGORIES:
        return False
    if 0 in (annotation.get("lidar_pts"), annotation.get("segmentation_pts")) or annotation["depth_error"] > 0.5:
        return False
    return min(annotation["dimensions"]) > 0 and min(z for _, _, z in annotation["bbox3D_cam"]) > 0


def to_cuboid(annotation: dict, name: str, image: dict) -> Thing:
    """One cuboid; its box is the tight one where there is one, else the projected one."""
    kinds = ("bbox2D_tight", "bbox2D_trunc", "bbox2D_proj")
    given = next(annotation[kind] for kind in kinds if annotation[kind][0] != NOT_MEASURED or kind == kinds[-1])
    box = clipped(given, image["width"], image["height"])
    return Thing(
        id=annotation["id"],
        name=name,
        box=box,
        area=(box[2] - box[0]) * (box[3] - box[1]),
        visibility=measured(annotation["visibility"]),
        truncation=measured(annotation["truncation"]),
        vertices=np.array(annotation["bbox3D_cam"], dtype=float),
    )


def measured(value: float) -> float | None:
    """None for what was not measured."""
    return value if value >= 0 else None


def read_ade20k(path: Path, key: int) -> list[Picture]:
    """ADE20K's full format, one JSON file or a folder of them."""
    return [read_ade20k_file(file, key) for file in ([path] if path.is_file() else sorted(path.rglob("*.json")))]


def read_ade20k_file(file: Path, key: int) -> Picture:
    """One picture of ADE20K."""
    data = json.loads(file.read_bytes().decode("utf-8", "replace"))["annotation"]
    height, width = data["imsize"][:2]
    instances = np.asarray(Image.open(file.with_name(file.stem + "_seg.png")))[..., 2]
    things = tuple(to_outlined(one, instances) for one in data["object"])
    names = frozenset(thing.name for thing in things)
    picture = file.with_name(data["filename"])
    # ADE20K outlines what annotators saw fit to outline: that nothing else of a name is there, it does not say.
    return Picture("ADE20K", data["filename"], picture, width, height, things, names, None, len(things), key, False)


def to_outlined(annotation: dict, instances: np.ndarray) -> Thing:
    """One object: of a whole one, the pixels that the mask gives it; of a part, its outline."""
    inside = inside_outline(annotation["polygon"], instances.shape)
    is_part = annotation["parts"]["part_level"] > 0
    if not is_part:  # every whole object has a number of its own in the blue channel: the commonest in its outline
        inside = instances == np.bincount(instances[inside]).argmax()
    rows, columns = np.nonzero(inside)
    box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
    area, name = float(inside.sum()), annotation["name"]
    return Thing(annotation["id"], name, box, area, crowd=is_several(annotation), part=is_part)


def inside_outline(polygon: dict, shape: tuple[int, int]) -> np.ndarray:
    """The pixels inside an outline."""
    canvas = Image.new("1", (shape[1], shape[0]))
    ImageDraw.Draw(canvas).polygon(list(zip(polygon["x"], polygon["y"], strict=True)), fill=1)
    return np.asarray(canvas)


def is_several(annotation: dict) -> bool:
    """Whether the annotator typed the plural: one outline around several things."""
    typed = annotation["raw_name"].strip()
    names = [name.strip() for name in annotation["name"].split(",")]
    plurals = {name + ending for name in [*names, *shorter(names)] for ending in ("s", "es")}
    return typed not in names and typed in plurals


def shorter(names: list[str]) -> list[str]:
    """The last words of names of several."""
    return [name.split()[-1] for name in names if " " in name]


def read_masks(source: Source, key: int) -> list[Picture]:
    """The 150-class masks: a class of things whose pixels hang together is taken for one thing.

    Only classes whose name is one word are understood.
    """
    with source.classes.open(newline="") as file:
        table = {int(row["Idx"]): row for row in csv.DictReader(file)}
    names = {number: row["Name"].replace(";", ", ") for number, row in table.items()}
    solid = {number for number, row in table.items() if row["Stuff"] == "0"}
    found = []
    for mask in sorted(source.path.rglob("*.png")):
        pixels = np.asarray(Image.open(mask))
        present = [int(number) for number in np.unique(pixels) if number]
        regions = [to_region(pixels == number, number, names[number]) for number in present if number in solid]
        things = tuple(region for region in regions if region is not None)
        name = mask.relative_to(source.path).with_suffix(".jpg")
        found.append(
            Picture(
                source="ADE20K",
                file_name=name.as_posix(),
                file=source.images / name,
                width=pixels.shape[1],
                height=pixels.shape[0],
                things=things,
                names=frozenset(names.values()),
                intrinsics=None,
                num_raw=len(present),
                file_key=key,
                is_complete=False,
            )
        )
    return found


def to_region(inside: np.ndarray, number: int, name: str) -> Thing | None:
    """The thing that a class shows in a mask; None if it is in several pieces."""
    if ndimage.label(inside, structure=np.ones((3, 3)))[1] > 1:
        return None
    rows, columns = np.nonzero(inside)
    box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
    return Thing(number, name, box, float(inside.sum()))
