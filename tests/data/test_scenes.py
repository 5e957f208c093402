"""Scenes: reproducible, geometrically true, and honestly annotated."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from cambrian_data import DataError, read_records, verify
from cambrian_data.scenes import make_scene, render, write_scenes
from cambrian_data.scenes.annotate import coco_annotations, file_name, omni3d_annotations, run_lengths
from cambrian_data.scenes.camera import Camera
from cambrian_data.scenes.captions import Mention, caption, caption_record, place
from cambrian_data.scenes.objects import COLOURS, KINDS, SceneObject
from cambrian_data.scenes.scene import MAX_OBJECTS, MIN_OBJECTS, MIN_VISIBLE_PIXELS
from tests.support.folders import contents

SHARED = Path(__file__).parents[2].parent / "shared"
SIDES = (48, 64, 80)
CASES = [(make_scene(5, index), SIDES[index % 3]) for index in range(30)]


@pytest.fixture(scope="module")
def rendered():
    return [(scene, side, render(scene, side)) for scene, side in CASES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    output = tmp_path_factory.mktemp("scenes")
    write_scenes(output, count=12, seed=3)
    return output


def load(folder, name):
    return json.loads((folder / name).read_text())


# --- a scene is a pure function of its arguments


def test_same_seed_same_scene_and_pixels(rendered):
    for scene, side, rendering in rendered:
        assert make_scene(scene.seed, scene.index) == scene
        assert np.array_equal(render(scene, side).pixels, rendering.pixels)


def test_every_seed_and_index_is_another_scene():
    scenes = [make_scene(seed, index) for seed in (0, 1, 11) for index in (0, 1, 11, 111)]
    assert len({scene.objects for scene in scenes}) == len(scenes)


def test_same_arguments_same_bytes_with_any_number_of_processes(folder, tmp_path):
    seen = []
    write_scenes(tmp_path / "a", count=12, seed=3, processes=2, progress=lambda *counts: seen.append(counts))
    assert contents(tmp_path / "a") == contents(folder)
    assert seen == [(done, 12) for done in range(1, 13)]


def test_a_fresh_process_gives_the_same_bytes(folder, tmp_path):
    code = f"""
from pathlib import Path
from cambrian_data.scenes import write_scenes
write_scenes(Path({str(tmp_path / "a")!r}), count=12, seed=3)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert contents(tmp_path / "a") == contents(folder)


def test_a_longer_set_begins_with_the_shorter_one(folder, tmp_path):
    write_scenes(tmp_path / "a", count=5, seed=3)
    long, short = contents(folder), contents(tmp_path / "a")
    assert all(long[name] == short[name] for name in short if name.startswith("images/"))
    assert load(folder, "instances.json")["images"][:5] == load(tmp_path / "a", "instances.json")["images"]


# --- what scenes are made of


def test_scenes_use_every_kind_colour_count_and_region():
    scenes = [make_scene(0, index) for index in range(200)]
    things = [thing for scene in scenes for thing in scene.objects]
    assert {thing.kind for thing in things} == set(KINDS)
    assert {thing.colour for thing in things} == set(COLOURS)
    assert {len(scene.objects) for scene in scenes} == set(range(MIN_OBJECTS, MAX_OBJECTS + 1))
    assert min(len(KINDS), len(COLOURS)) >= 6
    text = " ".join(caption_record(scene, render(scene, 32)).messages[1]["content"][0]["text"] for scene in scenes[:80])
    for words in ("upper left", "upper right", "lower left", "lower right", "middle", "top", "bottom"):
        assert words in text


def test_objects_stand_on_the_ground_apart_from_each_other(rendered):
    for scene, _, _ in rendered:
        for number, thing in enumerate(scene.objects):
            # The four lower corners of the box lie in the ground plane of the camera frame.
            vertices = thing.pose(scene.camera).vertices()
            heights = scene.camera.height - scene.camera.down @ vertices
            assert np.allclose(np.sort(heights)[:4], 0, atol=1e-9)
            for other in scene.objects[:number]:
                distance = np.hypot(thing.x - other.x, thing.z - other.z)
                assert distance > thing.radius + other.radius


