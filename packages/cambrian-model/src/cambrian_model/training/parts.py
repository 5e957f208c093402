"""The parts of a model, and the patterns that name parameters: a part, or a glob over full parameter names."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Literal, get_args

Part = Literal["vision_encoders", "projector", "sva", "in_llm", "language_model", "adapters"]
PARTS: tuple[Part, ...] = get_args(Part)
GROUPS: dict[str, tuple[Part, ...]] = {"connector": ("projector", "sva")}  # several parts under one name
NAMES: tuple[str, ...] = (*PARTS, *GROUPS)

SVA_OF_CONNECTOR = ("connector.query", "connector.groups.")
ADAPTER = ".lora_"


def part_of(name: str) -> Part:
    """Returns the part to which a parameter belongs.

    "projector" is all of the connector but its SVA blocks and their queries, which are "sva"; "in_llm" are the SVA
    blocks inside the language model; "adapters" are those of LoRA, wherever they sit.
    """
    if ADAPTER in name:
        return "adapters"
    root = name.partition(".")[0]
    if root == "language_model":
        return "in_llm" if ".sva." in name else "language_model"
    if root == "connector":
        return "sva" if name.startswith(SVA_OF_CONNECTOR) else "projector"
    assert root == "vision_encoders", f"parameter {name} belongs to no part of {PARTS}"
    return "vision_encoders"


def is_glob(pattern: str) -> bool:
    """Tells a glob over parameter names from the name of a part."""
    return any(sign in pattern for sign in ".*?[")


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """Returns the parameters that a pattern names, in their order."""
    if is_glob(pattern):
        return [name for name in names if fnmatchcase(name, pattern)]
    parts = GROUPS.get(pattern, (pattern,))
    return [name for name in names if part_of(name) in parts]
