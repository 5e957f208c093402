"""Small annotation files of each form, drawn at random, with everything in them that must not be asked about."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.support.cvbench_oracle.raw import Source

WIDTH, HEIGHT = 160, 120
FLAT = ("person", "chair", "couch", "dog", "cup", "scissors", "car", "truck", "sheep", "broccoli", "cell phone", "bus")
SOLID = ("pedestrian", "car", "truck", "bicycle", "barrier", "night stand", "dontcare")
CLASSES = ("bed", "lamp", "chair", "sky", "car")
FOCAL = 140.0
CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])


def write_picture(file: Path, rng: np.random.Generator) -> None:
    """A picture without any plain red, blue or green."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(60, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(file)


def coco_data(seed: int, num_pictures: int, num_things: int = 7) -> dict[str, Any]:
    """COCO instances, with crowds, with tiny ones, and with some that reach the edge."""
    rng = np.random.default_rng(seed)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, num_pictures + 1):
        images.append({"id": number, "file_name": f"{number:012}.png", "width": WIDTH, "height": HEIGHT})
        kinds = rng.choice(len(FLAT), 4, replace=False)
        for _ in range(rng.integers(1, num_things + 1)):
            width, height = (float(round(side, 2)) for side in rng.uniform(3, 40, 2))
            left = float(round(rng.uniform(0, WIDTH - width), 2))
            top = float(round(rng.uniform(0, HEIGHT - height), 2))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(rng.choice(kinds)) + 1,
                    "bbox": [left, top, width, height],
                    "area": width * height * float(rng.uniform(0.5, 1)),
                    "iscrowd": int(rng.uniform() < 0.03),
                    "segmentation": [],
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(FLAT, start=1)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def omni3d_data(seed: int, num_pictures: int, num_things: int = 6) -> dict[str, Any]:
    """Omni3D cuboids, with invalid ones, with some behind the camera, hidden, cut or far away."""
    rng = np.random.default_rng(seed)
    matrix = [[FOCAL, 0.0, WIDTH / 2], [0.0, FOCAL, HEIGHT / 2], [0.0, 0.0, 1.0]]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, num_pictures + 1):
        name = f"KITTI/{number:06}.png"
        images.append(
            {"id": number, "dataset_id": 0, "file_path": name, "width": WIDTH, "height": HEIGHT, "K": matrix}
            | {"src_90_rotate": 0, "src_flagged": False}
        )
        for _ in range(rng.integers(2, num_things + 1)):
            annotation = cuboid(rng, len(annotations) + 1, number)
            annotations += [annotation] if annotation is not None else []
    categories = [{"id": number, "name": name, "supercategory": ""} for number, name in enumerate(SOLID)]
    info = {"id": 0, "source": 0, "name": "KITTI", "split": "sample", "version": "0.1", "url": ""}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}


def cuboid(rng: np.random.Generator, number: int, image: int) -> dict[str, Any] | None:
    """One cuboid; None if it is not in the picture."""
    sizes, depth = rng.uniform(0.5, 1.6, 3), rng.uniform(2.5, 10)
    centre = np.array([rng.uniform(-0.6, 0.6) * depth, rng.uniform(-0.4, 0.4) * depth, depth])
    turn = rng.uniform(0, np.pi)
    rotation = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    vertices = CORNERS * sizes @ rotation.T + centre
    points = vertices[:, :2] / vertices[:, 2:] * FOCAL + np.array([WIDTH / 2, HEIGHT / 2])
    whole = [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]
    inside = [*np.clip(points.min(axis=0), 0, (WIDTH, HEIGHT)), *np.clip(points.max(axis=0), 0, (WIDTH, HEIGHT))]
    inside = [float(edge) for edge in inside]
    if min(inside[2] - inside[0], inside[3] - inside[1]) < 1:
        return None
    category = int(rng.integers(len(SOLID)))
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "category_name": SOLID[category],
        "valid3D": bool(rng.uniform() > 0.1),
        "behind_camera": bool(rng.uniform() < 0.05),
        "visibility": float(rng.choice([-1.0, 0.2, 0.6, 0.9, 1.0])),
        "truncation": float(rng.choice([-1.0, 0.0, 0.0, 0.1, 0.6])),
        "segmentation_pts": -1,
        "lidar_pts": -1,
        "depth_error": -1,
        "bbox2D_tight": [-1, -1, -1, -1] if rng.uniform() < 0.5 else inside,
        "bbox2D_proj": whole,
        "bbox2D_trunc": inside,
        "bbox3D_cam": vertices.tolist(),
        "center_cam": centre.tolist(),
        "dimensions": sizes.tolist(),
        "R_cam": rotation.tolist(),
    }


def write_data(folder: Path, form: str, data: dict[str, Any], with_pictures: bool = True) -> Source:
    """Writes annotations with pictures of noise beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "annotations.json"
    file.write_text(json.dumps(data))
    if with_pictures:
        rng = np.random.default_rng(0)
        for image in data["images"]:
            write_picture(folder / "images" / image["file_name" if form == "coco" else "file_path"], rng)
    return Source(form, file, folder / "images")


def write_masks(folder: Path, seed: int, num_pictures: int) -> Source:
    """Masks of a few classes, among them one of stuff and some in several pieces."""
    rng = np.random.default_rng(seed)
    for number in range(num_pictures):
        mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        for _ in range(6):
            left, top = rng.integers(0, WIDTH - 50), rng.integers(0, HEIGHT - 50)
            width, height = rng.integers(18, 50, 2)
            mask[top : top + height, left : left + width] = rng.integers(1, len(CLASSES) + 1)
        file = folder / "masks" / f"ADE_val_{number:08}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(file)
        write_picture(folder / "images" / f"ADE_val_{number:08}.jpg", rng)
    rows = [f"{number},0.1,10,1,{int(name == 'sky')},{name}" for number, name in enumerate(CLASSES, start=1)]
    table = folder / "object150_info.csv"
    table.write_text("\n".join(["Idx,Ratio,Train,Val,Stuff,Name", *rows]) + "\n")
    return Source("ade20k-masks", folder / "masks", folder / "images", table)
