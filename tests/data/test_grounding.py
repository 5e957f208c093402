"""What is where in a scene: inventories against the raw files, texts of hand-made scenes, records against pixels."""

import io
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cambrian_data import read_records
from cambrian_data.boxes import Box
from cambrian_data.cvbench import write_scene_records
from cambrian_data.cvbench.annotations import Cuboid, Instance
from cambrian_data.cvbench.names import one
from cambrian_data.cvbench.sources import coco, omni3d
from cambrian_data.errors import DataError
from cambrian_data.grounding import (
    ATTRIBUTES,
    Inventory,
    Item,
    cell_items,
    describe,
    item_words,
    read_cells,
    read_inventories,
    write_scene_grounding,
)
from cambrian_data.grounding.records import BOX_COUNTS, boxed_picture, draw_some_boxes
from cambrian_data.grounding.texts import DESCRIBE, EMPTY
from cambrian_data.images import load_image
from cambrian_data.scenes import write_scenes
from tests.support.folders import contents

NUM_SCENES = 14
RGB = {"red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 255, 0)}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=NUM_SCENES, seed=5)
    return folder


@pytest.fixture(scope="module")
def inventories(scenes):
    return read_inventories(scenes)


@pytest.fixture(scope="module")
def made(scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("grounding")
    return folder, write_scene_grounding(scenes, folder, grid_side=4, readings_per_picture=2, seed=3)


def item(number, colour, kind, middle, depth):
    """A thing whose box has this middle, and whose cuboid this depth."""
    x, y = middle
    instance = Instance(number, kind, Box(x - 2, y - 2, x + 2, y + 2), 16.0)
    corners = [(dx, dy, depth + dz) for dx in (-0.5, 0.5) for dy in (-0.5, 0.5) for dz in (-0.5, 0.5)]
    return Item(colour, instance, Cuboid(number, kind, instance.box, tuple(corners)))


def inventory(*items):
    """A picture of 60 x 120 pixels: cells of 20 x 40 in a grid of 3 x 3."""
    return Inventory("a.png", 60, 120, items)


# --- inventories


def test_an_inventory_joins_what_the_files_know_of_each_thing(scenes, inventories):
    flat, solid = (json.loads((scenes / name).read_text()) for name in ("instances.json", "cuboids.json"))
    kinds = {category["id"]: category["name"] for category in flat["categories"]}
    cuboids = {annotation["id"]: annotation for annotation in solid["annotations"]}
    assert [one.file_name for one in inventories] == [image["file_name"] for image in flat["images"]]
    for image, found in zip(flat["images"], inventories, strict=True):
        assert (found.width, found.height) == (image["width"], image["height"]) == (64, 64)
        raw = [annotation for annotation in flat["annotations"] if annotation["image_id"] == image["id"]]
        assert [thing.id for thing in found.items] == [annotation["id"] for annotation in raw]
        assert len(raw) >= 2
        for thing, annotation in zip(found.items, raw, strict=True):
            cuboid = cuboids[annotation["id"]]
            left, top, width, height = annotation["bbox"]
            assert (thing.kind, thing.colour) == (kinds[annotation["category_id"]], annotation["color"])
            assert (thing.cuboid.id, thing.cuboid.category) == (annotation["id"], thing.kind)
            assert thing.box == thing.instance.box == (left, top, left + width, top + height)
            assert [list(vertex) for vertex in thing.cuboid.vertices] == cuboid["bbox3D_cam"]
            # The files round what they hold; metres.
            assert thing.depth == pytest.approx(cuboid["center_cam"][2], abs=1e-4)


def test_the_makers_of_questions_see_the_same_things(scenes, inventories):
    assert tuple(found.flat for found in inventories) == coco.read(scenes / "instances.json").pictures
    solid = omni3d.read(scenes / "cuboids.json").pictures  # the makers do not look at the camera
    assert [found.solid for found in inventories] == [replace(picture, intrinsics=None) for picture in solid]


@pytest.mark.parametrize("name", ["instances.json", "cuboids.json"])
def test_a_missing_or_broken_annotation_file_is_named(scenes, tmp_path, name):
    for file in ("instances.json", "cuboids.json"):
        (tmp_path / file).write_bytes((scenes / file).read_bytes())
    (tmp_path / name).write_text("{")
    with pytest.raises(DataError, match=rf"{name}: malformed JSON"):
        read_inventories(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=rf"cannot read .*{name}: No such file"):
        read_inventories(tmp_path)


def test_things_without_a_colour_are_named(scenes, tmp_path):
    for file in ("instances.json", "cuboids.json"):
        (tmp_path / file).write_bytes((scenes / file).read_bytes())
    data = json.loads((tmp_path / "instances.json").read_text())
    del data["annotations"][3]["color"]
    (tmp_path / "instances.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match=r'instances.json: image "\d+.png", annotation \d+: .*`color`'):
        read_inventories(tmp_path)


# --- cells


def test_every_thing_lies_in_its_cell_in_reading_order():
    ball, cube = item(1, "red", "ball", (50, 20), 3), item(2, "cyan", "cube", (10, 60), 4)
    cone, ring = item(3, "blue", "cone", (30, 100), 5), item(4, "blue", "ring", (60, 120), 6)
    assert cell_items(inventory(ball, cube, cone, ring), 3) == [
        *(None, None, ball),
        *(cube, None, None),
        *(None, cone, ring),  # the picture's last corner belongs to its last cell
    ]
    assert cell_items(inventory(ball, cube), 1) == [ball]
    assert cell_items(inventory(), 2) == [None] * 4


@pytest.mark.parametrize("depths", [(3, 4, 5), (5, 3, 4), (4, 5, 3)])
def test_the_nearest_of_those_that_share_a_cell_is_seen(depths):
    things = [item(number, "red", "ball", (25 + number, 50), depth) for number, depth in enumerate(depths)]
    assert cell_items(inventory(*things), 3)[4] is things[depths.index(3)]


@pytest.mark.parametrize("grid_side", [1, 3, 8])
def test_cells_of_scenes_are_those_of_the_middles(inventories, grid_side):
    for found in inventories:
        cells = cell_items(found, grid_side)
        assert len(cells) == grid_side**2
        by_cell: dict[int, list[Item]] = {}
        for thing in found.items:
            left, top, right, bottom = thing.box
            column, row = (int((low + high) / 2 / 64 * grid_side) for low, high in ((left, right), (top, bottom)))
            by_cell.setdefault(row * grid_side + column, []).append(thing)
        assert {place: thing for place, thing in enumerate(cells) if thing is not None} == {
            place: min(things, key=lambda thing: thing.depth) for place, things in by_cell.items()
        }


# --- texts


BALL = item(7, "orange", "ball", (47, 20), 7.0)
CUBE = item(8, "red", "cube", (10, 61), 11.0)
CONE = item(9, "blue", "cone", (47, 100), 2.0)
SCENE = inventory(BALL, CUBE, CONE)


def test_a_description_lists_the_things_from_left_to_right_with_their_boxes():
    assert describe(SCENE, {8: "green", 9: "red"}) == (
        DESCRIBE,
        "I see a red cube in the green box at x2 y8 z21, an orange ball at x12 y2 z17 "
        "and a blue cone in the red box at x12 y13 z6.",
    )
    assert describe(inventory(BALL), {}).answer == "I see an orange ball at x12 y2 z17."
    assert describe(inventory(CONE, BALL), {}).answer.startswith("I see an orange ball at x12 y2 z17 and a blue cone")


def test_things_at_one_place_are_described_in_the_order_of_their_ids():
    pair = item(2, "cyan", "ring", (47, 20), 3.0), item(1, "red", "ring", (48, 20), 4.0)
    words = "I see a red ring at x12 y2 z12 and a cyan ring at x12 y2 z9."
    assert describe(inventory(*pair), {}).answer == describe(inventory(*pair[::-1]), {}).answer == words


def test_a_picture_of_nothing_is_described_as_such():
    assert describe(inventory(), {}) == (DESCRIBE, "I see no objects.")


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("kinds", "empty empty ball\n cube empty empty\n empty empty cone"),
        ("colours", "empty empty orange\n red empty empty\n empty empty blue"),
        ("boxes", "empty empty in the blue box\n empty empty empty\n empty empty empty"),
        ("columns", "empty empty at x12\n at x2 empty empty\n empty empty at x12"),
        ("rows", "empty empty y2\n y8 empty empty\n empty empty y13"),
        ("depths", "empty empty z17\n z21 empty empty\n empty empty z6"),
    ],
)
def test_a_reading_names_one_attribute_of_every_cell(attribute, expected):
    turn = read_cells(SCENE, {7: "blue"}, attribute, cell_items(SCENE, 3), 3)
    assert turn == (f"Read the {attribute} cell by cell.", expected)


@pytest.mark.parametrize("grid_side", [2, 5])
def test_a_reading_has_a_line_for_each_row_of_the_grid(inventories, grid_side):
    for found in inventories:
        cells = cell_items(found, grid_side)
        for attribute in ("kinds", "colours", "rows", "depths"):  # of one word each
            lines = read_cells(found, {}, attribute, cells, grid_side).answer.split("\n")
            rows = [line.split() for line in lines]
            assert [len(row) for row in rows] == [grid_side] * grid_side
            seen = Counter(word for row in rows for word in row if word != EMPTY)
            assert seen == Counter(getattr(item_words(thing, found, {}), attribute) for thing in cells if thing)


def test_the_attributes_are_those_that_things_have_words_for():
    assert item_words(BALL, SCENE, {7: "green"})._asdict() == dict(
        zip(ATTRIBUTES, ("ball", "orange", "in the green box", "at x12", "y2", "z17"), strict=True)
    )
    assert item_words(BALL, SCENE, {8: "green"}).boxes == ""


# --- records


def texts(record):
    return tuple(message["content"][-1]["text"] for message in record.messages)


def by_picture(folder):
    """The records of each picture, in order."""
    found: dict[str, list] = {}
    for record in read_records(folder / "records.jsonl"):
        (image,) = record.images
        assert isinstance(image, str)
        found.setdefault(image, []).append(record)
    return found


def test_every_picture_has_a_description_and_readings_of_different_attributes(made, inventories):
    folder, summary = made
    found = by_picture(folder)
    assert list(found) == [f"img/{one.file_name}" for one in inventories]
    assert (summary.num_pictures, summary.num_records) == (NUM_SCENES, 3 * NUM_SCENES)
    assert len({record.id for records in found.values() for record in records}) == summary.num_records
    used = set()
    for records, scene in zip(found.values(), inventories, strict=True):
        asked, answered = zip(*map(texts, records), strict=True)
        readings = [question.removeprefix("Read the ").removesuffix(" cell by cell.") for question in asked[1:]]
        assert asked[0] == DESCRIBE
        assert len(set(readings)) == 2
        used |= set(readings)
        boxes = boxes_in(answered[0], scene)
        assert answered[0] == describe(scene, boxes).answer
        cells = cell_items(scene, 4)
        assert list(answered[1:]) == [read_cells(scene, boxes, name, cells, 4).answer for name in readings]
        assert {record.source for record in records} == {"grounding"}
        assert [message["role"] for message in records[0].messages] == ["user", "assistant"]
    assert used == set(ATTRIBUTES)


def boxes_in(description, scene):
    """Which things a description puts in a box."""
    found = {}
    for thing in scene.items:
        for colour in RGB:
            words = item_words(thing, scene, {thing.id: colour})
            if f"{one(words.colours)} {' '.join(words[:1] + words[2:])}" in description:
                found[thing.id] = colour
    return found


def test_the_boxes_that_are_told_of_are_drawn_and_nothing_else_is_touched(scenes, made, inventories):
    folder, _ = made
    drawn: Counter[int] = Counter()
    for scene, (image, records) in zip(inventories, by_picture(folder).items(), strict=True):
        boxes = boxes_in(texts(records[0])[1], scene)
        assert texts(records[0])[1].count(" box at ") == len(boxes)
        expected = np.array(load_image(scenes / "images" / scene.file_name))
        for colour in RGB:  # in the order in which one line crosses another
            for thing in scene.items:
                if boxes.get(thing.id) == colour:
                    outline(expected, thing.box, RGB[colour])
        assert np.array_equal(np.asarray(load_image(folder / image)), expected)
        drawn[len(boxes)] += 1
    assert {0, 2, 3} <= set(drawn)


def outline(pixels, box, colour):
    """Draws the line of one pixel around a box; where the box touches the picture's edge, on that edge."""
    left, top, right, bottom = (int(edge) for edge in box)
    left, top, right, bottom = max(left - 1, 0), max(top - 1, 0), min(right, 63), min(bottom, 63)
    pixels[top : bottom + 1, [left, right]] = colour
    pixels[[top, bottom], left : right + 1] = colour


@pytest.mark.parametrize("boxes", [{1: "red", 2: "blue"}, {1: "blue", 2: "red"}, {2: "green", 1: "blue"}])
def test_where_boxes_cross_the_later_colour_of_the_questions_is_on_top(tmp_path, boxes):
    Image.new("RGB", (60, 120)).save(tmp_path / "a.png")
    scene = inventory(item(1, "red", "ball", (30, 50), 3), item(2, "red", "ball", (32, 52), 3))
    shown = Image.open(io.BytesIO(boxed_picture(tmp_path, scene, boxes))).convert("RGB")
    on_top = max(boxes.values(), key=list(RGB).index)
    assert {shown.getpixel(place) for place in ((32, 49), (29, 52))} == {RGB[on_top]}


@given(st.lists(st.integers(0, 99), unique=True, max_size=6), st.integers(0, 2**32))
def test_no_more_boxes_are_drawn_than_there_are_things_and_colours(ids, seed):
    boxes = draw_some_boxes(ids, random.Random(seed))
    assert set(boxes) <= set(ids)
    assert len(boxes) <= max(BOX_COUNTS) == len(RGB)
    assert set(boxes.values()) <= set(RGB)
    assert len(set(boxes.values())) == len(boxes)


@pytest.mark.parametrize("count", [0, 6])
def test_as_many_readings_are_written_as_are_wanted(scenes, tmp_path, count):
    summary = write_scene_grounding(scenes, tmp_path, grid_side=3, readings_per_picture=count)
    assert summary.num_records == (1 + count) * NUM_SCENES
    for records in by_picture(tmp_path).values():
        assert len({texts(record)[0] for record in records}) == 1 + count


def test_same_arguments_give_the_same_bytes_and_another_seed_others(scenes, made, tmp_path):
    folder, summary = made
    told: list[tuple[int, int]] = []
    options: dict[str, Any] = {"grid_side": 4, "readings_per_picture": 2}
    again = write_scene_grounding(
        scenes, tmp_path / "again", seed=3, progress=lambda done, count: told.append((done, count)), **options
    )
    other = write_scene_grounding(scenes, tmp_path / "other", seed=4, **options)
    assert contents(tmp_path / "again") == contents(folder)
    assert again == summary
    assert told == [(number + 1, NUM_SCENES) for number in range(NUM_SCENES)]
    assert other.content_hash != summary.content_hash


# --- made once


def test_a_finished_folder_is_not_touched_again(scenes, made):
    folder, summary = made
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write_scene_grounding(scenes, folder, grid_side=4, readings_per_picture=2, seed=3) == summary
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert not list(folder.glob("*.unfinished"))


def test_an_interrupted_folder_is_made_whole(scenes, made, tmp_path):
    class InterruptionError(Exception):
        pass

    def interrupt(done, count):
        if done == 5:
            raise InterruptionError

    options: dict[str, Any] = {"grid_side": 4, "readings_per_picture": 2, "seed": 3}
    with pytest.raises(InterruptionError):
        write_scene_grounding(scenes, tmp_path, progress=interrupt, **options)
    assert not (tmp_path / "records.jsonl").exists()
    with pytest.raises(DataError, match=r"holds unfinished .* of another request"):
        write_scene_grounding(scenes, tmp_path, **{**options, "seed": 4})
    write_scene_grounding(scenes, tmp_path, **options)
    assert contents(tmp_path) == contents(made[0])


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"seed": 4}, "seed 3, not 4"),
        ({"grid_side": 8}, "grid_side 4, not 8"),
        ({"readings_per_picture": 1}, "readings_per_picture 2, not 1"),
    ],
)
def test_a_folder_of_another_request_is_refused(scenes, made, change, difference):
    options = {"grid_side": 4, "readings_per_picture": 2, "seed": 3, **change}
    with pytest.raises(DataError, match=rf"holds other .*: {difference}; choose another folder"):
        write_scene_grounding(scenes, made[0], **options)


