"""How many floating-point operations a batch takes, part by part; and what a device can do at best.

A multiplication and an addition are two operations; only matrix products and convolutions count. Of the decoder this is
written out below: every matrix multiplies every token, attention every pair of tokens in a document. Encoders and
connector, of any architecture, are run once without numbers (meta device) under torch's own counter: what they cost per
picture does not depend on the picture. The backward pass costs what flows: a product gives one more to the gradient of
a trained matrix, and one more to that of its input if anything below it is trained. So a frozen encoder under a trained
connector has no backward pass, and a frozen language model above it half of one.

What is left out: norms, activations, softmax, positions, the optimizer. Attention counts every pair of its document,
not only those that a causal mask leaves, as FLOP counters and published MFUs do.
"""

import functools
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

from cambrian_model.config import CambrianConfig, VisionEncoderConfig, parse_spec
from cambrian_model.connectors import VisualContext, build_connector
from cambrian_model.connectors.sva import in_llm_block
from cambrian_model.language.adapters import BLOCK
from cambrian_model.language.aggregation import decoder_layers
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.vision import build_vision_encoder
from cambrian_model.vision.base import is_trained

Unit = Literal["tokens", "pairs", "supervised", "images", "cells"]
Loss = Literal["chunked", "liger", "whole"]


class Device(NamedTuple):
    """What a device is published to have.

    Attributes:
        gigabytes: Of memory (the largest version).
        half: Dense TFLOP/s in 16 bits with sums in float32, without sparsity.
        single: The same in float32, without tensor cores.
        has_bf16: Whether bfloat16 is as fast as float16.
    """

    gigabytes: float
    half: float
    single: float
    has_bf16: bool = True


# By what torch.cuda.get_device_name() contains; the first that fits counts. Source: the makers' data sheets.
_DEVICES = {
    "B200": Device(180, 2250, 80),
    "H200": Device(141, 989, 67),
    "GH200": Device(96, 989, 67),
    "H100 PCIe": Device(80, 756, 51),
    "H100 NVL": Device(94, 835, 60),
    "H100": Device(80, 989, 67),
    "H20": Device(96, 148, 44),
    "A100": Device(80, 312, 19.5),
    "A10G": Device(24, 70, 35),
    "A10": Device(24, 125, 31.2),
    "A40": Device(48, 149.7, 37.4),
    "A30": Device(24, 165, 10.3),
    "RTX A6000": Device(48, 154.8, 38.7),
    "L40S": Device(48, 362, 91.6),
    "L40": Device(48, 181, 90.5),
    "L4": Device(24, 121, 30.3),
    "RTX 5090": Device(32, 209.5, 104.8),
    "RTX 4090": Device(24, 165.2, 82.6),
    "RTX 3090": Device(24, 71, 35.6),
    "V100": Device(32, 125, 15.7, has_bf16=False),
    "T4": Device(16, 65, 8.1, has_bf16=False),
    "MI355X": Device(288, 2500, 157.3),
    "MI325X": Device(256, 1307, 163.4),
    "MI300X": Device(192, 1307, 163.4),
    "MI250X": Device(128, 383, 47.9),
}


def find_device(name: str) -> Device | None:
    """Returns what is known of a device; None for an unknown one, as a CPU.

    Args:
        name: As `torch.cuda.get_device_name()` says it, or a part of it ("H100").
    """
    words = f" {name.lower().replace('-', ' ')} "
    return next(
        (device for key, device in _DEVICES.items() if all(f" {word} " in words for word in key.lower().split())), None
    )


def peak_flops(device_name: str, precision: str) -> float | None:
    """Returns what one device can do at best, in operations per second; None where that is not known.

    Args:
        device_name: See `find_device`.
        precision: "bf16", "fp16" or "fp32".
    """
    device = find_device(device_name)
    if device is None or (precision == "bf16" and not device.has_bf16):
        return None
    return (device.single if precision == "fp32" else device.half) * 1e12


