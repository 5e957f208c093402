"""Rendered scenes: solids on a ground, seen by a known camera, with exact instances, cuboids and captions.

Reading order: camera, objects, trace, scene, render, annotate, captions, generate.
"""

from cambrian_data.scenes.generate import FORMAT_VERSION, ScenesSummary, write_scenes
from cambrian_data.scenes.render import Rendering, render
from cambrian_data.scenes.scene import Scene, make_scene

__all__ = ["FORMAT_VERSION", "Rendering", "Scene", "ScenesSummary", "make_scene", "render", "write_scenes"]
