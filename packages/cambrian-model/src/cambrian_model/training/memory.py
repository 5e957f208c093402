"""How much memory a rank needs to train a model, by component, before any weight is read.

Weights, gradients and optimizer follow from the parameters' shapes. What the backward pass needs of the forward pass is
measured, not written down as formulas: each part of the model runs on fake tensors (shapes and types without numbers)
in the run's precision, and everything that autograd keeps is added up. So it holds for any architecture. Not counted:
what the device's own libraries take (about 1 GB of a GPU), fragments, and what lives only inside of one operation.
"""

import copy
import functools
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cambrian_model.config import VisionEncoderConfig, parse_spec
from cambrian_model.connectors import VisualContext
from cambrian_model.language.adapters import BLOCK
from cambrian_model.language.aggregation import decoder_layers
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.training.flops import Reach, follow_gradients
from cambrian_model.training.recipe.engine import LossSection, ParallelSection
from cambrian_model.vision import build_vision_encoder
from cambrian_model.vision.base import VisionEncoder, is_trained

Precision = Literal["fp32", "bf16", "fp16"]
Quantization = Literal["nf4", "int8"]

_FLOAT32 = 4
# Bytes of a quantised weight; of nf4, half a byte and one float32 for 64 of them.
_QUANTIZED = {"nf4": 0.5 + 4 / 64, "int8": 1.0}
# Copies of a chunk of logits at the moment when their gradient is made: logits as computed, in float32, their
# logarithmic softmax, and the gradients of these.
_LOGIT_BYTES = {"fp32": 12, "bf16": 16, "fp16": 16}


@dataclass(frozen=True)
class MicroBatch:
    """What goes through the model together on one rank.

    Attributes:
        rows: Packed rows.
        row_tokens: Tokens of a row.
        images: Pictures in all rows.
        supervised: Supervised tokens in all rows.
    """

    rows: int
    row_tokens: int
    images: int
    supervised: int