def test_every_object_is_seen(rendered):
    for scene, side, rendering in rendered:
        assert len(rendering.visibility) == len(scene.objects)
        assert rendering.visibility.min() > 0.35  # 0.45 at the side where it is judged; other grids count differently
        if side == 64:
            counts = np.bincount(rendering.instances.ravel(), minlength=len(scene.objects) + 1)[1:]
            assert counts.min() >= MIN_VISIBLE_PIXELS


@pytest.mark.parametrize("kind", KINDS)
def test_rays_meet_the_surface_that_the_normal_belongs_to(kind):
    rng = np.random.default_rng(0)
    origin = rng.normal(size=(3, 400))
    origin *= 2 / np.linalg.norm(origin, axis=0)
    direction = rng.uniform(-0.5, 0.5, size=(3, 400)) - origin
    with np.errstate(divide="ignore", invalid="ignore"):
        length = KINDS[kind].hit(origin, direction)
    hits = np.isfinite(length)
    assert hits.sum() > 80
    points = origin[:, hits] + length[hits] * direction[:, hits]
    assert np.abs(points).max() <= 0.5 + 1e-9
    normals = KINDS[kind].normal(points)
    assert ((normals * direction[:, hits]).sum(axis=0) < 0).all()  # a ray from outside enters


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_fills_its_box(kind):
    # Seen from afar along each axis, the silhouette touches the box on all four sides.
    grid = (np.arange(200) + 0.5) / 200 - 0.5
    u, v = np.meshgrid(grid, grid)
    for axis in range(3):
        origin = np.stack([u, v, u])
        origin[axis] = 5.0
        others = [number for number in range(3) if number != axis]
        origin[others[0]], origin[others[1]] = u, v
        direction = np.zeros(3)
        direction[axis] = -1.0
        with np.errstate(divide="ignore", invalid="ignore"):
            hit = np.isfinite(KINDS[kind].hit(origin.reshape(3, -1), direction)).reshape(200, 200)
        for side in (hit[0], hit[-1], hit[:, 0], hit[:, -1]):
            touches = side.any()
            tip = kind in ("cone", "pyramid")  # a tip falls between two samples
            assert touches or tip


# --- geometry


def mirrored(scene):
    objects = tuple(thing._replace(x=-thing.x, yaw=-thing.yaw) for thing in scene.objects)
    return replace(scene, objects=objects, light=(-scene.light[0], *scene.light[1:]))


def test_a_mirrored_scene_gives_a_mirrored_picture(rendered):
    for scene, side, rendering in rendered:
        mirror = render(mirrored(scene), side)
        # Rounding of the last bit may move a sample on an edge: allowed in 1 pixel of 1,000.
        assert (mirror.instances[:, ::-1] != rendering.instances).mean() <= 1e-3
        assert (np.abs(mirror.pixels[:, ::-1].astype(int) - rendering.pixels).max(axis=2) > 1).mean() <= 5e-3


def test_resolution_does_not_move_anything():
    for scene, _ in CASES[:6]:
        small, large = (render(scene, side) for side in (40, 120))
        agree = (large.instances[1::3, 1::3] == small.instances).mean()
        assert agree == 1.0  # the middle pixel of every 3 x 3 looks along the same ray


def test_the_nearer_of_two_objects_hides_the_other():
    camera = Camera(3.0, 0.45, 0.95)
    near = SceneObject("cube", "red", (1.0, 1.0, 1.0), 0.0, 5.0, 0.3)
    far = SceneObject("cube", "blue", (1.0, 1.0, 1.0), 0.0, 6.6, 0.3)
    scene = make_scene(0, 0)
    for order in ((near, far), (far, near)):
        rendering = render(replace(scene, camera=camera, objects=order), 64)
        visibility = dict(zip((thing.colour for thing in order), rendering.visibility, strict=True))
        assert visibility["red"] == 1.0
        assert 0.2 < visibility["blue"] < 0.9


def test_a_larger_coordinate_is_further_right_and_further_away_is_higher():
    camera = Camera(3.0, 0.45, 0.95)
    left, right, far = (SceneObject("ball", "red", (1.0,) * 3, x, z, 0.0) for x, z in ((-1, 5), (1, 5), (0, 9)))
    centres = [camera.project(thing.pose(camera).centre[:, None], 64)[:, 0] for thing in (left, right, far)]
    assert centres[0][0] < centres[2][0] < centres[1][0]
    assert centres[2][1] < centres[0][1] == centres[1][1]