def test_a_folder_of_something_else_is_refused(scenes, made, tmp_path):
    write_scene_records(scenes, tmp_path / "questions", count_per_task=2)
    for write in (
        lambda: write_scene_records(scenes, made[0], count_per_task=2),
        lambda: write_scene_grounding(scenes, tmp_path / "questions", grid_side=4),
    ):
        with pytest.raises(DataError, match=r"holds no (questions|grounding records); choose an empty"):
            write()
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        write_scene_grounding(scenes, tmp_path, grid_side=4)
    with pytest.raises(DataError, match=r"thesis.txt is a file"):
        write_scene_grounding(scenes, tmp_path / "thesis.txt", grid_side=4)
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.txt", "questions"}


def test_files_missing_from_a_finished_folder_are_noticed(scenes, tmp_path):
    write_scene_grounding(scenes, tmp_path, grid_side=4)
    (tmp_path / "img" / "000001.png").unlink()
    with pytest.raises(DataError, match=rf"1 of the {NUM_SCENES} pictures in .*img are missing"):
        write_scene_grounding(scenes, tmp_path, grid_side=4)
    (tmp_path / "records.jsonl").unlink()
    with pytest.raises(DataError, match=r"records.jsonl is missing"):
        write_scene_grounding(scenes, tmp_path, grid_side=4)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"grid_side": 0}, "grid_side is 0; expected at least 1"),
        ({"readings_per_picture": 7}, "readings_per_picture is 7; expected 0 to 6"),
        ({"readings_per_picture": -1}, "readings_per_picture is -1; expected 0 to 6"),
        ({"seed": -1}, "seed is -1; expected 0 or more"),
        ({"scenes_dir": Path("nowhere")}, "nowhere holds no finished scenes"),
    ],
)
def test_arguments_out_of_range_are_refused(scenes, tmp_path, arguments, problem):
    with pytest.raises(DataError, match=problem):
        write_scene_grounding(**{"scenes_dir": scenes, "output": tmp_path / "out", "grid_side": 4, **arguments})
    assert not (tmp_path / "out").exists()
