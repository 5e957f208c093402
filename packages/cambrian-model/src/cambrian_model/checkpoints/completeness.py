"""Whether weights are whole: every tensor that a configuration asks for, in its shape, and no other."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from cambrian_model.config import CambrianConfig
from cambrian_model.errors import CheckpointError, ConfigError
from cambrian_model.model import CambrianForConditionalGeneration

Shapes = Mapping[str, tuple[int, ...]]
LISTED = 5  # names in a message
HEAD = "language_model.lm_head.weight"


def expected_tensors(config: CambrianConfig) -> dict[str, Tensor]:
    """Returns every tensor of a model, by name: shapes and types on the meta device, nothing is computed or stored."""
    try:
        with torch.device("meta"):
            return CambrianForConditionalGeneration(config).state_dict()
    except AssertionError as error:  # PyTorch's word for arguments that contradict each other
        raise ConfigError(f"no model can be built from this configuration: {error}") from error


def expected_shapes(config: CambrianConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every tensor of a model, by name."""
    return {name: tuple(tensor.shape) for name, tensor in expected_tensors(config).items()}


def optional_names(config: CambrianConfig) -> list[str]:
    """Returns the tensors that weights may leave out: a head that is the word embedding."""
    return [HEAD] if config.get_text_config().tie_word_embeddings else []


def check_complete(source: object, found: Shapes, expected: Shapes, optional: Collection[str] = ()) -> None:
    """Compares what weights hold with what their configuration asks for.

    Args:
        source: What errors call the weights.
        found: Shapes by name.
        expected: Shapes by name.
        optional: Names that need not be there.

    Raises:
        CheckpointError: Names what is missing, what is unexpected, and what has which other shape.
    """
    missing = [name for name in expected if name not in found and name not in optional]
    unexpected = [name for name in found if name not in expected]
    reshaped = [
        f"{name} is {list(found[name])}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "reshaped": reshaped}
    if any(problems.values()):
        raise CheckpointError(
            f"{source}: its weights are not those of its configuration: "
            + "; ".join(f"{len(names)} {kind} ({_listed(names)})" for kind, names in problems.items() if names)
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
