"""What kind of file somebody gave us, in words: the one place that recognises annotation files, and what is none.

Readers ask for the kind they read; whatever else it is, the error names it. Packed, binary and web files are known by
their first bytes, JSON by the keys of its first entries.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cambrian_data.errors import DataError

COCO_INSTANCES = "a COCO-format instances file"
OMNI3D_CUBOIDS = "an Omni3D-format cuboids file"
ADE20K_SCENE = "an ADE20K scene of the full format"

FIRST_BYTES = (
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"PK\x03\x04", "a zip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ\x00", "an xz archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"PAR1", "a Parquet file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"MATLAB 5.0", "a MATLAB file"),
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"GIF8", "a picture (GIF)"),
    (b"II*\x00", "a picture (TIFF)"),
    (b"MM\x00*", "a picture (TIFF)"),
    (b"%PDF", "a PDF"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file; fetch it with `git lfs pull`"),
    (b"<?xml", "an XML file"),
)
"""The beginnings of files that are no JSON."""

MARKUP = (b"<!doctype html", b"<html", b"<head", b"<body")
WHITESPACE = b" \t\r\n"
ObjectHook = Callable[[dict[str, Any]], dict[str, Any]]
PICKLE_PROTOCOLS = range(2, 6)
STUFF_NAMES = frozenset(("sky-other", "wall-other", "floor-other", "sky-other-merged", "wall-other-merged"))
"""Categories that only COCO's stuff and panoptic files have."""


def refuse(file: Path, found: str, wanted: str) -> DataError:
    """The error for a file of another kind."""
    return DataError(f"{file}: this is {found}; expected {wanted}.")


def read_bytes(file: Path, wanted: str) -> bytes:
    """The content of a file that may be JSON.

    Raises:
        DataError: if it cannot be read, or its first bytes are those of something else.
    """
    if file.is_dir():
        raise refuse(file, "a folder", wanted)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}.") from error
    found = of_bytes(content)
    if found is not None:
        raise refuse(file, found, wanted)
    return content


def parse(file: Path, content: bytes | str, wanted: str, hook: ObjectHook | None = None) -> Any:
    """The JSON document, with Python's reader, which takes NaN; hook is called with every object.

    Raises:
        DataError: if it is no JSON, or of another kind.
    """
    try:
        document = json.loads(content, object_hook=hook)
    except (ValueError, RecursionError) as error:
        if are_json_lines(content):
            raise refuse(file, "a JSON Lines file, one value a line", wanted) from error
        raise DataError(f"{file}: malformed JSON: {error}; expected {wanted}.") from error
    found = of_document(document)
    if found != wanted:
        raise refuse(file, found, wanted)
    return document


def are_json_lines(content: bytes | str) -> bool:
    """Whether the first lines are a JSON value each."""
    lines = [line for line in content[:1_000_000].splitlines()[:3] if line.strip()]
    try:
        return len([json.loads(line) for line in lines]) > 1
    except (ValueError, RecursionError):
        return False


def of_bytes(content: bytes) -> str | None:
    """What a file is by its beginning, None if it may be JSON."""
    beginning = content[:512].lstrip(WHITESPACE)
    if not beginning and not content.strip(WHITESPACE):
        return "an empty file"
    for first, found in FIRST_BYTES:
        if content.startswith(first):
            return found
    if content[:1] == b"\x80" and content[1] in PICKLE_PROTOCOLS:
        return "a Python pickle, which could run any program when it is read; this package reads none"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "a picture (WebP)"
    if content[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    if beginning.lower().startswith(MARKUP):
        return "an HTML page, perhaps of a failed download"
    return None


def sketch(content: bytes) -> Any:
    """The JSON document with every list of entries cut to its first, categories whole: enough to tell its kind.

    Raises:
        msgspec.DecodeError: if it is no JSON; NaN, too, is none to msgspec.
    """
    if content.lstrip(WHITESPACE)[:1] == b"[":
        return first_of(msgspec.json.decode(content, type=msgspec.Raw))
    if content.lstrip(WHITESPACE)[:1] != b"{":
        return msgspec.json.decode(content)
    document = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    return {
        key: msgspec.json.decode(value) if key == "categories" else first_of(value) for key, value in document.items()
    }


def first_of(value: msgspec.Raw) -> Any:
    """A list's first entry in a list, or the value itself."""
    if bytes(memoryview(value)[:1]) != b"[":
        return msgspec.json.decode(value)
    return [msgspec.json.decode(entry) for entry in msgspec.json.decode(value, type=list[msgspec.Raw])[:1]]


def of_document(document: Any) -> str:
    """What a parsed JSON file is, in words."""
    if isinstance(document, list):
        return of_list(document)
    if not isinstance(document, dict):
        return "a JSON value"
    return of_single_picture(document) or of_dataset(document)


def of_list(document: Sequence[Any]) -> str:
    """What a JSON list is."""
    entry = document[0] if document else None
    if not isinstance(entry, dict):
        return "a JSON list"
    if "score" in entry and "image_id" in entry:
        return "a JSON list of COCO results (detections, not annotations)"
    if "conversations" in entry:
        return "a JSON list of conversations"
    return "a JSON list"


def of_single_picture(document: Mapping[str, Any]) -> str | None:
    """What a JSON object about one picture is, None if it is not about one."""
    scene = document.get("annotation")
    if isinstance(scene, dict) and "object" in scene:
        return ADE20K_SCENE
    if "shapes" in document and "imagePath" in document:
        return "a LabelMe file"
    return None


def of_dataset(document: Mapping[str, Any]) -> str:
    """What a JSON object with COCO's lists, or some of them, is."""
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(document.get(key), list)]
    image, annotation = first_entry(document, "images"), first_entry(document, "annotations")
    markers = {
        "caption": "a COCO captions file",
        "keypoints": "a COCO keypoints file",
        "segments_info": "a COCO panoptic file",
    }
    for marker, found in markers.items():
        if marker in annotation:
            return found
    if "neg_category_ids" in image or "not_exhaustive_category_ids" in image:
        return "an LVIS file, which annotates each category in some of the pictures only"
    if missing == ["annotations"] and image:
        return "a COCO image list without annotations"
    if missing:
        return f'a JSON object without the list "{missing[0]}"'
    if annotation.keys() & {"bbox3D_cam", "bbox2D_tight", "valid3D"} or (
        "file_path" in image and "file_name" not in image
    ):
        return OMNI3D_CUBOIDS
    if STUFF_NAMES & {str(entry.get("name")) for entry in document["categories"] if isinstance(entry, dict)}:
        return "a COCO stuff file, whose annotations are regions, not things"
    return COCO_INSTANCES


def first_entry(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The first object of a list in the document, {} if there is none."""
    entries = document.get(key)
    first = entries[0] if isinstance(entries, list) and entries else None
    return first if isinstance(first, dict) else {}
