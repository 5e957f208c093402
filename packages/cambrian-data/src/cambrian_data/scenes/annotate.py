"""Scene and instance map -> COCO-format instances and Omni3D-format cuboids, the two forms CV-Bench is made from.

Source: COCO data format (cocodataset.org/#format-data); Omni3D DATA.md (facebookresearch/omni3d).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cambrian_data.boxes import Box
from cambrian_data.scenes.objects import KINDS
from cambrian_data.scenes.render import Rendering
from cambrian_data.scenes.scene import MAX_OBJECTS, Scene

DATASET_ID = 100  # Omni3D numbers its own data sets from 0 to 5
CATEGORY_IDS = {kind: number for number, kind in enumerate(KINDS, start=1)}

Json = dict[str, Any]


def categories() -> list[Json]:
    """The kinds as COCO and Omni3D categories, numbered from 1."""
    return [{"id": number, "name": kind, "supercategory": "solid"} for kind, number in CATEGORY_IDS.items()]


def file_name(index: int) -> str:
    """The picture's name in the folder of images."""
    return f"{index:06d}.png"


def visible_box(mask: NDArray[np.bool_]) -> Box | None:
    """The tight box of a mask (side, side), None if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def run_lengths(mask: NDArray[np.bool_]) -> Json:
    """COCO's uncompressed run lengths of a mask (height, width): column by column, background first."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [len(flat)]])
    counts = np.diff(edges).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def coco_image(scene: Scene, side: int) -> Json:
    """The picture's entry in instances.json."""
    return {"id": scene.index + 1, "file_name": file_name(scene.index), "width": side, "height": side}


def coco_annotations(scene: Scene, rendering: Rendering) -> list[Json]:
    """One COCO annotation for each object of which a pixel is visible, with two keys more: color and visibility."""
    annotations = []
    for number, thing in enumerate(scene.objects):
        mask = rendering.instances == number + 1
        box = visible_box(mask)
        if box is None:
            continue
        annotations.append(
            {
                "id": annotation_id(scene, number),
                "image_id": scene.index + 1,
                "category_id": CATEGORY_IDS[thing.kind],
                "bbox": [box.left, box.top, box.right - box.left, box.bottom - box.top],
                "area": int(mask.sum()),
                "iscrowd": 0,
                "segmentation": run_lengths(mask),
                "color": thing.colour,
                "visibility": float(rendering.visibility[number]),
            }
        )
    return annotations


def annotation_id(scene: Scene, number: int) -> int:
    """One number for an object in both files, the same however many scenes are made."""
    return scene.index * MAX_OBJECTS + number + 1


def omni3d_image(scene: Scene, side: int) -> Json:
    """The picture's entry in cuboids.json."""
    return {
        "id": scene.index + 1,
        "dataset_id": DATASET_ID,
        "width": side,
        "height": side,
        "file_path": file_name(scene.index),
        "K": scene.camera.intrinsics(side),
        "src_90_rotate": 0,
        "src_flagged": False,
    }


def omni3d_annotations(scene: Scene, rendering: Rendering) -> list[Json]:
    """One Omni3D annotation for each object: metres in the camera frame (x right, y down, z forward), pixels in 2D.

    `visibility` is the part of its silhouette that other objects leave free; -1 stands for what is not measured.
    """
    side = len(rendering.instances)
    annotations = []
    for number, thing in enumerate(scene.objects):
        pose = thing.pose(scene.camera)
        vertices = pose.vertices()
        projected = scene.camera.project(vertices, side)
        whole = Box(*projected.min(axis=1).tolist(), *projected.max(axis=1).tolist())
        inside = Box(*(min(max(edge, 0.0), float(side)) for edge in whole))
        tight = visible_box(rendering.instances == number + 1)
        annotations.append(
            {
                "id": annotation_id(scene, number),
                "image_id": scene.index + 1,
                "dataset_id": DATASET_ID,
                "category_id": CATEGORY_IDS[thing.kind],
                "category_name": thing.kind,
                "valid3D": True,
                "behind_camera": False,
                "visibility": float(rendering.visibility[number]),
                "truncation": 1 - inside.area / whole.area,
                "segmentation_pts": -1,
                "lidar_pts": -1,
                "depth_error": -1,
                "bbox2D_tight": list(tight) if tight else [-1, -1, -1, -1],
                "bbox2D_proj": list(whole),
                "bbox2D_trunc": list(inside),
                "bbox3D_cam": vertices.T.tolist(),
                "center_cam": pose.centre.tolist(),
                "dimensions": list(thing.dimensions),
                "R_cam": pose.rotation.tolist(),
                "color": thing.colour,
            }
        )
    return annotations
