"""Models by name: `cambrian:PATH`, `huggingface:PATH_OR_ID`, `openai:URL#MODEL`, and those that do not look.

What follows the first colon is theirs: `random:SEED`, `constant:TEXT`, `canned:FILE`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian_eval.registry import Registry

if TYPE_CHECKING:
    from cambrian_eval.models.base import Model

MODELS = Registry(
    "model",
    {
        "cambrian": "cambrian_eval.models.cambrian:load",
        "canned": "cambrian_eval.models.canned:load",
        "constant": "cambrian_eval.models.baselines:load_constant",
        "huggingface": "cambrian_eval.models.huggingface:load",
        "openai": "cambrian_eval.models.openai_compatible:load",
        "random": "cambrian_eval.models.baselines:load_random",
    },
)


def load_model(spec: str) -> Model:
    """The model that `NAME` or `NAME:ARGUMENT` stands for.

    Raises:
        UnknownNameError: No such model.
        ModelError: The argument is not one that the model takes.
    """
    name, _, argument = spec.partition(":")
    return MODELS.get(name)(argument)
