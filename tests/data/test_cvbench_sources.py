"""CV-Bench's readers: what each format gives, what is left out and why, and what a broken file is told."""

import csv
import doctest
import gzip
import io
import json
import math
import pickle
import re
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask  # type: ignore[import-untyped]
from pycocotools.coco import COCO  # type: ignore[import-untyped]

from cambrian_data.boxes import Box
from cambrian_data.cvbench.annotations import Cuboid
from cambrian_data.cvbench.sources import ade20k, ade20k_masks, ade20k_names, coco, omni3d
from cambrian_data.cvbench.sources.outlines import Area, area_of
from cambrian_data.errors import DataError
from cambrian_data.scenes import write_scenes


def write_json(file: Path, document) -> Path:
    file.write_text(json.dumps(document))
    return file


def things_of(annotations):
    return {thing.id: thing for picture in annotations.pictures for thing in picture.things}


# --- COCO


def coco_document(**more):
    """Two pictures, three things; `more` goes into the first annotation."""
    first = {"id": 7, "image_id": 2, "category_id": 1, "bbox": [1, 2, 10, 20], "area": 90.5, "iscrowd": 0}
    return {
        "images": [
            {"id": 1, "file_name": "b.jpg", "width": 50, "height": 40},
            {"id": 2, "file_name": "a.jpg", "width": 30, "height": 40},
        ],
        "annotations": [
            first | more,
            {"id": 3, "image_id": 2, "category_id": 3, "bbox": [0.5, 0.25, 2.125, 8], "area": 17.0, "iscrowd": 1},
            {"id": 5, "image_id": 1, "category_id": 2, "bbox": [40, 30, 10, 10], "area": 1e2},
        ],
        "categories": [
            {"id": 1, "name": "cat", "supercategory": "animal"},
            {"id": 2, "name": "cat", "supercategory": "pet"},
            {"id": 3, "name": "dog"},
        ],
    }


def test_coco_instances_are_those_that_pycocotools_reads(assets):
    file = assets / "coco" / "instances.json"
    read, reference = coco.read(file), COCO(str(file))
    assert read.left_out == {}
    assert read.categories == tuple(sorted(category["name"] for category in reference.cats.values()))
    assert [picture.file_name for picture in read.pictures] == sorted(
        image["file_name"] for image in reference.imgs.values()
    )
    image_ids = {image["file_name"]: image["id"] for image in reference.imgs.values()}
    assert len(things_of(read)) == len(reference.anns) == 679
    for picture in read.pictures:
        image = reference.imgs[image_ids[picture.file_name]]
        assert (picture.width, picture.height) == (image["width"], image["height"])
        expected = reference.loadAnns(sorted(reference.getAnnIds(imgIds=image["id"])))
        assert [thing.id for thing in picture.things] == [annotation["id"] for annotation in expected]
        for thing, annotation in zip(picture.things, expected, strict=True):
            assert thing.category == reference.cats[annotation["category_id"]]["name"]
            assert thing.is_crowd == (annotation["iscrowd"] == 1)
            assert thing.area == annotation["area"]
            left, top, width, height = annotation["bbox"]
            # Cut at the edges, which COCO's rounding to hundredths may cross by as much.
            assert thing.box == pytest.approx((left, top, left + width, top + height), abs=0.02)
    crowds = reference.getAnnIds(iscrowd=True)
    assert sorted(thing.id for thing in things_of(read).values() if thing.is_crowd) == sorted(crowds)
    assert len(crowds) == 10


def test_missing_areas_are_those_that_coco_states(assets, tmp_path):
    file = assets / "coco" / "instances.json"
    document, reference = json.loads(file.read_text()), COCO(str(file))
    for annotation in document["annotations"]:
        del annotation["area"]
    read = things_of(coco.read(write_json(tmp_path / "a.json", document)))
    for number, annotation in reference.anns.items():
        if annotation["iscrowd"]:  # where COCO states up to a tenth more than its mask holds
            assert read[number].area == coco_mask.area(reference.annToRLE(annotation))
        else:  # COCO states the area of the polygon itself; only the last binary digits differ
            assert read[number].area == pytest.approx(annotation["area"], rel=1e-9)


@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=12))
def test_areas_of_masks_are_those_of_pycocotools(rows):
    mask = np.array(rows, dtype=np.uint8)
    compressed = coco_mask.encode(np.asfortranarray(mask))
    text = {"size": compressed["size"], "counts": compressed["counts"].decode()}
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    counts = np.diff([0, *edges, flat.size]).tolist()
    plain = {"size": list(mask.shape), "counts": counts}
    assert area_of(Area, text) == area_of(Area, plain) == coco_mask.area(compressed) == mask.sum()


def test_long_runs_of_compressed_masks_are_read():
    mask = np.zeros((700, 900), np.uint8)
    mask[3:650, 10:800:3] = 1
    compressed = coco_mask.encode(np.asfortranarray(mask))
    assert area_of(Area, {"size": [700, 900], "counts": compressed["counts"].decode()}) == mask.sum()


@pytest.mark.parametrize(
    ("segmentation", "area"),
    [
        ([[0, 0, 4, 0, 4, 3]], 6),
        ([[0, 0, 4, 0, 4, 3], [10, 10, 10, 12, 12, 12, 12, 10]], 10),
        ({"size": [2, 3], "counts": [1, 2, 3]}, 2),
        (None, 200),
        ([], 200),
    ],
)
def test_a_missing_area_comes_from_the_outline_or_else_from_the_box(tmp_path, segmentation, area):
    document = coco_document(segmentation=segmentation)
    del document["annotations"][0]["area"]
    read = things_of(coco.read(write_json(tmp_path / "a.json", document)))
    assert {number: thing.area for number, thing in read.items()} == {7: area, 3: 17, 5: 100}


