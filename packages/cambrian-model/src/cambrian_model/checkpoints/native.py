"""Our own checkpoints, and the folders of others that a model is made from: found, and read with one kind of error.

A checkpoint is a folder in transformers' layout: config.json, safetensors in shards, processor, tokenizer.
"""

import re
from pathlib import Path

from cambrian_model.checkpoints.foreign import read_object
from cambrian_model.checkpoints.released import MODEL_TYPES
from cambrian_model.errors import CheckpointError

MODEL_TYPE = "cambrian"
CONNECTOR_FILE = "connector.safetensors"  # a connector by itself, as stage 1 trains it
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def locate(source: str | Path) -> str:
    """Returns an existing folder, or what can only be meant as a model of the hub (owner/name).

    Raises:
        CheckpointError: Neither. A name whose first part is a local folder is a mistyped path, and is never looked up.
    """
    text = str(source)
    if Path(text).is_dir():
        return text
    if HUB_ID.fullmatch(text) and not Path(text).parent.exists():
        return text
    raise CheckpointError(f"{text!r}: no such folder; expected a local folder, or a model of the hub (owner/name)")


def check_is_cambrian(source: str | Path) -> None:
    """Refuses a local folder that is no checkpoint of ours; a hub id is left to the hub client.

    Raises:
        CheckpointError: Says what the folder is instead.
    """
    folder = Path(locate(source))
    if not folder.is_dir():
        return
    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{source}: no config.json there; expected a checkpoint folder of ours")
    model_type = str(read_object(file, "a configuration").get("model_type"))
    if model_type != MODEL_TYPE:
        advice = "`cambrian convert` makes ours of it" if model_type in MODEL_TYPES else "this is another kind of model"
        raise CheckpointError(f'{file}: model_type is "{model_type}", expected "{MODEL_TYPE}"; {advice}')
    if (folder / CONNECTOR_FILE).is_file():
        raise CheckpointError(
            f"{source}: holds a connector alone; name it as model.connector_weights in a recipe, which says the rest"
        )