@dataclass(frozen=True)
class BatchShape:
    """What a batch holds, as far as its cost depends on it.

    Attributes:
        tokens: That pass the decoder.
        pairs: Of tokens that attend to each other: of each document, or whole row, the square of its length.
        supervised: Tokens whose logits are made.
        images: Pictures.
        cells: Image tokens that show a cell of a picture, newlines left out: the queries of SVA blocks in the decoder.
    """

    tokens: int
    pairs: int
    supervised: int
    images: int = 0
    cells: int = 0

    @classmethod
    def of_rows(cls, rows: int, row_tokens: int, supervised: int, images: int = 0, cells: int = 0) -> "BatchShape":
        """Describes rows as they are computed under a dense mask: padding included, all of a row with all of it."""
        return cls(rows * row_tokens, rows * row_tokens**2, supervised, images, cells)

    @classmethod
    def of_documents(cls, lengths: Sequence[int], supervised: int, images: int = 0, cells: int = 0) -> "BatchShape":
        """Describes samples of so many tokens each, packed or not: every one attends to itself alone."""
        return cls(sum(lengths), sum(length**2 for length in lengths), supervised, images, cells)


class Cost(NamedTuple):
    """Operations of one part of the model for one of what a batch holds.

    Attributes:
        part: As a person calls it.
        unit: What is counted: a field of `BatchShape`.
        forward: In the forward pass.
        backward: In the backward pass, without what is computed a second time.
        recomputed: Of the forward pass, computed again in the backward pass.
    """

    part: str
    unit: Unit
    forward: float
    backward: float
    recomputed: float = 0.0


@dataclass(frozen=True)
class FlopModel:
    """What every part of one model costs, given which of its parameters are trained.

    Attributes:
        costs: Of every part, by what it depends on.
    """

    costs: tuple[Cost, ...]

    @classmethod
    def of(
        cls,
        model: CambrianForConditionalGeneration,
        *,
        checkpointed: Collection[str] = (),
        loss: Loss = "chunked",
        has_pixels: bool = True,
    ) -> "FlopModel":
        """Measures a model whose trained parameters are chosen, before it is sharded; its weights are not looked at.

        Args:
            model: On any device, the meta device too.
            checkpointed: Of "language_model" and "vision_encoders", those whose activations are computed twice.
            loss: As in the recipe: "whole" makes the logits of every token, the others those of supervised ones.
            has_pixels: Whether encoders run at all, which they do not where features are cached.
        """
        costs = list(_encoders(model, "vision_encoders" in checkpointed)) if has_pixels else []
        reach = follow_gradients(model)
        costs.append(reach.connector)
        costs += _decoder(model, reach, "language_model" in checkpointed, loss)
        return cls(tuple(cost for cost in costs if cost.forward))

    def model_flops(self, shape: BatchShape) -> float:
        """Returns the operations of one step that MFU counts: forward and backward, nothing a second time."""
        return sum((cost.forward + cost.backward) * getattr(shape, cost.unit) for cost in self.costs)

    def hardware_flops(self, shape: BatchShape) -> float:
        """Returns the operations that the device carries out: those of `model_flops`, and what is computed again."""
        return self.model_flops(shape) + sum(cost.recomputed * getattr(shape, cost.unit) for cost in self.costs)

    def by_part(self, shape: BatchShape) -> dict[str, tuple[float, float]]:
        """Returns forward and backward operations of every part."""
        parts: dict[str, tuple[float, float]] = {}
        for cost in self.costs:
            forward, backward = parts.get(cost.part, (0.0, 0.0))
            count = getattr(shape, cost.unit)
            parts[cost.part] = (forward + cost.forward * count, backward + cost.backward * count)
        return parts


def encoder_flops(model: CambrianForConditionalGeneration) -> float:
    """Returns the operations of all encoders for one picture, forward."""
    return sum(cost.forward for cost in _encoders(model, checkpointed=False))