def test_crowds_float_boxes_and_categories_of_one_name(tmp_path):
    read = coco.read(write_json(tmp_path / "a.json", coco_document(iscrowd=True)))
    assert read.categories == ("cat", "dog")
    assert [(picture.file_name, len(picture.things)) for picture in read.pictures] == [("a.jpg", 2), ("b.jpg", 1)]
    things = things_of(read)
    assert {number: thing.is_crowd for number, thing in things.items()} == {3: True, 5: False, 7: True}
    assert things[3].box == Box(0.5, 0.25, 2.625, 8.25)
    assert {number: thing.category for number, thing in things.items()} == {3: "dog", 5: "cat", 7: "cat"}
    assert all(picture.complete is None and picture.intrinsics is None for picture in read.pictures)


@given(st.permutations(range(3)), st.permutations(range(2)), st.permutations(range(3)))
def test_the_order_in_a_file_does_not_matter(tmp_path_factory, annotations, images, categories):
    document = coco_document()
    file = tmp_path_factory.getbasetemp() / "permuted.json"
    expected = coco.read(write_json(file, document))
    for key, order in (("annotations", annotations), ("images", images), ("categories", categories)):
        document[key] = [document[key][number] for number in order]
    assert coco.read(write_json(file, document)) == expected


def test_nan_in_a_field_that_is_not_read_is_no_matter(tmp_path):
    document = coco_document(score=math.nan)
    assert things_of(coco.read(write_json(tmp_path / "a.json", document))).keys() == {3, 5, 7}


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"bbox": [25, 2, 10, 20]}, r'image "a.jpg", annotation 7: "bbox" has the edges .*outside the picture of 30 x'),
        ({"bbox": [-9, 2, 10, 20]}, r'image "a.jpg", annotation 7: "bbox" has the edges .*outside the picture of 30 x'),
        ({"bbox": [1, 2, -1, 20]}, r'image "a.jpg", annotation 7: "bbox" .* width and height must not be negative'),
        ({"bbox": [1, math.nan, 1, 2]}, r'image "a.jpg", annotation 7: "bbox" is .*; expected finite numbers'),
        ({"bbox": []}, r'image "a.jpg", annotation 7: Expected `array` of length 4, got 0, in the field "bbox"'),
        ({"area": -1}, r'image "a.jpg", annotation 7: "area" is -1'),
        ({"iscrowd": "no"}, r'image "a.jpg", annotation 7: Expected .*, got `str`, in the field "iscrowd"'),
        ({"id": 5}, r'image "b.jpg", annotation 5: "id" 5 occurs twice'),
        ({"image_id": 9}, r'annotation 7: "image_id" is 9, which is no image'),
        ({"category_id": 9}, r'image "a.jpg", annotation 7: "category_id" is 9, which is no category'),
        ({"area": None, "segmentation": [[1, 2, 3]]}, r'image "a.jpg", annotation 7: a polygon is a list of at least'),
        (
            {"area": None, "segmentation": [[1, 2, 3, 4, 5, "x"]]},
            r'image "a.jpg", annotation 7: a polygon holds something',
        ),
        (
            {"area": None, "segmentation": "all"},
            r'image "a.jpg", annotation 7: a segmentation is .*, in the field "segmentation"',
        ),
        (
            {"area": None, "segmentation": {"size": [2, 2], "counts": [1, 2]}},
            r'image "a.jpg", annotation 7: .*sum to 3 pixels, its',
        ),
        (
            {"area": None, "segmentation": {"size": [2, 2], "counts": "0~"}},
            r'image "a.jpg", annotation 7: .*hold the character .~.',
        ),
        (
            {"area": None, "segmentation": {"size": [2, 2], "counts": "P"}},
            r'image "a.jpg", annotation 7: .*end within a run',
        ),
        (
            {"area": None, "segmentation": {"size": 4, "counts": [4]}},
            r'image "a.jpg", annotation 7: the size of a mask is',
        ),
        ({"area": None, "segmentation": {"size": [2, 2]}}, r'image "a.jpg", annotation 7: the counts of a mask are'),
    ],
)
def test_a_broken_coco_file_names_file_image_and_field(tmp_path, more, problem):
    file = write_json(tmp_path / "a.json", coco_document(**more))
    with pytest.raises(DataError, match=rf"a\.json: {problem}"):
        coco.read(file)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d["categories"][2].pop("name"), r"category 3: .*missing required field `name`"),
        (lambda d: d["categories"][2].update(name=""), r'category 3: the name "" is empty'),
        (lambda d: d["categories"][2].update(id=1), r'category "id" 1 occurs twice'),
        (lambda d: d["images"][0].update(id=2), r'image "id" 2 occurs twice'),
        (lambda d: d["images"][0].update(file_name="a.jpg"), r'image 2: the name "a.jpg" occurs twice'),
        (lambda d: d["images"][0].pop("height"), r'image "b.jpg": .*missing required field `height`'),
        (lambda d: d["images"][0].pop("file_name"), r"image 1: .*missing required field `file_name`"),
        (lambda d: d["images"][0].update(width=0), r'image "b.jpg": "width" and "height" are 0 and 40'),
    ],
)
def test_broken_images_and_categories_are_named(tmp_path, change, problem):
    document = coco_document()
    change(document)
    with pytest.raises(DataError, match=rf"a\.json: {problem}"):
        coco.read(write_json(tmp_path / "a.json", document))


# --- kinds of files


def zipped():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("instances.json", "{}")
    return stream.getvalue()


def drawn(form):
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, form)
    return stream.getvalue()


def with_first(annotation=None, image=None, **more):
    document = coco_document() | more
    document["annotations"][0] |= annotation or {}
    document["images"][0] |= image or {}
    return json.dumps(document).encode()


