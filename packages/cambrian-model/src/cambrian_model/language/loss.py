"""The loss: cross-entropy of the supervised tokens, from all logits or without ever having them.

Notable: logits of a whole row are the largest tensor of a training step, and most of them belong to tokens that nobody
supervises. Here the hidden states of supervised tokens are picked out, and the language model's own `forward`, its
decoder replaced by one that hands its input on, makes their logits, a chunk at a time: whatever a language model does
to its logits (soft caps, scales) is done to these, and no list of such things has to be kept.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from cambrian_model.errors import ConfigError
from cambrian_model.processing.sample import IGNORED_LABEL

Head = Callable[[Tensor], Tensor]  # hidden states (tokens, dim) to logits (tokens, vocabulary)

# Of the largest logit. Both sides run the same modules on the same numbers, so only another computation differs more.
CHECK_TOLERANCE = 0.02
AMPLIFIED = 64.0  # so that a soft cap bends also the small logits of a fresh language model


class LossOptions(NamedTuple):
    """How a loss comes from the decoder's hidden states.

    Attributes:
        implementation: "whole" makes the logits of all tokens, and the model returns them; "chunked" makes those of
            supervised tokens, `chunk_tokens` at a time and again in the backward pass; "liger" leaves that to the
            fused kernel of the package liger-kernel, which needs CUDA.
        chunk_tokens: See above.
    """

    implementation: Literal["whole", "chunked", "liger"] = "whole"
    chunk_tokens: int = 1024


class Targets(NamedTuple):
    """What is to be predicted.

    Attributes:
        positions: Where in the flattened (batch, sequence) the hidden states stand that predict a supervised token.
        ids: Those tokens.
    """

    positions: Int[Tensor, " tokens"]
    ids: Int[Tensor, " tokens"]


class Decoded(NamedTuple):
    """What a language model made of its inputs, all but the logits.

    Attributes:
        outputs: Its output; `logits` are those of each row's last token.
        hidden: What enters its head.
        kind: What its decoder packs that into.
    """

    outputs: ModelOutput
    hidden: Float[Tensor, "batch sequence dim"]
    kind: type[ModelOutput]


def token_loss(
    logits: Float[Tensor, "batch sequence vocabulary"],
    labels: Int[Tensor, "batch sequence"],
    num_items: Tensor | int | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of every supervised token, summed and divided by `num_items` (default: their number)."""
    targets = labels[:, 1:].flatten()
    total = functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), targets, ignore_index=IGNORED_LABEL, reduction="sum"
    )
    return total / (num_items if num_items is not None else (targets != IGNORED_LABEL).sum().clamp(min=1))


def find_targets(labels: Int[Tensor, "batch sequence"]) -> Targets:
    """Finds what is supervised. Waits for the device to count it, so it is called before the decoder is queued."""
    shifted = functional.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL).flatten()  # batch * sequence
    positions = torch.nonzero(shifted != IGNORED_LABEL).squeeze(1)
    return Targets(positions, shifted.index_select(0, positions))


def decode(language_model: PreTrainedModel, inputs: dict[str, Any]) -> Decoded:
    """Runs a language model as it is, but for the logits of all but the last token of each row.

    Raises:
        ConfigError: Its hidden states cannot be had, or it makes all logits anyway.
    """
    decoder = language_model.get_decoder()
    kept: list[ModelOutput] = []
    hook = decoder.register_forward_hook(lambda _, __, output: kept.append(output))
    try:
        outputs = language_model(**inputs, logits_to_keep=1)
    finally:
        hook.remove()
    if decoder is language_model or len(kept) != 1 or outputs.logits.shape[1] != 1:
        raise ConfigError(_not_separable(language_model, "it has no decoder, or makes all logits anyway"))
    return Decoded(outputs, kept[0][0], type(kept[0]))


class _HandOn(nn.Module):
    """Stands for a decoder whose work is done."""

    def __init__(self, kind: type[ModelOutput]) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> ModelOutput:
        return self.kind(last_hidden_state=inputs_embeds)


def head_of(language_model: PreTrainedModel, kind: type[ModelOutput]) -> Head:
    """Returns what a language model does with its decoder's hidden states, up to the logits.

    Runs the head's own module, so that hooks on it and weights that a sharded root has gathered are the current ones.
    The language model by itself must not be a sharded unit that frees its weights after its forward pass.

    Raises:
        ConfigError: Its decoder is none of its modules.
    """
    decoder = language_model.get_decoder()
    paths = [path for path, module in language_model.named_modules() if module is decoder]
    if not paths or not paths[0]:
        raise ConfigError(_not_separable(language_model, "its decoder is no part of it"))
    shell = _replaced(language_model, paths[0], _HandOn(kind))
    run = partial(type(shell).forward, shell)  # not `shell(...)`: hooks are for whole calls of the language model

    def head(hidden: Float[Tensor, "tokens dim"]) -> Float[Tensor, "tokens vocabulary"]:
        return cast(Tensor, run(inputs_embeds=hidden[None], use_cache=False, return_dict=True).logits)[0]

    return head