@dataclass(frozen=True)
class Setting:
    """How a run computes, as far as memory depends on it; see the recipe's keys of these names.

    Attributes:
        ranks: Devices.
        strategy: "ddp" or "fsdp".
        parallel: Replicas, and what becomes of frozen encoders.
        precision: Of the computation; weights and optimizer are float32.
        attention: Of the language model.
        checkpointed: Parts whose activations are computed again.
        loss: See `LossSection`.
        has_pixels: Whether encoders run, which they do not where features are cached.
        has_ema: Whether averages of the weights are kept.
        quantize: Of the language model's frozen weights.
    """

    ranks: int = 1
    strategy: Literal["ddp", "fsdp"] = "ddp"
    parallel: ParallelSection = field(default_factory=ParallelSection)
    precision: Precision = "fp32"
    attention: str = "sdpa"
    checkpointed: Collection[str] = ()
    loss: LossSection = field(default_factory=LossSection)
    has_pixels: bool = True
    has_ema: bool = False
    quantize: Quantization | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights that a sharded model computes with, and so of what lies between its layers."""
        return torch.bfloat16 if self.strategy == "fsdp" and self.precision != "fp32" else torch.float32

    @property
    def shards(self) -> int:
        """Among how many ranks a weight is divided."""
        return self.ranks // self.parallel.replicas if self.strategy == "fsdp" else 1


When = Literal["always", "kept", "backward", "encoding"]


class Component(NamedTuple):
    """One line of the table.

    Attributes:
        name: As a person calls it.
        num_bytes: On one rank.
        when: "always"; "kept" from the forward pass to the backward pass; for a moment in the "backward" pass, or in
            "encoding" pictures, when nothing is kept yet. Of the last two kinds only the largest counts.
    """

    name: str
    num_bytes: float
    when: When = "always"


@dataclass(frozen=True)
class Memory:
    """What one rank needs, component by component."""

    components: tuple[Component, ...]

    @property
    def total(self) -> float:
        """Bytes at the worst moment."""
        always, kept = (sum(self._of(when)) for when in ("always", "kept"))
        backward, encoding = (max(self._of(when), default=0.0) for when in ("backward", "encoding"))
        return always + max(kept + backward, encoding)

    def __getitem__(self, name: str) -> float:
        """Returns the bytes of a component; 0 where there is none."""
        return sum(component.num_bytes for component in self.components if component.name == name)

    def _of(self, when: str) -> list[float]:
        return [component.num_bytes for component in self.components if component.when == when]


def estimate_memory(model: CambrianForConditionalGeneration, batch: MicroBatch, setting: Setting) -> Memory:
    """Estimates what a rank needs; `model` is on the meta device, and what it trains is chosen."""
    states, activations = estimate_states(model, setting), estimate_activations(model, batch, setting)
    return Memory(states.components + activations.components)


def estimate_states(model: CambrianForConditionalGeneration, setting: Setting) -> Memory:
    """Estimates what lies on a rank whatever the batch: weights, gradients, optimizer, what FSDP gathers."""
    return _memory(_states(model, setting))


def estimate_activations(model: CambrianForConditionalGeneration, batch: MicroBatch, setting: Setting) -> Memory:
    """Estimates what a batch needs; `model` is on the meta device, and what it trains is chosen."""
    return _memory(_activations(model, batch, setting))


def _memory(components: Iterable[Component]) -> Memory:
    return Memory(tuple(component for component in components if component.num_bytes))


def _states(model: CambrianForConditionalGeneration, setting: Setting) -> Iterator[Component]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    num_trained = sum(_on_rank(parameter, setting.shards) for parameter in trained)
    yield Component("trained weights", _FLOAT32 * num_trained)
    yield Component("frozen weights", sum(_frozen_bytes(model, setting)))
    yield Component("buffers", sum(buffer.nbytes for buffer in model.buffers()))
    yield Component("gradients", _FLOAT32 * num_trained)
    yield Component("AdamW", 2 * _FLOAT32 * num_trained)
    yield Component("EMA", _FLOAT32 * num_trained * setting.has_ema)
    if setting.shards > 1:
        yield from _gathered(model, setting)


def _on_rank(parameter: Tensor, shards: int) -> int:
    """Returns the elements of the largest shard: FSDP2 divides the first dimension."""
    return -(-parameter.shape[0] // shards) * (parameter.numel() // parameter.shape[0]) if parameter.numel() else 0


def _frozen_bytes(model: CambrianForConditionalGeneration, setting: Setting) -> Iterator[float]:
    whole = set()
    if setting.parallel.frozen_encoders == "replicate":
        whole = {id(p) for encoder in model.encoders if not is_trained(encoder) for p in encoder.parameters()}
    head = model.get_output_embeddings()
    quantized = {
        id(module.weight)
        for module in model.language_model.modules()
        if setting.quantize and isinstance(module, nn.Linear) and module is not head
    }
    for parameter in model.parameters():
        if not parameter.requires_grad:
            num_bytes = _QUANTIZED[setting.quantize] if id(parameter) in quantized and setting.quantize else _FLOAT32
            yield num_bytes * _on_rank(parameter, 1 if id(parameter) in whole else setting.shards)


def _gathered(model: CambrianForConditionalGeneration, setting: Setting) -> Iterator[Component]:
    """Returns what FSDP2 holds beside its shards: the root's weights, two units, the gradients of one."""
    layers = list(decoder_layers(model.language_model))
    encoders = [e for e in model.encoders if is_trained(e) or setting.parallel.frozen_encoders == "shard"]
    units = [*layers, *encoders, model.connector]
    in_units = {id(parameter) for unit in units for parameter in unit.parameters()}
    in_units |= {id(parameter) for encoder in model.encoders for parameter in encoder.parameters()}
    root = sum(p.numel() for p in model.parameters() if id(p) not in in_units)
    size = _FLOAT32 if setting.precision == "fp32" else 2
    largest = sorted((sum(p.numel() for p in unit.parameters()) for unit in units), reverse=True)[:2]
    yield Component("gathered weights", size * (root + sum(largest)))
    gradients = max(sum(p.numel() for p in unit.parameters() if p.requires_grad) for unit in units)
    yield Component("gradients before they are shared", (size + _FLOAT32) * gradients)