KINDS = {
    "a COCO captions file": with_first({"caption": "a cat"}),
    "a COCO keypoints file": with_first({"keypoints": [1, 2, 2]}),
    "a COCO panoptic file": with_first({"segments_info": []}),
    "a COCO stuff file": with_first(categories=[{"id": 157, "name": "sky-other"}]),
    "a COCO image list without annotations": json.dumps(
        {key: value for key, value in coco_document().items() if key != "annotations"}
    ).encode(),
    "an LVIS file": with_first(image={"neg_category_ids": [3]}),
    "an Omni3D-format cuboids file": with_first({"bbox3D_cam": []}),
    "an ADE20K scene": b'{"annotation": {"filename": "a.jpg", "imsize": [1, 1, 3], "object": []}}',
    "a LabelMe file": b'{"shapes": [], "imagePath": "a.jpg"}',
    'a JSON object without the list "images"': b'{"info": {}}',
    "a JSON list of COCO results": b'[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]',
    "a JSON list of conversations": b'[{"id": "a", "conversations": []}]',
    "a JSON list": b"[]",
    "a JSON value": b'"instances"',
    "a JSON Lines file": b'{"id": 1}\n{"id": 2}\n',
    "an empty file": b" \n",
    "a gzip archive; unpack it first": gzip.compress(b"{}"),
    "a zip archive; unpack it first": zipped(),
    "a Python pickle": pickle.dumps({"images": []}),
    "a Parquet file": b"PAR1\x15\x04",
    r"a picture \(PNG\)": drawn("PNG"),
    r"a picture \(JPEG\)": drawn("JPEG"),
    r"a picture \(WebP\)": drawn("WEBP"),
    "an HTML page": b"\n<!DOCTYPE html><html><head><title>403</title>",
    "an XML file": b'<?xml version="1.0"?><annotation/>',
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_the_wrong_kind_says_which_kind_it_is(tmp_path, kind):
    file = tmp_path / "instances.json"
    file.write_bytes(KINDS[kind])
    with pytest.raises(DataError, match=rf"instances\.json: this is {kind}.*; expected a COCO-format instances file"):
        coco.read(file)


def test_the_other_readers_say_it_too(tmp_path):
    flat, solid = write_json(tmp_path / "a.json", coco_document()), write_json(tmp_path / "b.json", omni3d_document())
    with pytest.raises(DataError, match=r"a\.json: this is a COCO-format .*; expected an Omni3D-format cuboids file"):
        omni3d.read(flat)
    with pytest.raises(DataError, match=r"b\.json: this is an Omni3D-format cuboids file; expected an ADE20K scene"):
        ade20k.read(solid)
    with pytest.raises(DataError, match=r"b\.json: this is an Omni3D-format cuboids file; expected a COCO-format"):
        coco.read(solid)
    for read in (coco.read, omni3d.read):
        with pytest.raises(DataError, match=r"this is a folder; expected"):
            read(tmp_path)
        with pytest.raises(DataError, match=r"cannot read .*c\.json: No such file"):
            read(tmp_path / "c.json")


def test_malformed_json_is_told_with_its_place(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('{"images": [')
    with pytest.raises(DataError, match=r"a\.json: malformed JSON: .*line 1 column 13.*; expected a COCO-format"):
        coco.read(file)


def test_a_byte_order_mark_is_no_matter(tmp_path):
    file = tmp_path / "a.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(coco_document()).encode())
    assert things_of(coco.read(file)).keys() == {3, 5, 7}


# --- Omni3D

CORNERS = [[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (4.0, 6.0)]
K = [[50.0, 0.0, 32.0], [0.0, 50.0, 24.0], [0.0, 0.0, 1.0]]


def omni3d_document(image=None, **more):
    """One picture, two cuboids; `more` goes into the first."""
    cuboid = {
        **{"id": 1, "image_id": 4, "dataset_id": 2, "category_id": 10, "category_name": "bed", "valid3D": True},
        **{"behind_camera": False, "visibility": -1, "truncation": -1, "segmentation_pts": -1, "lidar_pts": -1},
        **{"depth_error": -1, "dimensions": [2.0, 2.0, 2.0], "bbox3D_cam": CORNERS, "bbox2D_tight": [-1, -1, -1, -1]},
        **{"bbox2D_proj": [19, 11, 45, 37], "bbox2D_trunc": [19, 11, 45, 37], "center_cam": [0, 0, 5]},
    }
    picture = {"id": 4, "dataset_id": 2, "width": 64, "height": 48, "file_path": "SUNRGBD/a.jpg", "K": K}
    return {
        "info": {"id": 2, "name": "SUNRGBD"},
        "images": [picture | {"src_90_rotate": 1, "src_flagged": True} | (image or {})],
        "annotations": [cuboid | more, cuboid | {"id": 2, "category_id": 11, "visibility": 0.5, "truncation": 0.25}],
        "categories": [{"id": 10, "name": "bed"}, {"id": 11, "name": "chair"}, {"id": 8, "name": "dontcare"}],
    }


def read_omni3d(folder, *arguments, **more):
    return omni3d.read(write_json(folder / "o.json", omni3d_document(*arguments, **more)))


def test_cuboids_and_cameras_are_read(tmp_path):
    read = read_omni3d(tmp_path)
    (picture,) = read.pictures
    assert picture.intrinsics == ((50.0, 0.0, 32.0), (0.0, 50.0, 24.0), (0.0, 0.0, 1.0))
    assert (picture.file_name, picture.width, picture.height) == ("SUNRGBD/a.jpg", 64, 48)
    assert read.categories == ("bed", "chair")  # dontcare is no category to ask about
    corners = tuple((x, y, z) for x, y, z in CORNERS)
    assert picture.things == (
        Cuboid(1, "bed", Box(19, 11, 45, 37), corners, None, None),
        Cuboid(2, "chair", Box(19, 11, 45, 37), corners, 0.5, 0.25),
    )
    assert read.left_out == {}


def test_a_missing_camera_is_no_error(tmp_path):
    for image in ({"K": None}, {}):
        document = omni3d_document(image)
        if not image:
            del document["images"][0]["K"]
        assert omni3d.read(write_json(tmp_path / "o.json", document)).pictures[0].intrinsics is None


def test_the_tight_box_comes_before_the_projected_one(tmp_path):
    assert read_omni3d(tmp_path, bbox2D_tight=[20, 12, 44, 36]).pictures[0].things[0].box == Box(20, 12, 44, 36)
    edge = read_omni3d(tmp_path, bbox2D_tight=[-1, 12, 65.5, 36]).pictures[0].things[0]
    assert edge.box == Box(0, 12, 64, 36)  # published boxes are rounded beyond the edge


MINUS = [[-1, -1, -1]] * 8


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"valid3D": False, "bbox3D_cam": MINUS}, 'no cuboid ("valid3D" is false)'),
        ({"valid3D": False, "bbox3D_cam": [[math.nan] * 3] * 8}, 'no cuboid ("valid3D" is false)'),
        ({"valid3D": False, "bbox3D_cam": [[None] * 3] * 8}, 'no cuboid ("valid3D" is false)'),
        ({"behind_camera": True}, 'a corner behind the camera ("behind_camera")'),
        ({"bbox3D_cam": [*CORNERS[:7], [0, 0, 0]]}, 'a corner behind the camera, though "behind_camera" is false'),
        ({"bbox3D_cam": [*CORNERS[:7], [0, 0, -2]]}, 'a corner behind the camera, though "behind_camera" is false'),
        ({"category_id": 8}, "a category to be ignored, such as dontcare"),
        ({"category_id": -1}, "a category to be ignored, such as dontcare"),
        ({"category_id": -1, "bbox3D_cam": MINUS, "valid3D": False}, "a category to be ignored, such as dontcare"),
        ({"dimensions": [0, 1, 1]}, 'a cuboid without extent ("dimensions")'),
        ({"lidar_pts": 0}, 'no LiDAR point on it ("lidar_pts" is 0)'),
        ({"segmentation_pts": 0}, 'no pixel of it visible ("segmentation_pts" is 0)'),
        ({"depth_error": 0.7}, 'its depth map contradicts it ("depth_error" above 0.5 m, or not a number)'),
        ({"depth_error": math.nan}, 'its depth map contradicts it ("depth_error" above 0.5 m, or not a number)'),
        ({"bbox2D_trunc": [-1, -1, -1, -1]}, "no box in the picture"),
    ],
)
def test_what_omni3d_ignores_is_left_out_and_counted(tmp_path, more, reason):
    read = read_omni3d(tmp_path, **more)
    assert read.left_out == {reason: 1}
    assert things_of(read).keys() == {2}