def _replaced(module: nn.Module, path: str, part: nn.Module) -> nn.Module:
    """Returns a module that shares everything with `module`, but has `part` at `path`."""
    name, _, rest = path.partition(".")
    child = _replaced(module.get_submodule(name), rest, part) if rest else part
    shell = object.__new__(type(module))  # neither __init__ nor __copy__: nothing is to be built, moved or sharded
    shell.__dict__ = {**module.__dict__, "_modules": {**module._modules, name: child}}
    return shell


def check_head(language_model: PreTrainedModel, decoded: Decoded, options: LossOptions) -> None:
    """Compares the logits of each row's last token with those that the head alone gives. Waits for the device.

    Raises:
        ConfigError: They differ, so that a loss would be another one; or liger is asked for and cannot work here.
    """
    head, last = head_of(language_model, decoded.kind), decoded.hidden[:, -1].detach()
    if options.implementation == "liger":
        _liger_kernel(last.device)
    with torch.no_grad():
        if not _agree(head(last), decoded.outputs.logits[:, -1]):
            raise ConfigError(_not_separable(language_model, "its logits do not follow from its last hidden states"))
        if options.implementation != "liger":
            return
        linear, softcap = _liger_head(language_model)
        for hidden in (last, AMPLIFIED * last):
            logits = linear(hidden)
            logits = torch.tanh(logits / softcap) * softcap if softcap else logits
            if not _agree(logits, head(hidden)):
                raise ConfigError(
                    f"liger's kernel knows no more than a linear layer and a soft cap, but {_name(language_model)} "
                    'computes other logits; set the loss to "chunked"'
                )


def _agree(found: Tensor, expected: Tensor) -> bool:
    """Compares where `expected` is finite: whoever trains has to tell of the rest."""
    known = expected.isfinite()
    difference = torch.where(known, (found - expected).abs(), 0.0).max()
    return bool(difference <= CHECK_TOLERANCE * torch.where(known, expected.abs(), 0.0).max())


def summed_loss(
    language_model: PreTrainedModel, decoded: Decoded, targets: Targets, options: LossOptions
) -> Float[Tensor, ""]:
    """Sums the cross-entropy of every target, without the logits of all of them.

    Without any target it is 0, with gradients of 0 for everything that is trained.
    """
    hidden = decoded.hidden
    states = hidden.flatten(0, 1).index_select(0, targets.positions.to(hidden.device))  # tokens, dim
    ids = targets.ids.to(hidden.device)
    if options.implementation == "liger" and len(ids):  # it divides by the number of tokens
        return _liger_loss(language_model, states, ids)
    score = partial(_score, head_of(language_model, decoded.kind))
    total = states.new_zeros((), dtype=torch.float32)
    for some, wanted in zip(states.split(options.chunk_tokens), ids.split(options.chunk_tokens), strict=True):
        total = total + checkpoint(score, some, wanted, use_reentrant=False)
    return total


def _score(head: Head, hidden: Tensor, ids: Tensor) -> Tensor:
    return functional.cross_entropy(head(hidden).float(), ids, reduction="sum")


def _liger_loss(language_model: PreTrainedModel, hidden: Tensor, ids: Tensor) -> Tensor:
    linear, softcap = _liger_head(language_model)
    loss = _liger_kernel(hidden.device)(reduction="sum", softcap=softcap, accum_dtype=torch.float32)
    return cast(Tensor, loss(linear.weight, hidden, ids, linear.bias))


def _liger_kernel(device: torch.device) -> Callable[..., nn.Module]:
    try:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss  # type: ignore[import-not-found]
    except ImportError as error:
        raise ConfigError(
            'the loss "liger" needs the package liger-kernel: pip install liger-kernel, or set the loss to "chunked"'
        ) from error
    if device.type != "cuda":
        raise ConfigError(f'the loss "liger" is a CUDA kernel, but the model is on {device}; set it to "chunked"')
    return cast(Callable[..., nn.Module], LigerFusedLinearCrossEntropyLoss)


def _liger_head(language_model: PreTrainedModel) -> tuple[nn.Linear, float | None]:
    """Returns the linear layer that makes logits, and how they are capped."""
    linear = language_model.get_output_embeddings()
    if type(linear) is not nn.Linear:
        raise ConfigError(
            f"liger's kernel takes the weight of a plain linear layer, but the head of {_name(language_model)} is a "
            f'{type(linear).__name__}; set the loss to "chunked"'
        )
    return linear, getattr(language_model.config.get_text_config(), "final_logit_softcapping", None)


def _not_separable(language_model: PreTrainedModel, reason: str) -> str:
    return f'{_name(language_model)} cannot compute its loss in chunks: {reason}; set the loss to "whole"'


def _name(language_model: PreTrainedModel) -> str:
    return type(language_model).__name__