def _activations(model: CambrianForConditionalGeneration, batch: MicroBatch, setting: Setting) -> Iterator[Component]:
    reach = follow_gradients(model)
    with FakeTensorMode():
        encoders, block_again = _of_encoders(model, setting)
        connector = _of_connector(model, setting, reach)
        layers, layer_again = _of_layers(model, batch, setting, reach)
    yield Component("frozen encoders at work", _of_frozen_encoders(model, batch, setting), "encoding")
    yield Component("activations of encoders", batch.images * encoders.of_batch, "kept")
    yield Component("activations of the connector", batch.images * connector.of_batch, "kept")
    yield Component("activations of the decoder", layers.of_batch, "kept")
    if setting.precision != "fp32" and setting.strategy == "ddp":  # sharded weights are given back after each use
        copies = encoders.of_weights + connector.of_weights + layers.of_weights
        yield Component("weights in 16 bits, for the backward pass", copies, "kept")
    yield Component("a decoder layer computed again", layer_again, "backward")
    yield Component("an encoder's block computed again", batch.images * block_again, "backward")
    yield _logits(model, batch, setting)


def _logits(model: CambrianForConditionalGeneration, batch: MicroBatch, setting: Setting) -> Component:
    vocabulary = cast(nn.Linear, model.get_output_embeddings()).out_features
    num_bytes = _LOGIT_BYTES[setting.precision] * vocabulary
    if setting.loss.implementation == "whole":
        return Component("logits", num_bytes * batch.rows * batch.row_tokens, "kept")
    return Component("logits", num_bytes * min(batch.supervised, setting.loss.chunk_tokens), "backward")


class _Held(NamedTuple):
    """Bytes that autograd keeps.

    Attributes:
        of_batch: Those that grow with the batch.
        of_weights: Copies of weights in 16 bits.
    """

    of_batch: float = 0.0
    of_weights: float = 0.0

    def __add__(self, other: "_Held") -> "_Held":  # type: ignore[override]
        return _Held(*(a + b for a, b in zip(self, other, strict=True)))

    def __sub__(self, other: "_Held") -> "_Held":
        return _Held(*(a - b for a, b in zip(self, other, strict=True)))

    def times(self, units: float, modules: int = 1) -> "_Held":
        """Returns what so many modules keep of so many units each."""
        return _Held(self.of_batch * units * modules, self.of_weights * modules)


def _of_encoders(model: CambrianForConditionalGeneration, setting: Setting) -> tuple[_Held, float]:
    """Returns what trained encoders keep of a picture, and the most that one of their blocks needs if made again."""
    held, again = _Held(), 0.0
    checkpointed = "vision_encoders" in setting.checkpointed
    for encoder in model.encoders:
        if not setting.has_pixels or not is_trained(encoder):
            continue
        whole = _of_encoder(encoder, setting, checkpointed=False)
        if checkpointed:
            depth = max(len(m) for m in encoder.modules() if isinstance(m, nn.ModuleList | nn.Sequential))
            again = max(again, whole.of_batch / depth)
        held += _of_encoder(encoder, setting, checkpointed=True) if checkpointed else whole
    return held, again


def _of_encoder(encoder: VisionEncoder, setting: Setting, checkpointed: bool) -> _Held:
    fake, side = _fake(encoder, setting.dtype).train(), encoder.config.image_side
    if checkpointed:
        fake.checkpoint_activations()
    return _measure(fake, lambda images: fake(torch.zeros(images, 3, side, side)), setting)


def _of_frozen_encoders(model: CambrianForConditionalGeneration, batch: MicroBatch, setting: Setting) -> float:
    """Returns what the largest single operation of a frozen encoder reads and writes; it keeps nothing."""
    frozen = [e for e in model.encoders if not is_trained(e) and e.config.library != "precomputed"]
    if not setting.has_pixels or not batch.images:
        return 0.0
    configs = [json.dumps(asdict(encoder.config), sort_keys=True) for encoder in frozen]
    is_low = setting.precision != "fp32"
    return max((_largest_operation(config, batch.images, is_low) for config in configs), default=0.0)


