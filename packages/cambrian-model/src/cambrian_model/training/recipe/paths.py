"""Which keys of a recipe are paths, and from which folder a relative one is meant."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FILE_KEYS = (("data", "*", "records"), ("data", "*", "images"), ("model", "connector_weights"))
FILE_OR_HUB_KEYS = (
    ("model", "language_model", "path"),
    ("model", "tokenizer"),
    ("model", "vision_encoders", "*", "path"),
    ("data", "*", "stream", "path"),
)


def with_absolute_paths(value: Any, folder: Path, above: Sequence[str] = ()) -> Any:
    """Makes the paths in a recipe absolute, or in the value of its key `above`."""
    for keys in FILE_KEYS + FILE_OR_HUB_KEYS:
        if len(above) <= len(keys) and all(k in ("*", name) for k, name in zip(keys, above, strict=False)):
            value = _with_absolute_path(value, keys[len(above) :], folder, may_be_on_hub=keys in FILE_OR_HUB_KEYS)
    return value


def _with_absolute_path(node: Any, keys: Sequence[str], folder: Path, may_be_on_hub: bool) -> Any:
    if not keys:
        return _absolute(node, folder, may_be_on_hub) if isinstance(node, str) else node
    if keys[0] == "*" and isinstance(node, list):
        return [_with_absolute_path(item, keys[1:], folder, may_be_on_hub) for item in node]
    if not isinstance(node, Mapping):
        return node
    chosen = set(node) if keys[0] == "*" else {keys[0]}
    return {k: _with_absolute_path(v, keys[1:], folder, may_be_on_hub) if k in chosen else v for k, v in node.items()}


def _absolute(text: str, folder: Path, may_be_on_hub: bool) -> str:
    """Makes a path absolute; a text that may be a name on the Hub and is no existing path stays as it is."""
    path = folder / Path(text).expanduser()
    return text if may_be_on_hub and not path.exists() else str(path.resolve())