class Reach(NamedTuple):
    """Where gradients come back to, from the loss down.

    Attributes:
        connector: What the connector costs for one picture.
        embeddings: Whether they reach what enters the first decoder layer.
        context: Whether they reach the features that SVA blocks in the decoder see, per encoder, and their summary.
        layers: Whether they reach each decoder layer's own work.
        ends: Whether they reach what leaves it, its SVA block included.
    """

    connector: Cost
    embeddings: bool
    context: tuple[bool, ...]
    layers: list[bool]
    ends: list[bool]


def follow_gradients(model: CambrianForConditionalGeneration) -> Reach:
    """Follows the gradients through a model: what lies below all that is trained needs no backward pass."""
    connector = _without_numbers(lambda: build_connector(model.config), model.connector)
    features = [
        torch.zeros(1, config.num_tokens, config.width, device="meta", requires_grad=is_trained(encoder))
        for config, encoder in zip(model.config.encoders, model.encoders, strict=True)
    ]

    def run() -> list[Tensor]:
        cells, context = connector.connect(features, [(1, 1)])
        return [cells, *context.features, context.summary] if context is not None else [cells]

    counted = _count(run)
    reached = counted.reached[0] or connector.newline.requires_grad or is_trained(model.get_input_embeddings())
    reach = Reach(Cost("connector", "images", counted.forward, counted.backward), reached, counted.reached[1:], [], [])
    for layer in decoder_layers(model.language_model):
        own = [parameter for module in own_modules(layer) for parameter in module.parameters(recurse=False)]
        reached = reached or any(parameter.requires_grad for parameter in own)
        reach.layers.append(reached)
        block = getattr(layer, BLOCK, None)
        reached = reached or (block is not None and (any(reach.context) or is_trained(block)))
        reach.ends.append(reached)
    return reach


def own_modules(layer: nn.Module) -> list[nn.Module]:
    """Returns the modules of a decoder layer that are not in its SVA block."""
    return [module for name, module in layer.named_modules() if not f"{name}.".startswith(f"{BLOCK}.")]


def _encoders(model: CambrianForConditionalGeneration, checkpointed: bool) -> Iterator[Cost]:
    for number, encoder in enumerate(model.encoders):
        if encoder.config.library == "precomputed":
            continue
        trained = frozenset(name for name, parameter in encoder.named_parameters() if parameter.requires_grad)
        counted = _count_encoder(json.dumps(asdict(encoder.config), sort_keys=True), trained)
        again = counted.forward if checkpointed else counted.scores  # a fused attention makes its scores again
        name = f"vision encoder {number} ({encoder.config.name})"
        yield Cost(name, "images", counted.forward, counted.backward, again if trained else 0.0)


def _decoder(model: CambrianForConditionalGeneration, reach: Reach, checkpointed: bool, loss: Loss) -> Iterator[Cost]:
    language_model, head = model.language_model, model.get_output_embeddings()
    config, layers = language_model.config.get_text_config(), decoder_layers(language_model)
    blocks: dict[Any, list[Cost]] = {}  # by what they have in common
    yield _products("language model", _outside(language_model, layers, head), config, reach.embeddings, again=False)
    for number, (layer, reached, is_reached_at_end) in enumerate(zip(layers, reach.layers, reach.ends, strict=True)):
        again = checkpointed and is_reached_at_end  # a layer with its block is computed again as a whole
        block = getattr(layer, BLOCK, None)
        last = _last_product(layer, config) if again and block is None else 0.0
        products = _products("language model", own_modules(layer), config, reached, again)
        yield products._replace(recomputed=products.recomputed - last)
        yield _attention(config, number, reached, again)
        if block is not None:
            kind = (frozenset(name for name, p in block.named_parameters() if p.requires_grad), reached, again)
            if kind not in blocks:
                blocks[kind] = list(_block(model.config, block, reached, reach.context, again))
            yield from blocks[kind]
    unit: Unit = "tokens" if loss == "whole" else "supervised"
    matrix, reached = _matrices(head, config), reach.ends[-1]
    # Chunks of logits are thrown away and made again; liger makes gradients while it has them.
    recomputed = matrix if loss == "chunked" and (reached or is_trained(head)) else 0.0
    yield Cost("head", unit, matrix, matrix * (reached + is_trained(head)), recomputed)


