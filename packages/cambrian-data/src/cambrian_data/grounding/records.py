"""Descriptions and readings of rendered scenes as training records, each about a picture with a few boxes drawn."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from cambrian_data.cvbench.drawing import draw_boxes
from cambrian_data.cvbench.folder import Kind, Writer, make_once
from cambrian_data.cvbench.questions import BOX_COLOURS
from cambrian_data.cvbench.scenes import missing, report, to_request
from cambrian_data.errors import DataError
from cambrian_data.formats import chat
from cambrian_data.grounding.inventory import Inventory, read_inventories
from cambrian_data.grounding.texts import ATTRIBUTES, Turn, cell_items, describe, read_cells
from cambrian_data.images import load_image
from cambrian_data.records import Record

FORMAT_VERSION = 1  # raised whenever the same arguments give other bytes
KIND = Kind("grounding records", "grounding.json", "grounding.unfinished")
RECORDS = "records.jsonl"
SOURCE = "grounding"
BOX_COUNTS = (0, 1, 2, 2, 3, 3)  # how many boxes a picture gets is drawn from these; Depth draws 2 and Distance 3
USUAL_COLOURS = 0.8  # how often red comes first, then blue, then green, as in questions


class GroundingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that determines the bytes."""

    scenes: str
    seed: int
    grid_side: int
    readings_per_picture: int
    format_version: int = FORMAT_VERSION


class GroundingSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder of grounding records holds.

    Attributes:
        num_records: written.
        num_pictures: written.
        content_hash: SHA-256 over the bytes of all files but the manifest.
    """

    num_records: int
    num_pictures: int
    content_hash: str


def write_scene_grounding(
    scenes_dir: Path,
    output: Path,
    *,
    grid_side: int,
    readings_per_picture: int = len(ATTRIBUTES),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> GroundingSummary:
    """Writes a description and some readings of every scene: records.jsonl, in chat form, and the pictures it names.

    Args:
        scenes_dir: written by `write_scenes`.
        output: made if missing; must be empty, or hold the same records, finished or not.
        grid_side: cells along either side of the grid that is read: that of the model's image tokens.
        readings_per_picture: of different attributes, 0 to 6.
        seed: of boxes and attributes; same arguments, same bytes.
        progress: called with (pictures written, pictures).

    Raises:
        DataError: if an argument is out of range, the scenes are unfinished or broken, or the folder cannot be used.
    """
    if not 0 <= readings_per_picture <= len(ATTRIBUTES):
        raise DataError(f"readings_per_picture is {readings_per_picture}; expected 0 to {len(ATTRIBUTES)}.")
    if grid_side < 1:
        raise DataError(f"grid_side is {grid_side}; expected at least 1.")
    scenes_dir, output = Path(scenes_dir), Path(output)
    request = GroundingRequest(
        scenes=to_request(scenes_dir, None, seed, None).scenes,
        seed=seed,
        grid_side=grid_side,
        readings_per_picture=readings_per_picture,
    )

    def make(writer: Writer) -> GroundingSummary:
        inventories = read_inventories(scenes_dir)
        lines: list[bytes] = []
        for index, inventory in enumerate(inventories):
            draw = random.Random(f"cambrian-data grounding {seed} {inventory.file_name}")
            boxes = draw_some_boxes([item.id for item in inventory.items], draw)
            name = f"img/{inventory.file_name}"
            writer.picture(name, boxed_picture(scenes_dir / "images", inventory, boxes))
            for number, turn in enumerate(
                turns(inventory, boxes, grid_side, draw.sample(ATTRIBUTES, readings_per_picture))
            ):
                record = to_record(turn, f"grounding-{request.scenes[:12]}-{seed}-{index:06d}-{number}", name)
                lines.append(msgspec.json.encode(chat.from_record(record)))
            report(progress, index + 1, len(inventories))
        writer.table(RECORDS, b"".join(line + b"\n" for line in lines))
        return GroundingSummary(
            num_records=len(lines), num_pictures=writer.num_pictures, content_hash=writer.content_hash
        )

    return make_once(output, request, GroundingSummary, make, partial(missing, output, [RECORDS]), KIND)


def draw_some_boxes(ids: Sequence[int], draw: random.Random) -> dict[int, str]:
    """Ids of things and the colours of their boxes: none to three, mostly the colours that questions use together."""
    count = min(draw.choice(BOX_COUNTS), len(ids))
    colours = BOX_COLOURS if draw.random() < USUAL_COLOURS else draw.sample(BOX_COLOURS, len(BOX_COLOURS))
    return dict(zip(draw.sample(ids, count), colours, strict=False))


def boxed_picture(images: Path, inventory: Inventory, boxes: Mapping[int, str]) -> bytes:
    """The scene's picture with boxes drawn, as PNG."""
    by_id = {item.id: item.box for item in inventory.items}
    drawn = {colour: by_id[number] for number, colour in sorted(boxes.items(), key=lambda b: BOX_COLOURS.index(b[1]))}
    stream = io.BytesIO()
    draw_boxes(load_image(images / inventory.file_name), drawn).save(stream, "PNG", compress_level=6)
    return stream.getvalue()


def turns(inventory: Inventory, boxes: Mapping[int, str], grid_side: int, attributes: Sequence[str]) -> list[Turn]:
    """A description, and a reading of each attribute."""
    cells = cell_items(inventory, grid_side)
    readings = (read_cells(inventory, boxes, attribute, cells, grid_side) for attribute in attributes)
    return [describe(inventory, boxes), *readings]


def to_record(turn: Turn, id: str, image: str) -> Record:
    """One picture, one question, one reply."""
    return Record(
        id=id,
        source=SOURCE,
        messages=[
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": turn.question}]},
            {"role": "assistant", "content": [{"type": "text", "text": turn.answer}]},
        ],
        images=[image],
    )
