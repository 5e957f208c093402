"""Readers of annotation files, one module a format: file -> `Annotations`.

Reading order: kinds and dataset_file, then coco with outlines, omni3d, ade20k with ade20k_names and ade20k_shapes, and
ade20k_masks, which alone needs scipy and is therefore not imported here.
"""

from cambrian_data.cvbench.sources import ade20k, coco, omni3d

__all__ = ["ade20k", "coco", "omni3d"]