@pytest.mark.parametrize("more", [{"lidar_pts": 3}, {"segmentation_pts": 1}, {"depth_error": 0.5}, {"lidar_pts": None}])
def test_what_confirms_a_cuboid_keeps_it(tmp_path, more):
    assert things_of(read_omni3d(tmp_path, **more)).keys() == {1, 2}


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"bbox3D_cam": [*CORNERS[:7], [0, math.nan, 5]]}, '"bbox3D_cam" holds a number that is not finite, or null'),
        ({"bbox3D_cam": [*CORNERS[:7], [0, math.inf, 5]]}, '"bbox3D_cam" holds a number that is not finite, or null'),
        ({"bbox3D_cam": [*CORNERS[:7], [0, None, 5]]}, '"bbox3D_cam" holds a number that is not finite, or null'),
        ({"bbox3D_cam": CORNERS[:7]}, r'Expected `array` of length 8, got 7, in the field "bbox3D_cam"'),
        ({"bbox3D_cam": [*CORNERS[:7], [0, "1", 5]]}, r"Expected `float \| null`, got `str`, in the field .bbox3D_cam"),
        ({"bbox2D_tight": [20, 12, 80, 36]}, '"bbox2D_tight" has the edges .*outside the picture of 64 x 48'),
        ({"bbox2D_tight": [20, 12, 10, 36]}, '"bbox2D_tight" has the edges .*must not be negative'),
        ({"bbox2D_trunc": [math.nan, 1, 2, 3]}, '"bbox2D_trunc" is .*expected finite numbers'),
        ({"visibility": math.inf}, '"visibility" is inf'),
        ({"truncation": 5}, '"truncation" is 5.0; expected a part, 0 to 1'),
        ({"category_id": 99}, '"category_id" is 99, which is no category of this file'),
    ],
)
def test_a_broken_cuboid_names_file_image_and_field(tmp_path, more, problem):
    with pytest.raises(DataError, match=rf'o\.json: image "SUNRGBD/a.jpg", annotation 1: {problem}'):
        read_omni3d(tmp_path, **more)


@pytest.mark.parametrize(
    ("matrix", "problem"),
    [
        ([[0.0, 0, 32], [0, 50, 24], [0, 0, 1]], r'image "SUNRGBD/a.jpg": "K" has the focal lengths 0.0 and 50.0'),
        ([[50, 0, 32], [0, -50, 24], [0, 0, 1]], r'image "SUNRGBD/a.jpg": "K" has the focal lengths 50.0 and -50.0'),
        ([[50, 0, 32], [0, math.nan, 24], [0, 0, 1]], r'image "SUNRGBD/a.jpg": "K" holds a number that is not finite'),
        ([[50, 0, 32], [0, 50, 24]], r'image "SUNRGBD/a.jpg": Expected `array` of length 3, got 2, in the field "K"'),
        (50, r'image "SUNRGBD/a.jpg": Expected .*, got `int`, in the field "K"'),
    ],
)
def test_a_broken_camera_names_file_image_and_field(tmp_path, matrix, problem):
    with pytest.raises(DataError, match=rf"o\.json: {problem}"):
        read_omni3d(tmp_path, {"K": matrix})