def _last_product(layer: nn.Module, config: Any) -> float:
    """Returns what is spared when a layer is computed again: its last product, whose result nothing needs.

    A norm behind it, the weights of experts, or an SVA block do need it.
    """
    own = own_modules(layer)
    is_needed = any("post_feedforward" in name or "post_mlp" in name for name, _ in layer.named_children())
    if is_needed or any(parameter.ndim == 3 for module in own for parameter in module.parameters(recurse=False)):
        return 0.0
    return _matrices([module for module in own if isinstance(module, nn.Linear)][-1], config)


def _outside(language_model: nn.Module, layers: nn.ModuleList, head: nn.Module) -> list[nn.Module]:
    """Returns the modules of a language model that are neither in a layer, nor its head, nor an embedding."""
    known = {id(module) for layer in layers for module in layer.modules()} | {id(head)}
    return [m for m in language_model.modules() if id(m) not in known and not isinstance(m, nn.Embedding)]


def _products(part: str, modules: Sequence[nn.Module], config: Any, reached: bool, again: bool) -> Cost:
    """Returns what the matrices of some modules cost for one token.

    Once a gradient reaches a layer, it is taken to reach the inputs of all its products. That is one product too many
    for the first ones of the lowest layer that is trained, if nothing below it is.
    """
    forward = sum(_matrices(module, config) for module in modules)
    trained = sum(_matrices(module, config, only_trained=True) for module in modules)
    return Cost(part, "tokens", forward, trained + forward * reached, forward * again)


def _matrices(module: nn.Module, config: Any, only_trained: bool = False) -> float:
    """Returns the operations of a module's own matrices for one token: of experts, as many as a token is sent to."""
    if only_trained and not any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
        return 0.0
    if isinstance(module, nn.Linear):  # by its sizes, for a quantised weight has another shape
        return 2.0 * module.in_features * module.out_features
    if isinstance(module, nn.Embedding):
        return 0.0
    parameters = list(module.parameters(recurse=False))
    matrices = sum(2.0 * parameter.numel() for parameter in parameters if parameter.ndim == 2)
    experts = [parameter for parameter in parameters if parameter.ndim == 3]
    return matrices + sum(2.0 * _experts_per_token(config) * x.numel() / len(x) for x in experts)


def _experts_per_token(config: Any) -> int:
    names = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts")
    return next(value for name in names if (value := getattr(config, name, None)))


def _attention(config: Any, layer: int, reached: bool, again: bool) -> Cost:
    """Returns what the scores and the weighted sums of one layer cost for one pair of tokens."""
    kinds = getattr(config, "layer_types", None)
    if kinds and not _attends(kinds[layer]):
        return Cost("attention", "pairs", 0.0, 0.0)
    heads = config.num_attention_heads
    key = getattr(config, "qk_head_dim", None) or getattr(config, "head_dim", None) or config.hidden_size // heads
    value = getattr(config, "v_head_dim", None) or key
    forward = 2.0 * heads * (key + value)
    # Eager attention keeps its scores; all others make them again, also where the whole layer is.
    scores = 0.0 if config._attn_implementation == "eager" else 2.0 * heads * key
    return Cost("attention", "pairs", forward, 2 * forward * reached, scores * reached + forward * again)


def _attends(kind: str) -> bool:
    return "attention" in kind and "linear" not in kind