def project(K, vertices):
    image = np.array(K) @ np.array(vertices).T
    return image[:2] / image[2]


def test_projecting_the_cuboid_with_k_gives_its_box(rendered):
    for scene, side, rendering in rendered:
        K = scene.camera.intrinsics(side)
        for annotation in omni3d_annotations(scene, rendering):
            points = project(K, annotation["bbox3D_cam"])
            box = [*points.min(axis=1), *points.max(axis=1)]
            assert np.allclose(box, annotation["bbox2D_proj"], atol=1e-9)
            assert np.allclose(np.clip(box, 0, side), annotation["bbox2D_trunc"], atol=1e-9)
            assert annotation["truncation"] == pytest.approx(0)  # scenes keep objects whole
            tight = annotation["bbox2D_tight"]
            assert tight[0] + 0.5 >= box[0]  # a pixel is one whose centre sees the object
            assert tight[1] + 0.5 >= box[1]
            assert tight[2] - 0.5 <= box[2]
            assert tight[3] - 0.5 <= box[3]


def convex_hull_contains(corners, points):
    """Whether points (2, n) lie in the hull of corners (2, m): no direction separates them (tested on all edges)."""
    inside = np.ones(points.shape[1], dtype=bool)
    for a in corners.T:
        for b in corners.T:
            normal = np.array([b[1] - a[1], a[0] - b[0]])
            bound = (normal @ (corners - a[:, None])).max()
            if bound < 1e-9:  # an edge of the hull
                inside &= normal @ (points - a[:, None]) <= 1e-6
    return inside


def test_every_visible_pixel_lies_in_the_projected_cuboid(rendered):
    for scene, side, rendering in rendered:
        for number, annotation in enumerate(omni3d_annotations(scene, rendering)):
            corners = project(scene.camera.intrinsics(side), annotation["bbox3D_cam"])
            rows, columns = np.nonzero(rendering.instances == number + 1)
            assert convex_hull_contains(corners, np.stack([columns + 0.5, rows + 0.5])).all()


def test_cuboids_are_rotated_boxes_in_omni3d_order(rendered):
    for scene, _, rendering in rendered:
        for annotation in omni3d_annotations(scene, rendering):
            check_cuboid(annotation)


def check_cuboid(annotation):
    """Omni3D: v0 -> v1 is the length along R's x axis, v0 -> v3 the height along y, v0 -> v4 the width along z."""
    vertices, rotation = np.array(annotation["bbox3D_cam"]), np.array(annotation["R_cam"])
    width, height, length = annotation["dimensions"]
    assert np.allclose(vertices.mean(axis=0), annotation["center_cam"], atol=1e-4)
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-4)
    assert np.linalg.det(rotation) == pytest.approx(1, abs=1e-4)
    for end, column, extent in ((1, 0, length), (3, 1, height), (4, 2, width)):
        assert np.allclose(vertices[end] - vertices[0], rotation[:, column] * extent, atol=1e-4)
    assert np.allclose(vertices[6] - vertices[0], vertices[1] + vertices[3] + vertices[4] - 3 * vertices[0], atol=1e-4)


def test_real_omni3d_files_follow_the_order_and_have_no_key_that_ours_lack(folder):
    samples = sorted((SHARED / "assets" / "omni3d").glob("*.json"))
    if not samples:
        pytest.skip("needs ../shared/assets/omni3d, which is absent")
    ours = load(folder, "cuboids.json")
    for sample in samples:
        real = json.loads(sample.read_text())
        for annotation in real["annotations"]:
            if annotation["valid3D"]:
                check_cuboid(annotation)
        assert set(real) <= set(ours)
        assert set(real["info"]) <= set(ours["info"])
        for part in ("images", "annotations", "categories"):
            assert set(real[part][0]) <= set(ours[part][0])


