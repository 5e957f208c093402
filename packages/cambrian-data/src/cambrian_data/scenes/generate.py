"""Writes a set of scenes to a folder: pictures, instances, cuboids, captions, and last of all the manifest.

A folder with a manifest is finished and is never touched again; one with the marker of an unfinished set is made anew,
which gives the same bytes. One process at a time may write to a folder; its own workers are another matter.
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image

from cambrian_data.errors import DataError
from cambrian_data.formats import chat
from cambrian_data.scenes import annotate
from cambrian_data.scenes.captions import caption_record
from cambrian_data.scenes.render import render
from cambrian_data.scenes.scene import make_scene

FORMAT_VERSION = 2  # raised whenever the same arguments give other bytes
MANIFEST, MARKER = "scenes.json", "scenes.unfinished"
MIN_SIDE, MAX_SIDE = 16, 1024
CHUNK = 16  # scenes a worker renders at a time


class ScenesSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder of scenes holds; the content of its manifest.

    Attributes:
        seed: of the set.
        count: of pictures.
        side: of a picture, pixels.
        format_version: of the renderer and the annotations.
        num_objects: over all pictures.
        content_hash: SHA-256 over the bytes of the pictures, in order, and of the three annotation files.
    """

    seed: int
    count: int
    side: int
    format_version: int
    num_objects: int
    content_hash: str


@dataclass(frozen=True, slots=True)
class SceneFiles:
    """One scene as it is written: the encoded picture and JSON for each annotation file."""

    index: int
    png: bytes
    coco_image: bytes
    coco_annotations: list[bytes]
    omni3d_image: bytes
    omni3d_annotations: list[bytes]
    caption: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments that determine every byte of a set; the content of the marker."""

    seed: int
    count: int
    side: int
    format_version: int = FORMAT_VERSION

    def __str__(self) -> str:
        return f"seed {self.seed}, count {self.count}, side {self.side}, format version {self.format_version}"


def write_scenes(
    output: Path,
    *,
    count: int,
    seed: int,
    side: int = 64,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> ScenesSummary:
    """Renders scenes 0 to count - 1 of a set into a folder; on a finished folder it only reads the manifest.

    Args:
        output: made if missing; must be empty, or hold the same set, finished or not.
        count: of pictures.
        seed: of the set; two seeds give unrelated sets.
        side: of the square pictures, 16 to 1024 pixels.
        processes: that render; the bytes do not depend on it.
        progress: called with (pictures written, count).

    Raises:
        DataError: if an argument is out of range, the folder holds something else, or it cannot be written.
    """
    check_arguments(count, seed, side, processes)
    request = Request(seed, count, side)
    output = Path(output)
    with writing(output):
        finished = claim(output, request)
        if finished is not None:
            return finished
        summary = write_files(output, request, processes, progress)
        write_atomically(output / MANIFEST, msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")
        (output / MARKER).unlink()
    return summary


def check_arguments(count: int, seed: int, side: int, processes: int) -> None:
    """Raises DataError for an argument that is out of range."""
    if count < 1:
        raise DataError(f"count is {count}; expected at least 1 scene.")
    if not MIN_SIDE <= side <= MAX_SIDE:
        raise DataError(f"side is {side}; expected {MIN_SIDE} to {MAX_SIDE} pixels.")
    if seed < 0:
        raise DataError(f"seed is {seed}; expected 0 or more.")
    if processes < 1:
        raise DataError(f"processes is {processes}; expected at least 1.")


@contextmanager
def writing(output: Path) -> Iterator[None]:
    """Turns a full disk, a read-only folder and the like into a DataError that names the file."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write {error.filename or output}: {error.strerror or error}. "
            "Make room or choose another folder, and run the same command again: an unfinished set is made anew."
        ) from error


def claim(output: Path, request: Request) -> ScenesSummary | None:
    """Marks the folder as this set's, or gives the summary if it is finished; refuses a folder of something else."""
    manifest, marker = output / MANIFEST, output / MARKER
    if output.exists() and not output.is_dir():
        raise DataError(f"{output} is a file; expected a folder to write scenes to.")
    if manifest.exists():
        return finished_summary(output, request)
    if marker.exists():
        unfinished = marker.read_text(encoding="utf-8", errors="replace").strip()
        if unfinished != str(request):
            raise DataError(f"{output} holds unfinished scenes of {unfinished}, not {request}; choose another folder.")
    elif output.exists() and any(output.iterdir()):
        raise DataError(f"{output} is not empty and holds no scenes; choose an empty or a new folder.")
    (output / "images").mkdir(parents=True, exist_ok=True)
    write_atomically(marker, f"{request}\n".encode())
    return None


