"""Readers of annotation files, one module a format: file -> `Annotations`."""

from cambrian_data.cvbench.sources import coco, omni3d

__all__ = ["coco", "omni3d"]