def test_depth_at_the_centre_of_a_ball_is_its_distance_less_its_radius():
    camera = Camera(3.0, 0.45, 0.95)
    ball = SceneObject("ball", "red", (1.2, 1.2, 1.2), 0.4, 6.0, 0.0)
    pose = ball.pose(camera)
    ray = pose.centre / np.linalg.norm(pose.centre)
    with np.errstate(divide="ignore", invalid="ignore"):
        length = KINDS["ball"].hit(pose.to_unit(-pose.centre), pose.to_unit(ray))
    assert float(length) == pytest.approx(np.linalg.norm(pose.centre) - 0.6)


# --- annotations against a recount


def decode(segmentation):
    flat = np.zeros(np.prod(segmentation["size"]), dtype=bool)
    position, value = 0, False
    for count in segmentation["counts"]:
        flat[position : position + count] = value
        position, value = position + count, not value
    assert position == len(flat)
    return flat.reshape(segmentation["size"], order="F")


def test_instances_agree_with_a_recount_of_the_map(rendered):
    for scene, side, rendering in rendered:
        annotations = coco_annotations(scene, rendering)
        assert len(annotations) == len(scene.objects)
        for number, annotation in enumerate(annotations):
            pixels = {(x, y) for y in range(side) for x in range(side) if rendering.instances[y, x] == number + 1}
            left, top = (min(pixel[axis] for pixel in pixels) for axis in (0, 1))
            right, bottom = (max(pixel[axis] for pixel in pixels) + 1 for axis in (0, 1))
            assert annotation["bbox"] == [left, top, right - left, bottom - top]
            assert annotation["area"] == len(pixels)
            assert annotation["iscrowd"] == 0
            assert annotation["color"] == scene.objects[number].colour
            assert np.array_equal(decode(annotation["segmentation"]), rendering.instances == number + 1)


@pytest.mark.parametrize("mask", [np.zeros((3, 5), bool), np.ones((3, 5), bool), np.eye(5, dtype=bool)[:, :3]])
def test_run_lengths_give_back_any_mask(mask):
    assert np.array_equal(decode(run_lengths(mask)), mask)


def test_files_refer_to_each_other(folder):
    instances, cuboids = load(folder, "instances.json"), load(folder, "cuboids.json")
    images = {image["id"]: image["file_name"] for image in instances["images"]}
    assert len(images) == 12
    assert images == {image["id"]: image["file_path"] for image in cuboids["images"]}
    names = {category["id"]: category["name"] for category in instances["categories"]}
    assert instances["categories"] == cuboids["categories"]
    flat, solid = ({a["id"]: a for a in data["annotations"]} for data in (instances, cuboids))
    assert flat.keys() == solid.keys()
    assert len(flat) == len(instances["annotations"])
    for number, annotation in solid.items():
        assert names[annotation["category_id"]] == annotation["category_name"]
        same = ("image_id", "category_id", "color", "visibility")
        assert [annotation[key] for key in same] == [flat[number][key] for key in same]
    for name in images.values():
        assert verify(folder / "images" / name) == (64, 64)


def test_pictures_hold_pixels_and_nothing_else(folder):
    with Image.open(folder / "images" / file_name(0)) as image:
        assert (image.mode, image.size, image.info) == ("RGB", (64, 64), {})
        assert np.array_equal(np.asarray(image), render(make_scene(3, 0), 64).pixels)


# --- captions


def test_captions_are_plain_english():
    ball = Mention("red", "ball", "on the left")
    cube = Mention("blue", "cube", "in the middle")
    ring = Mention("cyan", "ring", "on the right")
    assert caption([ball]) == "There is one object: a red ball on the left."
    assert caption([ball, cube]) == "There are two objects: a red ball on the left and a blue cube in the middle."
    assert caption([ball, cube, ring]) == (
        "There are three objects: a red ball on the left, a blue cube in the middle, and a cyan ring on the right."
    )
    assert caption([ball, ball, ring]) == (
        "There are three objects: two red balls on the left and a cyan ring on the right."
    )
    assert caption([ring._replace(colour="orange")]) == "There is one object: an orange ring on the right."


def test_places_are_the_nine_parts_of_the_picture():
    assert place(0.1, 0.1) == "on the upper left"
    assert place(0.5, 0.1) == "at the top"
    assert place(0.9, 0.5) == "on the right"
    assert place(0.5, 0.5) == "in the middle"
    assert place(0.34, 0.99) == "at the bottom"
    assert place(1.0, 1.0) == "on the lower right"