def finished_summary(output: Path, request: Request) -> ScenesSummary:
    """The manifest's content, if it is this request's and its files are there."""
    try:
        summary = msgspec.json.decode((output / MANIFEST).read_bytes(), type=ScenesSummary)
    except msgspec.DecodeError as error:
        raise DataError(f"{output / MANIFEST} is not a manifest of scenes ({error}); choose another folder.") from error
    held = Request(summary.seed, summary.count, summary.side, summary.format_version)
    if held != request:
        raise DataError(f"{output} holds scenes of {held}, not {request}; choose another folder.")
    files = [output / name for name in ("instances.json", "cuboids.json", "captions.jsonl")]
    files += [output / "images" / annotate.file_name(index) for index in range(request.count)]
    for file in files:
        if not file.is_file():
            raise DataError(f"{file} is missing from a finished set; delete {output} and make it again.")
    return summary


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that is either whole or not there."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def write_files(
    output: Path, request: Request, processes: int, progress: Callable[[int, int], None] | None
) -> ScenesSummary:
    """Writes pictures and annotations, in order."""
    digest = hashlib.sha256()
    scenes: list[SceneFiles] = []
    for done, files in enumerate(produce(request, processes), start=1):
        (output / "images" / annotate.file_name(files.index)).write_bytes(files.png)
        digest.update(files.png)
        scenes.append(replace(files, png=b""))
        if progress is not None:
            progress(done, request.count)
    instances = join_dataset(
        {"description": "Rendered scenes, instances", "version": str(FORMAT_VERSION)},
        [scene.coco_image for scene in scenes],
        [annotation for scene in scenes for annotation in scene.coco_annotations],
    )
    cuboids = join_dataset(
        {"id": str(annotate.DATASET_ID), "source": annotate.DATASET_ID, "name": "Scenes", "split": "train"}
        | {"version": str(FORMAT_VERSION), "url": ""},
        [scene.omni3d_image for scene in scenes],
        [annotation for scene in scenes for annotation in scene.omni3d_annotations],
    )
    captions = b"".join(scene.caption + b"\n" for scene in scenes)
    for name, content in (("instances.json", instances), ("cuboids.json", cuboids), ("captions.jsonl", captions)):
        write_atomically(output / name, content)
        digest.update(content)
    return ScenesSummary(
        **asdict(request),
        num_objects=sum(len(scene.omni3d_annotations) for scene in scenes),
        content_hash=digest.hexdigest(),
    )


def join_dataset(info: dict[str, Any], images: list[bytes], annotations: list[bytes]) -> bytes:
    """A COCO-like JSON file, one image or annotation a line."""
    parts = {
        "info": msgspec.json.encode(info),
        "categories": msgspec.json.encode(annotate.categories()),
        "images": b"[\n" + b",\n".join(images) + b"\n]",
        "annotations": b"[\n" + b",\n".join(annotations) + b"\n]",
    }
    return b"{" + b",\n".join(b'"%s": %s' % (name.encode(), part) for name, part in parts.items()) + b"}\n"


def produce(request: Request, processes: int) -> Iterator[SceneFiles]:
    """The scenes in order, rendered here or by worker processes."""
    build = partial(build_scene, request.seed, request.side)
    if processes == 1:
        yield from map(build, range(request.count))
        return
    # "spawn": a forked worker would inherit the locks of the caller's threads.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(build, range(request.count), chunksize=CHUNK)


def build_scene(seed: int, side: int, index: int) -> SceneFiles:
    """Draws, renders, annotates and encodes one scene."""
    scene = make_scene(seed, index)
    rendering = render(scene, side)
    encode = msgspec.json.encode
    return SceneFiles(
        index=index,
        png=encode_png(rendering.pixels),
        coco_image=encode(annotate.coco_image(scene, side)),
        coco_annotations=[encode(entry) for entry in annotate.coco_annotations(scene, rendering)],
        omni3d_image=encode(annotate.omni3d_image(scene, side)),
        omni3d_annotations=[encode(entry) for entry in annotate.omni3d_annotations(scene, rendering)],
        caption=encode(chat.from_record(caption_record(scene, rendering))),
    )


def encode_png(pixels: Any) -> bytes:
    """A PNG of fixed settings and without metadata: the same pixels give the same bytes with the same Pillow."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=6)
    return stream.getvalue()
