"""A connector by itself: what stage 1 trains, in one file of ours, ready for a new model that a recipe describes."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from cambrian_model.checkpoints.completeness import check_complete
from cambrian_model.checkpoints.foreign import reading
from cambrian_model.checkpoints.native import CONNECTOR_FILE
from cambrian_model.errors import CheckpointError


def is_connector_name(name: str) -> bool:
    """Tells whether a tensor of ours belongs to the connector or to a block inside the language model."""
    return name.startswith("connector.") or ".sva." in name


@torch.no_grad()
def load_connector(model: nn.Module, folder: Path) -> None:
    """Loads a connector, with its blocks inside the language model, into a model.

    Raises:
        CheckpointError: There is none, or it is another model's; names what is missing, unexpected or reshaped.
    """
    file = folder / CONNECTOR_FILE
    if not file.is_file():
        raise CheckpointError(
            f"{folder}: no {CONNECTOR_FILE} there; `cambrian convert` makes one of a stage-1 mm_projector.bin"
        )
    with reading(file, "a connector"):
        state = load_file(file)
    expected = {name: tuple(x.shape) for name, x in model.state_dict().items() if is_connector_name(name)}
    check_complete(file, {name: tuple(x.shape) for name, x in state.items()}, expected)
    model.load_state_dict(state, strict=False)