@functools.cache
def _largest_operation(config: str, images: int, is_low: bool) -> float:
    """Returns the bytes of an encoder's largest operation; `config` as JSON, `is_low` for 16 bits."""
    values = parse_spec(VisionEncoderConfig, json.loads(config), "encoder")
    with torch.device("meta"):
        encoder = build_vision_encoder(values).eval()
    with FakeTensorMode(), torch.no_grad(), _autocast(is_low):
        fake, pixels = _fake(encoder, torch.float32), torch.zeros(images, 3, values.image_side, values.image_side)
        with _Largest() as largest:
            fake(pixels)
    return largest.num_bytes


class _Largest(TorchDispatchMode):
    """Remembers the operation that reads and writes the most bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, output)) if isinstance(leaf, Tensor)]
        storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
        self.num_bytes = max(self.num_bytes, sum(storages.values()))
        return output


def _of_connector(model: CambrianForConditionalGeneration, setting: Setting, reach: Reach) -> _Held:
    """Returns what the connector keeps of a square picture, with what it hands to SVA blocks in the decoder."""
    fake = _fake(model.connector, setting.dtype)

    def run(images: int) -> Any:
        features = [
            torch.zeros(images, config.num_tokens, config.width, dtype=setting.dtype, requires_grad=is_trained(encoder))
            for config, encoder in zip(model.config.encoders, model.encoders, strict=True)
        ]
        return fake(features, [(1, 1)] * images)

    held = _measure(fake, run, setting)
    if not any(reach.ends[layer] for layer in model.in_llm_layers):
        return held
    context = run(1).context
    return held + _Held(sum(tensor.nbytes for tensor in (*context.features, *context.masks)))


def _of_layers(
    model: CambrianForConditionalGeneration, batch: MicroBatch, setting: Setting, reach: Reach
) -> tuple[_Held, float]:
    """Returns what all decoder layers keep, and the most that one of them needs when it is computed again.

    Layers that are alike are measured once.
    """
    layers = decoder_layers(model.language_model)
    cells = batch.images * model.config.grid_side**2
    checkpointed = "language_model" in setting.checkpointed
    kinds: dict[Any, list[int]] = {}
    for number, layer in enumerate(layers):
        kinds.setdefault(_kind(layer, reach, number), []).append(number)
    nothing = _of_decoder(model, [], reach.embeddings, batch.row_tokens, setting, checkpointed=False)
    total, again = nothing.times(batch.rows), 0.0
    for (number, *_), count in ((members, len(members)) for members in kinds.values()):
        if not reach.ends[number]:
            continue
        entered = reach.ends[number - 1] if number else reach.embeddings
        decoder = (model, [layers[number]], entered, batch.row_tokens, setting)
        whole = (_of_decoder(*decoder, checkpointed=False) - nothing).times(batch.rows)
        if (block := getattr(layers[number], BLOCK, None)) is not None:
            whole += _of_block(model, block, reach, reach.layers[number], setting).times(cells)
        if checkpointed:
            again = max(again, sum(whole))
            whole = (_of_decoder(*decoder, checkpointed=True) - nothing).times(batch.rows)
        total += whole.times(1, count)
    return total, again


def _kind(layer: nn.Module, reach: Reach, number: int) -> Any:
    """Returns what two decoder layers have in common that keep the same."""
    parameters = tuple((name, tuple(p.shape), p.requires_grad) for name, p in layer.named_parameters())
    entered = reach.ends[number - 1] if number else reach.embeddings
    return type(layer), parameters, entered, reach.ends[number]


def _of_decoder(
    model: CambrianForConditionalGeneration,
    layers: list[nn.Module],
    reached: bool,
    row_tokens: int,
    setting: Setting,
    checkpointed: bool,
) -> _Held:
    """Returns what a decoder of these layers alone keeps of a row."""
    whole = model.language_model
    shared: dict[int, Any] = {}
    copy.deepcopy(whole.config, shared)  # so that all parts of the copy have one configuration
    few = nn.ModuleList(_fake(layer, setting.dtype, shared) for layer in layers)
    language_model = _fake(whole, setting.dtype, {**shared, id(decoder_layers(whole)): few}).train()
    has_mask = setting.attention in ("eager", "sdpa")  # the others compute with the boundaries of documents
    language_model.set_attn_implementation(setting.attention if has_mask else "sdpa")
    if checkpointed:
        language_model.activation_checkpointing_enable()
        language_model.disable_input_require_grads()
    more = {"vision_context": None} if model.in_llm_layers else {}

    def run(rows: int) -> Any:
        shape = (rows, row_tokens, whole.config.get_text_config().hidden_size)
        embeds = torch.zeros(shape, dtype=setting.dtype, requires_grad=reached)
        mask = torch.ones(rows, 1, row_tokens, row_tokens, dtype=torch.bool)
        positions = torch.arange(row_tokens).expand(rows, -1)
        decoder = language_model.get_decoder()
        return decoder(inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False, **more)

    return _measure(language_model, run, setting, left_out=None if has_mask else (row_tokens, row_tokens))


def _of_block(
    model: CambrianForConditionalGeneration, block: nn.Module, reach: Reach, reached: bool, setting: Setting
) -> _Held:
    """Returns what an SVA block in the decoder keeps of a visible cell, but for the features, which blocks share."""
    fake, config = _fake(block, setting.dtype), model.config
    width = fake.norm.normalized_shape[0]
    windows = [(encoder.grid_side // config.grid_side) ** 2 for encoder in config.encoders]

    def run(cells: int) -> Any:
        shapes = [*((cells, window, width) for window in windows), (1, width)]
        *features, summary = (
            torch.zeros(shape, dtype=setting.dtype, requires_grad=is_reached)
            for shape, is_reached in zip(shapes, reach.context, strict=True)
        )
        masks = tuple(torch.ones(cells, window, dtype=torch.bool) for window in windows)
        context = VisualContext(tuple(features), masks, summary, torch.zeros(cells, dtype=torch.long))
        shape = (cells, config.get_text_config().hidden_size)
        queries = torch.zeros(shape, dtype=setting.dtype, requires_grad=reached)
        return fake(queries, context), (*features, *masks)

    return _measure(fake, run, setting)


def _measure(
    module: nn.Module, run: Callable[[int], Any], setting: Setting, left_out: tuple[int, int] | None = None
) -> _Held:
    """Returns what is kept of every unit (row, picture, cell) that `run` computes.

    Args:
        module: Has the weights, which are kept anyway.
        run: Computes so many units. What it returns as a second item is not counted: others keep it too.
        setting: Of the run.
        left_out: The last two sizes of a mask that this run does without.
    """
    weights = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
    one, two = (_bytes(run, units, setting, left_out, weights) for units in (1, 2))
    return _Held(two - one, 2 * one - two)


def _bytes(
    run: Callable[[int], Any], units: int, setting: Setting, left_out: tuple[int, int] | None, weights: set[int]
) -> int:
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        is_mask = left_out is not None and tensor.ndim == 4 and tuple(tensor.shape[-2:]) == left_out
        if not is_mask:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    keeping = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.enable_grad(), _autocast(setting.precision != "fp32"), keeping:
        output = run(units)
    elsewhere = weights | {tensor.untyped_storage()._cdata for tensor in (output[1] if type(output) is tuple else ())}
    return sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in elsewhere)


def _autocast(is_low: bool) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=is_low)


def _fake(module: nn.Module, dtype: torch.dtype, replaced: Mapping[int, Any] = MappingProxyType({})) -> Any:
    """Copies a module without its numbers, inside of a `FakeTensorMode`; `replaced` has what takes a part's place."""
    memo = dict(replaced)
    for parameter in module.parameters():
        empty = torch.empty(parameter.shape, dtype=dtype if parameter.is_floating_point() else parameter.dtype)
        memo[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty(buffer.shape, dtype=buffer.dtype)
    return copy.deepcopy(module, memo)
