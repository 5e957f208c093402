"""Our own checkpoints: a folder in transformers' layout (config.json, safetensors in shards, processor, tokenizer)."""

import json
from pathlib import Path
from typing import Any

from cambrian_model.errors import CheckpointError

MODEL_TYPE = "cambrian"


def check_is_cambrian(path: Any) -> None:
    """Refuses a local folder that is no checkpoint of ours; a hub id is left to the hub client.

    Raises:
        CheckpointError: Says what the folder is instead.
    """
    folder = Path(path)
    if not folder.exists() and str(path).count("/") == 1 and not str(path).startswith((".", "~")):
        return
    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(
            f"{path}: no config.json there; expected a checkpoint folder of ours, or a hub id (owner/name)"
        )
    try:
        model_type = json.loads(file.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{file}: not a configuration ({error})") from error
    if model_type != MODEL_TYPE:
        raise CheckpointError(
            f'{file}: model_type is "{model_type}", expected "{MODEL_TYPE}"; this is another kind of model'
        )
