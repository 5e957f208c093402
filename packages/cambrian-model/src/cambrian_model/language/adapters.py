"""Which layers an adapter of peft may sit on: those of the language model, and none inside an SVA block."""

import re
from collections.abc import Iterable

from torch import nn

from cambrian_model.errors import ConfigError, did_you_mean

ROOT = "language_model"
BLOCK = "sva"  # the name of an SVA block in a decoder layer


def linear_layers(language_model: nn.Module, head: nn.Module | None, names: Iterable[str] = ()) -> str:
    """Returns a pattern of the language model's linear layers of these names (default: all but its head).

    Raises:
        ConfigError: It has no linear layer of a name, or none at all.
    """
    found = {
        path.rpartition(".")[2]
        for path, module in language_model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and f".{BLOCK}." not in path
    }
    if not found:
        raise ConfigError(
            f"{type(language_model).__name__} has no linear layer for an adapter to sit on; train its own weights, "
            "or choose another language model"
        )
    names = list(names)
    for name in names:
        if name not in found:
            raise ConfigError(f'the language model has no linear layer "{name}"{did_you_mean(name, found)}')
    chosen = "|".join(re.escape(name) for name in sorted(names or found))
    return rf"{ROOT}\.(?!.*\.{BLOCK}\.).*\.({chosen})"


def refuse_adapters(blocks: Iterable[tuple[str, nn.Module]]) -> None:
    """Checks that no adapter sits inside an SVA block.

    A block multiplies its projections with each other before it projects anything, so that most adapters there would
    have neither an effect nor a gradient; and its layers share names with a language model's, so one lands there by
    mistake.

    Raises:
        ConfigError: One does; says where.
    """
    for path, block in blocks:
        for name, module in block.named_modules():
            if hasattr(module, "base_layer"):  # what peft calls the layer that it wraps
                raise ConfigError(
                    f"an adapter sits on {path}.{name}, inside an SVA block, which multiplies its projections and so "
                    "does not use one; choose layers of the language model: "
                    'LoraConfig(target_modules=model.lora_target_modules("q_proj", "v_proj")), or () for all'
                )