def test_omni3d_files_give_their_valid_cuboids(assets):
    for name in ("KITTI", "nuScenes", "SUNRGBD"):
        file = assets / "omni3d" / f"Omni3D_{name}_sample.json"
        document, read = json.loads(file.read_text()), omni3d.read(file)
        expected = {
            entry["id"]: entry
            for entry in document["annotations"]
            if entry["valid3D"] and not entry["behind_camera"] and entry["category_name"] != "dontcare"
        }
        things = things_of(read)
        assert things.keys() == expected.keys()
        assert len(things) + sum(read.left_out.values()) == len(document["annotations"])
        for number, cuboid in things.items():
            assert cuboid.category == expected[number]["category_name"]
            assert np.array_equal(cuboid.vertices, expected[number]["bbox3D_cam"])
        cameras = {image["file_path"]: image["K"] for image in document["images"]}
        for picture in read.pictures:
            assert picture.intrinsics is not None
            assert np.array_equal(picture.intrinsics, cameras[picture.file_name])
            for cuboid in picture.things:
                if expected[cuboid.id]["truncation"] > 0:
                    continue
                # A whole cuboid's corners, projected, span the box that Omni3D rendered of it; a pixel is its slack.
                across, down, depth = np.array(picture.intrinsics) @ np.array(cuboid.vertices).T
                corners = np.array([across, down]) / depth
                spanned = [*corners.min(axis=1), *corners.max(axis=1)]
                assert spanned == pytest.approx(expected[cuboid.id]["bbox2D_proj"], abs=1.5)


# --- our scenes


def test_our_scenes_lose_nothing(tmp_path):
    write_scenes(tmp_path, count=12, seed=3)
    flat, solid = coco.read(tmp_path / "instances.json"), omni3d.read(tmp_path / "cuboids.json")
    documents = [json.loads((tmp_path / name).read_text()) for name in ("instances.json", "cuboids.json")]
    assert things_of(flat).keys() == {entry["id"] for entry in documents[0]["annotations"]}
    assert flat.left_out == {}
    assert things_of(solid).keys() == {entry["id"] for entry in documents[1]["annotations"]}
    assert solid.left_out == {}


# --- ADE20K, full format

SIZE = (48, 36)  # width, height
CLASSES = {"building, edifice": 312, "car, auto, automobile": 401, "person, individual": 1831, "wheel": 2999}
HYPERNYMS = {"van": ["van", "car, auto, automobile", "vehicle"]}


def ade20k_object(number, name, box, level=0, **more):
    left, top, right, bottom = box
    return {
        **{"id": number, "name": name, "name_ndx": CLASSES.get(name, 77), "raw_name": name.split(",")[0]},
        **{"hypernym": HYPERNYMS.get(name, [name, "entity"]), "attributes": [], "depth_ordering_rank": number + 1},
        **{"occluded": [], "crop": "0", "parts": {"hasparts": [], "ispartof": [], "part_level": level}},
        "instance_mask": f"scene/instance_{number:03d}_scene.png",
        "polygon": {"x": [left, right, right, left], "y": [top, top, bottom, bottom]},
        **more,
    }


STREET = (  # a later thing hides an earlier one
    ade20k_object(0, "building, edifice", (0, 0, 40, 20)),
    ade20k_object(1, "car, auto, automobile", (10, 15, 30, 25), occluded="yes"),
    ade20k_object(2, "person, individual", (25, 10, 29, 30), occluded="no"),
    ade20k_object(3, "wheel", (12, 20, 15, 25), level=1),
)