def _block(
    config: CambrianConfig, block: nn.Module, reached: bool, reached_context: Sequence[bool], again: bool
) -> Iterator[Cost]:
    """Returns what an SVA block in the decoder costs for every visible cell, and for every picture."""
    copy = _without_numbers(lambda: in_llm_block(config), block)
    dim, width = config.get_text_config().hidden_size, copy.norm.normalized_shape[0]
    windows = [(encoder.grid_side // config.grid_side) ** 2 for encoder in config.encoders]

    def count(cells: int) -> "Counted":
        shapes = [*((cells, window, width) for window in windows), (1, width)]
        *features, summary = (
            torch.zeros(shape, device="meta", requires_grad=is_reached)
            for shape, is_reached in zip(shapes, reached_context, strict=True)
        )
        context = VisualContext(
            tuple(features),
            tuple(torch.ones(cells, window, dtype=torch.bool, device="meta") for window in windows),
            summary,
            torch.zeros(cells, dtype=torch.long, device="meta"),
        )
        queries = torch.zeros(cells, dim, device="meta", requires_grad=reached)
        return _count(lambda: [copy(queries, context)])

    one, two = count(1), count(2)
    forward, backward = two.forward - one.forward, two.backward - one.backward  # of one cell more
    costs = {"cells": (forward, backward), "images": (one.forward - forward, one.backward - backward)}
    for unit, (forward, backward) in costs.items():
        yield Cost("SVA blocks in the decoder", cast(Unit, unit), forward, backward, forward * again)


class Counted(NamedTuple):
    """Operations that torch's counter saw.

    Attributes:
        forward: In the forward pass.
        backward: In the backward pass.
        scores: Of the forward pass, half of all products of batches of matrices: the scores of attention.
        reached: Whether a gradient comes back to each output.
    """

    forward: float
    backward: float
    scores: float
    reached: tuple[bool, ...]


@functools.cache
def _count_encoder(config: str, trained: frozenset[str]) -> Counted:
    """Counts the operations of an encoder for one picture; `config` as JSON, `trained` its trained parameters."""
    values = parse_spec(VisionEncoderConfig, json.loads(config), "encoder")
    with torch.device("meta"):
        encoder = build_vision_encoder(values).eval()
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(name in trained)
    pixels = torch.zeros(1, 3, values.image_side, values.image_side, device="meta")
    return _count(lambda: [encoder(pixels)])


def _without_numbers(build: Callable[[], nn.Module], like: nn.Module) -> Any:
    """Builds a module on the meta device; what is trained in `like` is trained in it."""
    with torch.device("meta"):
        module = build()
    trained = {name for name, parameter in like.named_parameters() if parameter.requires_grad}
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in trained)
    return module


def _count(run: Callable[[], list[Tensor]]) -> Counted:
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        outputs = run()
    reached = [output for output in outputs if output.requires_grad]
    forward = counter.get_total_flops()
    scores = counter.get_flop_counts().get("Global", {}).get(torch.ops.aten.bmm, 0) / 2
    with FlopCounterMode(display=False) as counter:
        if reached:
            torch.autograd.backward(reached, [torch.zeros_like(output) for output in reached])
    return Counted(forward, counter.get_total_flops(), scores, tuple(output.requires_grad for output in outputs))


@register_flop_formula(torch.ops.cambrian.window_attend)
def _count_window_attend(q: Sequence[int], *others: Sequence[int], out_shape: Any = None, **more: Any) -> int:
    """Counts one encoder's part of an SVA attention: query to features and back by two matrices, and the window."""
    queries, heads, head_dim = q
    _, window, width = others[4]
    return 2 * queries * heads * width * (2 * head_dim + 2 * window)


@register_flop_formula(torch.ops.cambrian.window_attend_backward)
def _count_window_attend_backward(
    grad: Sequence[int],
    log_sums: Sequence[int],
    q: Sequence[int],
    *others: Sequence[int],
    out_shape: Any = None,
    **more: Any,
) -> int:
    """Counts its backward pass: five products by the matrices of the heads, five within the window."""
    queries, heads, head_dim = q
    _, window, width = others[4]
    return 2 * queries * heads * width * (5 * head_dim + 5 * window)
