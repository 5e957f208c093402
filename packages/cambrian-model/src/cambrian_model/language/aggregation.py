"""SVA blocks inside any transformers causal language model, by class swap.

Every decoder layer's class becomes a subclass of itself that runs the layer and then its block, if it has one: no
decoder is copied, parameter names stay the language model's own, and checkpointing, sharding and compilation see one
layer. The visual context travels as a keyword argument and is written back by index (see spec "training", 3.3).
"""

import functools
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from cambrian_model.connectors.sva import SVABlock
from cambrian_model.connectors.visual_context import VisualContext
from cambrian_model.errors import ConfigError


class TokenContext(NamedTuple):
    """What the blocks see, and which hidden states ask.

    Attributes:
        visual: One query per token that shows a cell of a picture.
        token_index: Where each of these tokens stands in the flattened (batch, sequence).
    """

    visual: VisualContext
    token_index: Int[Tensor, " queries"]


def decoder_layers(language_model: PreTrainedModel) -> nn.ModuleList:
    """Returns the decoder layers of a causal language model, whatever it calls them.

    Raises:
        ConfigError: It has no such list.
    """
    num_layers = language_model.config.get_text_config().num_hidden_layers
    for module in language_model.get_decoder().modules():
        if isinstance(module, nn.ModuleList) and len(module) == num_layers:
            return module
    raise ConfigError(
        f"{type(language_model).__name__} has no list of {num_layers} decoder layers, so no SVA block can follow one; "
        "set connector.in_llm to null, or choose another language model"
    )


def add_sva_blocks(
    language_model: PreTrainedModel, chosen: Collection[int], build_block: Callable[[], SVABlock]
) -> None:
    """Swaps the class of every decoder layer; the chosen ones receive a block, named `sva`."""
    for index, layer in enumerate(decoder_layers(language_model)):
        layer.__class__ = with_sva(type(layer))  # type: ignore[arg-type]
        layer.register_module("sva", build_block() if index in chosen else None)
    language_model.register_forward_pre_hook(_name_context, with_kwargs=True)


def _name_context(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Names the context in every call, so that a layer knows a call without pictures from a context that got lost."""
    return args, {"vision_context": None, **kwargs}


@functools.cache
def with_sva(layer_class: type[nn.Module]) -> type[nn.Module]:
    """Returns the subclass of a decoder layer's class that runs the layer's SVA block after it."""

    class SVADecoderLayer(layer_class):  # type: ignore[misc, valid-type]
        def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if "vision_context" not in kwargs:
                raise ConfigError(
                    f"no vision_context reached {type(self).__name__}: this language model hands no keyword arguments "
                    "down to its layers, so no SVA block can work there; set connector.in_llm to null, or choose "
                    "another. (Or the decoder was called by itself: call the language model.)"
                )
            context: TokenContext | None = kwargs.pop("vision_context")
            hidden_states = super().forward(hidden_states, *args, **kwargs)
            if self.sva is None or context is None:
                return hidden_states
            return aggregate(hidden_states, self.sva, context)

    SVADecoderLayer.__name__ = SVADecoderLayer.__qualname__ = f"SVA{layer_class.__name__}"
    return SVADecoderLayer


def aggregate(
    hidden_states: Float[Tensor, "batch sequence dim"], block: nn.Module, context: TokenContext
) -> Float[Tensor, "batch sequence dim"]:
    """Passes the image tokens, newlines left out, through an SVA block and writes them back."""
    flat = hidden_states.flatten(0, 1)  # batch * sequence, dim
    queries = flat.index_select(0, context.token_index)
    return flat.index_copy(0, context.token_index, block(queries, context.visual)).view_as(hidden_states)
