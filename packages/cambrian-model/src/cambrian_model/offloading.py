"""Offloading of weights to memory or disk by accelerate, for modules that use the weights of their children.

accelerate brings weights to the device for the forward of the very module that holds them. A module that multiplies its
children's weights itself would find them gone; here all of its weights come for its own forward, and go after it.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from accelerate.hooks import AlignDevicesHook


def load_whole(modules: Iterable[nn.Module]) -> None:
    """Makes every module that accelerate offloads, in part or all of it, load its weights for its own forward."""
    for module in modules:
        if hook := next(_offloading_hooks(module), None):
            _rehook(module, *hook)


def _offloading_hooks(module: nn.Module) -> "Iterator[tuple[str, AlignDevicesHook]]":
    for path, child in module.named_modules():
        hook = getattr(child, "_hf_hook", None)
        for one in getattr(hook, "hooks", [hook]):
            if getattr(one, "offload", False):
                yield path, one


def _rehook(module: nn.Module, path: str, found: "AlignDevicesHook") -> None:
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module
    from accelerate.utils import PrefixedDataset

    names = found.weights_map  # of all weights of the model, behind the prefix of the child that it was made for
    prefix = names.prefix.removesuffix(f"{path}." if path else "")
    remove_hook_from_module(module, recurse=True)
    hook = AlignDevicesHook(
        execution_device=found.execution_device,
        offload=True,
        weights_map=PrefixedDataset(names.dataset, prefix),
        place_submodules=True,
        skip_keys=found.skip_keys,
        tied_params_map=found.tied_params_map,
    )
    add_hook_to_module(module, hook)