def write_scene(folder, objects=STREET, evidence=("masks", "seg"), **more):
    """A scene of rectangles, with masks of its things, a picture of all regions, or only polygons."""
    folder.mkdir(exist_ok=True)
    scene = {"filename": "scene.jpg", "imsize": [SIZE[1], SIZE[0], 3], "object": list(objects), "scene": ["street"]}
    file = write_json(folder / "scene.json", {"annotation": scene | more})
    whole = [entry for entry in objects if entry["parts"]["part_level"] == 0]
    owner = Image.new("L", SIZE, 255)
    for rank, entry in enumerate(whole):
        ImageDraw.Draw(owner).rectangle(inside(entry), fill=rank)
    owners = np.asarray(owner)
    region = np.zeros((*owners.shape, 3), np.uint8)
    for rank, entry in enumerate(whole):
        number = round(255 * (rank * 2 % len(whole) + 1) / len(whole)) if len(whole) % 2 else 255 - rank
        region[owners == rank] = (entry["name_ndx"] // 256 * 10, entry["name_ndx"] % 256, number)
        if "masks" in evidence:
            mask = np.zeros(owners.shape, np.uint8)
            left, top, right, bottom = inside(entry)
            mask[top : bottom + 1, left : right + 1] = 128
            mask[owners == rank] = 255
            (folder / "scene").mkdir(exist_ok=True)
            Image.fromarray(mask).save(folder / entry["instance_mask"])
    if "seg" in evidence:
        Image.fromarray(region).save(folder / "scene_seg.png")
    return file


def inside(entry):
    """The pixels of a rectangle, both ends included."""
    left, right = min(entry["polygon"]["x"]), max(entry["polygon"]["x"])
    top, bottom = min(entry["polygon"]["y"]), max(entry["polygon"]["y"])
    return left, top, right - 1, bottom - 1


@pytest.mark.parametrize("evidence", [("masks",), ("seg",), ("masks", "seg")])
def test_what_is_seen_comes_from_masks_or_regions(tmp_path, evidence):
    read = ade20k.read(write_scene(tmp_path, evidence=evidence))
    (picture,) = read.pictures
    assert (picture.file_name, picture.width, picture.height) == ("scene.jpg", 48, 36)
    assert read.categories == ("building", "car", "person")
    building, car, person = picture.things
    assert building.box == Box(0, 0, 40, 20)
    assert building.area == 40 * 20 - 20 * 5 - 4 * 5  # less the car, less the person above the car
    assert building.visibility == pytest.approx(building.area / 800)
    assert car.box == Box(10, 15, 30, 25)
    assert car.area == 20 * 10 - 4 * 10
    assert car.visibility == pytest.approx(160 / 200)
    assert (person.box, person.area, person.visibility) == (Box(25, 10, 29, 30), 80, 1)
    assert read.left_out == {"a part of another thing": 1}
    assert picture.complete == frozenset()


def test_what_is_named_is_complete_only_for_those_who_ask_for_it(tmp_path):
    (picture,) = ade20k.read(write_scene(tmp_path), exhaustive=True).pictures
    assert picture.complete == {"building", "car", "person"}


def test_a_polygon_alone_says_nothing_of_what_is_hidden(tmp_path):
    building, car, _ = ade20k.read(write_scene(tmp_path, evidence=())).pictures[0].things
    assert (building.box, building.area, building.visibility) == (Box(0, 0, 40, 20), 800, None)
    assert (car.box, car.area, car.visibility) == (Box(10, 15, 30, 25), 200, None)


def test_a_polygon_alone_must_lie_in_the_picture(tmp_path):
    outside = ade20k_object(4, "car, auto, automobile", (40, 30, 60, 36))
    with pytest.raises(DataError, match=r'image "scene.jpg": object 4: "polygon" has the edges .*outside the picture'):
        ade20k.read(write_scene(tmp_path, [*STREET, outside], evidence=()))
    assert things_of(ade20k.read(write_scene(tmp_path, [*STREET, outside]))).keys() == {0, 1, 2, 4}


def test_a_polygon_without_extent_measures_nothing(tmp_path):
    file = write_scene(tmp_path, [STREET[0], ade20k_object(4, "bed", (40, 30, 46, 31))], evidence=("seg",))
    document = json.loads(file.read_text())
    polygon = document["annotation"]["object"][1]["polygon"]
    polygon |= {"x": [40, 46, 43], "y": [30, 30, 30]}
    bed = things_of(ade20k.read(write_json(file, document)))[4]
    assert (bed.box, bed.area, bed.visibility) == (Box(40, 30, 46, 31), 6, None)
    polygon |= {"x": [40, 46], "y": [30, 30]}
    assert ade20k.read(write_json(file, document)).left_out == {"a thing of which nothing is seen": 1}


def test_one_missing_mask_is_made_up_for_by_the_regions(tmp_path):
    file = write_scene(tmp_path)
    expected = ade20k.read(file).pictures
    (tmp_path / "scene" / "instance_001_scene.png").unlink()
    assert ade20k.read(file).pictures == expected


def test_things_of_one_class_find_their_own_regions(tmp_path):
    cars = [ade20k_object(n, "car, auto, automobile", (n, 3 * n, 20 + n, 3 * n + 12)) for n in range(7)]
    by_mask = ade20k.read(write_scene(tmp_path / "a", cars, evidence=("masks",)))
    by_region = ade20k.read(write_scene(tmp_path / "b", cars, evidence=("seg",)))
    assert by_mask.pictures == by_region.pictures
    assert len(by_mask.pictures[0].things) == 7


def test_a_thing_marked_as_occluded_is_never_measured_as_seen_whole(tmp_path):
    alone = ade20k_object(0, "car, auto, automobile", (10, 15, 30, 25), occluded="yes")
    assert ade20k.read(write_scene(tmp_path, [alone])).pictures[0].things[0].visibility is None


def test_a_thing_that_is_not_seen_is_left_out_and_makes_its_category_incomplete(tmp_path):
    hidden = ade20k_object(4, "car, auto, automobile", (26, 12, 28, 14))
    objects = [STREET[0], STREET[1], hidden, STREET[2]]
    for evidence in (("masks",), ("seg",)):
        read = ade20k.read(write_scene(tmp_path, objects, evidence), exhaustive=True)
        assert read.left_out == {"a thing of which nothing is seen": 1}
        assert read.pictures[0].complete == {"building", "person"}
        for mask in tmp_path.glob("scene/*.png"):
            mask.unlink()


@pytest.mark.parametrize(
    ("extra", "complete"),
    [
        (ade20k_object(4, "car, auto, automobile", (40, 2, 46, 6), raw_name="cars"), {"building", "person"}),
        (ade20k_object(4, "person, individual", (40, 2, 46, 6), raw_name="people walking"), {"building", "car"}),
        (ade20k_object(4, "van", (40, 2, 46, 6)), {"building", "person", "van"}),  # which WordNet calls a car here
        (ade20k_object(4, "car, auto, automobile", (40, 2, 46, 6), level=1), {"building", "person"}),
        (ade20k_object(4, "-", (40, 2, 46, 6)), {"building", "car", "person"}),
    ],
)
def test_categories_with_groups_parts_or_kinds_of_them_are_not_complete(tmp_path, extra, complete):
    read = ade20k.read(write_scene(tmp_path, [*STREET, extra]), exhaustive=True)
    assert read.pictures[0].complete == complete
    groups = [thing.id for thing in read.pictures[0].things if thing.is_crowd]
    assert groups == ([4] if extra["raw_name"] in ("cars", "people walking") else [])
    assert len(read.pictures[0].things) + sum(read.left_out.values()) == 5


def test_a_folder_of_scenes_is_read_with_its_folders(tmp_path):
    write_scene(tmp_path / "b")
    write_scene(tmp_path / "a", [ade20k_object(0, "bed", (3, 3, 9, 9))])
    told = []
    read = ade20k.read(tmp_path, progress=lambda done, count: told.append((done, count)))
    assert [picture.file_name for picture in read.pictures] == ["a/scene.jpg", "b/scene.jpg"]
    assert read.categories == ("bed", "building", "car", "person")
    assert read.left_out == {"a part of another thing": 1}
    assert told == [(1, 2), (2, 2)]


def test_lists_of_one_and_texts_of_none_are_read_as_matlab_writes_them(tmp_path):
    entry = ade20k_object(0, "bed", (3, 3, 9, 9), raw_name=[], hypernym="bed", occluded=[], instance_mask=[])
    file = write_scene(tmp_path, [entry], evidence=())
    document = json.loads(file.read_text())
    document["annotation"] |= {"object": entry, "imsize": [36, 48]}
    assert things_of(ade20k.read(write_json(file, document)))[0].category == "bed"
    document["annotation"]["object"] = []
    assert things_of(ade20k.read(write_json(file, document))) == {}


def test_latin_1_is_read(tmp_path):
    file = write_scene(tmp_path, [ade20k_object(0, "caf\xe9", (3, 3, 9, 9))], evidence=())
    file.write_bytes(json.dumps(json.loads(file.read_text()), ensure_ascii=False).encode("latin-1"))
    assert ade20k.read(file).categories == ("caf\xe9",)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": ""}, r'object 0: "name" is ""'),
        ({"name": None}, r'object 0, field "name": Expected `str`, got `null`'),
        ({"id": 1}, r'object 1: "id" 1 occurs twice'),
        ({"polygon": {"x": [1, 2, 3], "y": [1, 2]}}, r'object 0: "polygon" has 3 values of x and 2 of y'),
        (
            {"polygon": {"x": [1, 2, math.nan], "y": [1, 2, 3]}},
            r'object 0: "polygon" holds a number that is not',
        ),
        ({"polygon": {"x": "a", "y": [1]}}, r'object 0, field "polygon.x": Expected'),
        ({"parts": {}}, r'object 0, field "parts": .*missing required field `part_level`'),
        ({"instance_mask": "../scene_seg.png"}, r".*leaves its folder"),
    ],
)
def test_a_broken_scene_names_file_image_and_field(tmp_path, change, problem):
    file = write_scene(tmp_path)
    document = json.loads(file.read_text())
    document["annotation"]["object"][0] |= change
    with pytest.raises(DataError, match=rf'scene\.json: image "scene.jpg"[:,] {problem}'):
        ade20k.read(write_json(file, document))


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"imsize": [36]}, r'"imsize" is \[36\]'),
        ({"imsize": [0, 48, 3]}, r'"imsize" is \[0, 48, 3\]'),
        ({"filename": "b/scene.jpg"}, r'"filename" is "b/scene.jpg"'),
        ({"imsize": [36, 49, 3]}, r".*instance_000_scene.png: is 48 x 36 pixels; expected 49 x 36"),
    ],
)
def test_a_broken_scene_names_its_field(tmp_path, more, problem):
    with pytest.raises(DataError, match=rf"scene\.json: image .*: {problem}"):
        ade20k.read(write_scene(tmp_path, **more))


