"""The things of a rendered scene with everything known of them: colour, instance in the picture, cuboid in space."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cambrian_data.boxes import Box
from cambrian_data.cvbench.annotations import Cuboid, Instance, Picture
from cambrian_data.cvbench.sources import coco, omni3d
from cambrian_data.cvbench.sources.dataset_file import decode
from cambrian_data.cvbench.sources.kinds import COCO_INSTANCES
from cambrian_data.errors import DataError


@dataclass(frozen=True, slots=True)
class Item:
    """One thing.

    Attributes:
        colour: its name.
        instance: as seen in the picture.
        cuboid: as it is in space, with the same id.
    """

    colour: str
    instance: Instance
    cuboid: Cuboid

    @property
    def id(self) -> int:
        """Of its instance and its cuboid."""
        return self.instance.id

    @property
    def kind(self) -> str:
        """Its category."""
        return self.instance.category

    @property
    def box(self) -> Box:
        """Of what is visible, pixels."""
        return self.instance.box

    @property
    def depth(self) -> float:
        """Of its middle along the camera's axis, metres."""
        return sum(vertex[2] for vertex in self.cuboid.vertices) / len(self.cuboid.vertices)


@dataclass(frozen=True, slots=True)
class Inventory:
    """The visible things of one scene.

    Attributes:
        file_name: of the picture.
        width: of the picture, pixels.
        height: of the picture, pixels.
        items: by rising id.
    """

    file_name: str
    width: int
    height: int
    items: tuple[Item, ...]

    @property
    def flat(self) -> Picture[Instance]:
        """What the makers of Count and Relation see."""
        return Picture(self.file_name, self.width, self.height, tuple(item.instance for item in self.items))

    @property
    def solid(self) -> Picture[Cuboid]:
        """What the makers of Depth and Distance see."""
        return Picture(self.file_name, self.width, self.height, tuple(item.cuboid for item in self.items))


class _Colour(msgspec.Struct, gc=False):
    id: int
    color: str


class _ColourFile(msgspec.Struct):
    annotations: list[_Colour]


def read_inventories(scenes_dir: Path) -> list[Inventory]:
    """Reads the scenes that `write_scenes` has written, in order.

    Raises:
        DataError: if an annotation file is missing or broken.
    """
    instances_file, solid_file = Path(scenes_dir) / "instances.json", Path(scenes_dir) / "cuboids.json"
    solid = {thing.id: thing for picture in omni3d.read(solid_file).pictures for thing in picture.things}
    colours = {entry.id: entry.color for entry in decode(instances_file, _ColourFile, COCO_INSTANCES).annotations}
    found: dict[str, list[Item]] = defaultdict(list)
    pictures = coco.read(instances_file).pictures
    for picture in pictures:
        for thing in picture.things:
            if thing.id not in solid:
                raise DataError(f"{solid_file}: no cuboid for annotation {thing.id} of {instances_file.name}.")
            found[picture.file_name].append(Item(colours[thing.id], thing, solid[thing.id]))
    return [
        Inventory(picture.file_name, picture.width, picture.height, tuple(found[picture.file_name]))
        for picture in pictures
    ]
