"""Memory for time and time for start-up: activation checkpointing and compilation, layer by layer, in place.

Notable: parameter names stay as they are, and neither changes what is learned beyond rounding. The number of pictures
varies from batch to batch, so it is a symbol to the compiler: each unit is compiled for no picture, one, and several.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cambrian_model.errors import ConfigError
from cambrian_model.language.aggregation import decoder_layers
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.vision.base import is_trained

Checkpointed = Literal["language_model", "vision_encoders"]
Mark = Callable[[tuple[Any, ...], dict[str, Any]], None]

# torch gives up on a function after 8 graphs, and all layers share one: theirs are no, one and several pictures, with
# and without a block, with and without gradients, for each kind of attention.
RECOMPILE_LIMIT = 64


def checkpoint_activations(model: CambrianForConditionalGeneration, parts: Collection[Checkpointed]) -> None:
    """Keeps, of each layer of these parts, only what enters it; the rest is computed again in the backward pass.

    A decoder layer includes its SVA block. Frozen encoders are passed over: they keep nothing anyway.

    Raises:
        ConfigError: The language model or a trained encoder cannot do it.
    """
    if "language_model" in parts:
        if not model.language_model.supports_gradient_checkpointing:
            raise ConfigError(
                f"{type(model.language_model).__name__} cannot checkpoint its activations; "
                "leave language_model out, or choose another"
            )
        model.language_model.activation_checkpointing_enable()
        # It makes the word embeddings ask for gradients, which only the other, reentrant kind needs.
        model.language_model.disable_input_require_grads()
    if "vision_encoders" in parts:
        for encoder in filter(is_trained, model.encoders):
            encoder.checkpoint_activations()


def compile_layers(model: CambrianForConditionalGeneration, backend: str = "inductor") -> None:
    """Compiles every decoder layer with its SVA block, every repeated block of the encoders, and the connector's parts.

    Call it before the model is sharded or wrapped. Rows must be of one length, and pictures of an encoder of one
    resolution, as they are in training: any other shape is compiled anew. What runs once per encoder (patch embedding,
    final normalisation), what depends on the pictures' sizes (where image tokens go), the word embeddings and the head
    stay as they are. Compilation happens at the first batches. Raises torch's own limit of graphs per function.

    Args:
        model: Compiled in place.
        backend: A backend of `torch.compile`.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
    for layer in decoder_layers(model.language_model):
        _compile(layer, backend, _mark_context)
    for encoder in model.encoders:
        for block in _repeated(encoder) or [encoder]:
            _compile(block, backend, _mark_pictures)
    for part in _parts(model.connector.children()):
        _compile(part, backend, _mark_pictures)


def _compile(module: nn.Module, backend: str, mark: Mark) -> None:
    # All sizes are fixed but for what is marked: that a size differs between units does not mean that it varies.
    module.compile(dynamic=False, backend=backend)
    # Marks are set before the compiler looks, which is also before any hook of the module.
    module._compiled_call_impl = partial(_call, cast(Callable[..., Any], module._compiled_call_impl), mark)


def _call(compiled: Callable[..., Any], mark: Mark, *args: Any, **kwargs: Any) -> Any:
    mark(args, kwargs)
    return compiled(*args, **kwargs)


def _mark_context(_: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    _mark_pictures((), {"context": kwargs.get("vision_context")})


def _mark_pictures(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Tells the compiler that the first size of these tensors is the number of pictures, or follows from it."""
    for tensor in pytree.tree_leaves((args, kwargs)):
        if isinstance(tensor, Tensor) and tensor.ndim:
            torch._dynamo.maybe_mark_dynamic(tensor, 0)


def _repeated(module: nn.Module) -> list[nn.Module]:
    """Returns the blocks of an encoder: the members of the outermost lists of several modules of one kind."""
    blocks: list[nn.Module] = []
    for child in module.children():
        members = list(child.children())
        is_list = isinstance(child, (nn.ModuleList, nn.Sequential))
        if is_list and len(members) > 1 and len({type(member) for member in members}) == 1:
            blocks += members
        else:
            blocks += _repeated(child)
    return blocks


def _parts(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """Yields modules, and the members of lists in their place."""
    for module in modules:
        if isinstance(module, nn.ModuleList):
            yield from _parts(cast(Iterable[nn.Module], module))
        else:
            yield module