def test_broken_masks_and_regions_are_named(tmp_path):
    file, mask = write_scene(tmp_path), tmp_path / "scene" / "instance_001_scene.png"
    Image.new("L", SIZE, 7).save(mask)
    with pytest.raises(DataError, match=r"instance_001_scene.png: holds the value 7; expected 0, 128 .* and 255"):
        ade20k.read(file)
    Image.new("RGB", SIZE).save(mask)
    with pytest.raises(DataError, match=r"instance_001_scene.png: is a picture of mode RGB; expected L"):
        ade20k.read(file)
    mask.write_bytes(b"mask")
    with pytest.raises(DataError, match=r"scene.json: image .*instance_001_scene.png: is not a picture"):
        ade20k.read(file)
    mask.unlink()
    Image.new("L", SIZE).save(tmp_path / "scene_seg.png")
    with pytest.raises(DataError, match=r"scene_seg.png: is a picture of mode L; expected RGB"):
        ade20k.read(file)


def test_a_folder_without_scenes_is_told(tmp_path):
    with pytest.raises(DataError, match="holds no JSON file; expected a folder of scenes"):
        ade20k.read(tmp_path)
    write_json(tmp_path / "a.json", coco_document())
    with pytest.raises(DataError, match=r"a.json: this is a COCO-format instances file; expected an ADE20K scene"):
        ade20k.read(tmp_path)
    with pytest.raises(DataError, match=r"cannot read .*b.json"):
        ade20k.read(tmp_path / "b.json")


def test_real_scenes_give_their_whole_things(assets):
    read = ade20k.read(assets / "ade20k")
    assert [picture.file_name for picture in read.pictures] == ["ADE_train_00016869.jpg", "ADE_train_00016964.jpg"]
    assert read.left_out == {"a part of another thing": 27}
    for picture, count in zip(read.pictures, (51, 24), strict=True):
        assert len(picture.things) == count
        document = json.loads((assets / "ade20k" / picture.file_name).with_suffix(".json").read_text())
        polygons = {entry["id"]: entry["polygon"] for entry in document["annotation"]["object"]}
        seg = np.asarray(Image.open(assets / "ade20k" / picture.file_name.replace(".jpg", "_seg.png")))
        # Every outlined pixel belongs to one thing.
        assert sum(thing.area for thing in picture.things) == np.count_nonzero(seg[:, :, 2])
        for thing in picture.things:
            across, down = polygons[thing.id]["x"], polygons[thing.id]["y"]
            assert thing.box.left >= min(across) - 1
            assert thing.box.top >= min(down) - 1
            assert thing.box.right <= max(across) + 1
            assert thing.box.bottom <= max(down) + 1
    street = {thing.id: thing for thing in read.pictures[0].things}
    assert {number for number, thing in street.items() if thing.is_crowd} == {44, 45, 46}  # "cars", "motorbikes"
    assert street[9].visibility == pytest.approx(0.627, abs=0.005)  # the building behind the trees
    assert {picture.complete for picture in read.pictures} == {frozenset()}


# --- ADE20K, 150 categories