def test_caption_records_name_every_object_and_their_picture(folder):
    records = list(read_records(folder / "captions.jsonl"))
    cuboids = load(folder, "cuboids.json")["annotations"]
    numbers = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
    assert len(records) == 12
    for index, record in enumerate(records):
        things = [a for a in cuboids if a["image_id"] == index + 1]
        text = record.messages[1]["content"][0]["text"]
        assert record.source == "scenes"
        assert record.images == [f"images/{file_name(index)}"]
        assert text.startswith(f"There are {numbers[len(things)]} objects: ")
        for thing in things:
            assert f"{thing['color']} {thing['category_name']}" in text
    assert len({record.messages[0]["content"][1]["text"] for record in records}) > 2


# --- the folder


def test_the_manifest_says_what_the_folder_holds(folder):
    manifest = load(folder, "scenes.json")
    assert {"seed": 3, "count": 12, "side": 64, "format_version": 2}.items() <= manifest.items()
    assert manifest["num_objects"] == len(load(folder, "cuboids.json")["annotations"])
    assert len(manifest["content_hash"]) == 64


def test_a_finished_folder_is_not_touched_again(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    summary = write_scenes(folder, count=12, seed=3)
    assert msgspec.to_builtins(summary) == load(folder, "scenes.json")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_an_interrupted_set_is_made_whole(folder, tmp_path):
    class InterruptionError(Exception):
        pass

    def interrupt(done, count):
        if done == 7:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        write_scenes(tmp_path, count=12, seed=3, progress=interrupt)
    assert not (tmp_path / "scenes.json").exists()
    (tmp_path / "images" / file_name(2)).write_bytes(b"half a pict")
    with pytest.raises(DataError, match="holds unfinished scenes of seed 3, count 12"):
        write_scenes(tmp_path, count=12, seed=4)
    write_scenes(tmp_path, count=12, seed=3)
    assert contents(tmp_path) == contents(folder)


def test_a_folder_of_something_else_is_refused(folder, tmp_path):
    with pytest.raises(DataError, match=r"holds scenes of seed 3, count 12, side 64, .*, not seed 4"):
        write_scenes(folder, count=12, seed=4)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty and holds no scenes"):
        write_scenes(tmp_path, count=2, seed=0)
    with pytest.raises(DataError, match=r"thesis.txt is a file"):
        write_scenes(tmp_path / "thesis.txt", count=2, seed=0)
    (tmp_path / "scenes.json").write_text("{}")
    with pytest.raises(DataError, match="is not a manifest of scenes"):
        write_scenes(tmp_path, count=2, seed=0)
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.txt", "scenes.json"}


def test_a_picture_missing_from_a_finished_set_is_noticed(tmp_path):
    write_scenes(tmp_path, count=2, seed=0)
    (tmp_path / "images" / file_name(1)).unlink()
    with pytest.raises(DataError, match=r"000001.png is missing from a finished set"):
        write_scenes(tmp_path, count=2, seed=0)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"count": 0}, "count is 0; expected at least 1"),
        ({"side": 15}, "side is 15; expected 16 to 1024"),
        ({"side": 1025}, "side is 1025"),
        ({"seed": -1}, "seed is -1"),
        ({"processes": 0}, "processes is 0"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path, arguments, problem):
    with pytest.raises(DataError, match=problem):
        write_scenes(tmp_path / "a", **({"count": 2, "seed": 0} | arguments))
    assert not (tmp_path / "a").exists()


def test_no_space_left_is_said_plainly(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, which this system lacks")
    (tmp_path / "images").mkdir()
    (tmp_path / "scenes.unfinished").write_text("seed 0, count 2, side 64, format version 2\n")
    (tmp_path / "images" / file_name(1)).symlink_to("/dev/full")  # a real write that fails for want of space
    with pytest.raises(DataError, match=r"cannot write .*: No space left on device"):
        write_scenes(tmp_path, count=2, seed=0)
    assert not (tmp_path / "scenes.json").exists()


@pytest.mark.parametrize("side", [16, 130])
def test_other_sides_work(tmp_path, side):
    write_scenes(tmp_path, count=3, seed=0, side=side)
    assert verify(tmp_path / "images" / file_name(2)) == (side, side)
