"""The identity of a folder of weights: a hash of every file that can change an answer."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SUFFIXES = frozenset({".jinja", ".json", ".model", ".safetensors", ".tiktoken", ".txt"})


def hash_folder(folder: Path) -> str:
    """Hash of the weights and of the configuration, processor and tokenizer files, in order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in _SUFFIXES and path.is_file():
            with path.open("rb") as file:
                digest.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