TABLE = """Idx,Ratio,Train,Val,Stuff,Name
1,0.16,1,1,1,wall
2,0.11,1,1,1,building;edifice
20,0.02,1,1,0,chair
65,0.01,1,1,0,coffee;table;cocktail;table
"""


def write_masks(folder, *painted, size=(30, 20), name="ADE_val_00000001.png", table=TABLE):
    """A mask with rectangles (number, left, top, right, bottom), both ends included, and the table."""
    (folder / "masks").mkdir(exist_ok=True)
    mask = Image.new("L", size)
    for number, *box in painted:
        ImageDraw.Draw(mask).rectangle(box, fill=number)
    mask.save(folder / "masks" / name)
    (folder / "table.csv").write_text(table)
    return folder / "masks", folder / "table.csv"


def test_regions_in_one_piece_are_things_and_nothing_can_be_counted(tmp_path):
    masks = write_masks(tmp_path, (1, 0, 0, 29, 9), (65, 2, 5, 11, 14), (20, 15, 12, 18, 15), (20, 19, 16, 22, 19))
    read = ade20k_masks.read(*masks)
    (picture,) = read.pictures
    assert (picture.file_name, picture.width, picture.height) == ("ADE_val_00000001.jpg", 30, 20)
    assert read.categories == ("chair", "coffee table")
    # The two rectangles of the chair touch at a corner: one piece.
    assert [(t.category, t.box, t.area) for t in picture.things] == [
        ("chair", Box(15, 12, 23, 20), 32),
        ("coffee table", Box(2, 5, 12, 15), 100),
    ]
    assert picture.complete == frozenset()
    assert read.left_out == {"a region of stuff (Stuff is 1 in the table)": 1}


def test_a_category_in_pieces_is_left_out(tmp_path):
    read = ade20k_masks.read(*write_masks(tmp_path, (20, 1, 1, 5, 5), (20, 9, 1, 12, 5), (65, 20, 10, 25, 15)))
    assert [thing.category for thing in read.pictures[0].things] == ["coffee table"]
    assert read.left_out == {"a category in several pieces": 1}


def test_masks_in_folders_are_read_by_name(tmp_path):
    (tmp_path / "masks" / "validation").mkdir(parents=True)
    write_masks(tmp_path, (20, 1, 1, 5, 5), name="validation/b.png")
    told = []
    masks, table = write_masks(tmp_path, name="a.png")
    read = ade20k_masks.read(masks, table, progress=lambda *done: told.append(done))
    assert [picture.file_name for picture in read.pictures] == ["a.jpg", "validation/b.jpg"]
    assert told == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (
            "Idx,Ratio,Name\n1,0.1,wall\n",
            r'table.csv: this is a text without the column "Stuff"; expected a table with the columns',
        ),
        (TABLE + "x,0,0,0,0,bed\n", r'table.csv:6: "Idx" is "x"; expected a number from 1 to 255'),
        (TABLE + "20,0,0,0,0,bed\n", r'table.csv:6: "Idx" 20 occurs twice'),
        (TABLE + "21,0,0,0,yes,bed\n", r'table.csv:6: "Stuff" is "yes"; expected 0 or 1'),
        (TABLE + "21,0,0,0,0,\n", r'table.csv:6: "Name" is ""; expected synonyms'),
        (TABLE + "21\n", r'table.csv:6: "Stuff" is ""'),
        ("", r"table.csv: this is an empty file; expected a table with the columns"),
    ],
)
def test_a_broken_table_names_file_line_and_field(tmp_path, table, problem):
    with pytest.raises(DataError, match=problem):
        ade20k_masks.read(*write_masks(tmp_path, table=table))


def test_broken_segmentation_masks_are_named(tmp_path):
    with pytest.raises(DataError, match=r"00000001.png: holds the number 21, which no row of the table has"):
        ade20k_masks.read(*write_masks(tmp_path, (21, 1, 1, 5, 5)))
    masks, table = write_masks(tmp_path)
    Image.new("RGB", (9, 9)).save(masks / "ADE_val_00000001_seg.png")
    with pytest.raises(DataError, match=r"_seg.png: is a picture of mode RGB; .* This may be the full format's"):
        ade20k_masks.read(masks, table)
    with pytest.raises(DataError, match="masks: this is a folder; expected a table"):
        ade20k_masks.read(masks, masks)
    with pytest.raises(DataError, match=r"table.csv: is no folder; expected a folder of segmentation masks"):
        ade20k_masks.read(table, table)
    for file in masks.iterdir():
        file.unlink()
    with pytest.raises(DataError, match="masks: holds no PNG file"):
        ade20k_masks.read(masks, table)


def test_the_published_table_is_read_with_its_names_of_several_words(assets):
    file = assets / "ade20k" / "object150_info.csv"
    labels = ade20k_masks.read_table(file)
    with file.open() as lines:
        rows = {int(row["Idx"]): row for row in csv.DictReader(lines)}
    assert labels.keys() == rows.keys() == set(range(1, 151))
    assert Counter(label.is_stuff for label in labels.values()) == {True: 35, False: 115}
    names = {number: label.category for number, label in labels.items()}
    assert {names[n] for n in (45, 65, 57, 74, 137, 142)} == {
        *("chest of drawers", "coffee table", "pool table", "kitchen island", "traffic light", "crt screen"),
    }
    assert {number for number, name in names.items() if not rows[number]["Name"].startswith(name.split()[0])} == set()


def test_the_guide_s_example_prints_what_it_says(tmp_path):
    guide = Path(__file__).parents[2] / "docs" / "cvbench" / "sources.md"
    blocks = re.findall(r"```(?:python)?\n(.*?)```", guide.read_text(encoding="utf-8"), flags=re.DOTALL)
    code, expected = blocks[:2]
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout == expected


@pytest.mark.parametrize("module", [ade20k_names])
def test_the_examples_in_docstrings_hold(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
