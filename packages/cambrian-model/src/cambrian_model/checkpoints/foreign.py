"""Files of others, read with one kind of error, whichever library does the reading."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from cambrian_model.errors import CambrianModelError, CheckpointError

# What libraries raise over files that are not what they seem; no error of the machine's memory or of our own asserts.
_OF_FOREIGN_FILES = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
)


@contextmanager
def reading(source: str | Path, what: str) -> Iterator[None]:
    """Turns whatever a library raises over somebody's files, or over the hub, into one kind of error.

    Raises:
        CheckpointError: Names the source, what it was taken for, and the library's first line.
    """
    try:
        yield
    except CambrianModelError:
        raise
    except _OF_FOREIGN_FILES as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{source}: cannot be read as {what}: {reason}") from error


def read_object(file: Path, what: str) -> dict[str, Any]:
    """Reads a JSON file that holds one object.

    Raises:
        CheckpointError: It is missing, damaged, or holds something else.
    """
    with reading(file, what):
        values = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"it holds {type(values).__name__}, expected an object of fields")
        return values
