"""LoRA: small trained matrices beside the language model's frozen linear layers, through peft; QLoRA with bitsandbytes.

peft injects them in place, so that the model keeps its class, and all names but the wrapped layers' ("x.weight" becomes
"x.base_layer.weight"). What leaves a run is a plain checkpoint: `plain_weights` and `merge_adapters` add them up.
"""

import copy
import importlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from cambrian_model.errors import TrainingError
from cambrian_model.language.adapters import BLOCK
from cambrian_model.language.aggregation import decoder_layers
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.training.distributed import is_sharded, rank, whole
from cambrian_model.training.parts import ADAPTER, Part, part_of
from cambrian_model.training.recipe.stage import AdaptersSection

NAME = "default"  # of the only adapter, in peft's terms
WRAPPED = ".base_layer"  # what peft calls the layer that an adapter sits on
BLOCK_WIDTH = 64  # weights of "nf4" that share a scale
OUTLIERS = 6.0  # LLM.int8 keeps larger activations out of the 8-bit product (arXiv:2208.07339, section 3.2)
WHOLE_MODULES: dict[Part, str] = {"projector": "connector", "sva": "connector", "in_llm": BLOCK}  # names for peft


def is_adapter(name: str) -> bool:
    """Tells an adapter's parameter by its name."""
    return ADAPTER in name


def add_adapters(model: CambrianForConditionalGeneration, options: AdaptersSection) -> None:
    """Adds adapters that change nothing yet, in float32, and freezes the language model around them.

    All other parts, the SVA blocks inside the language model among them, stay as trainable as they were. The first
    matrix of an adapter is drawn from torch's global generator.

    Args:
        model: Before it is sharded or wrapped; on the meta device as well.
        options: Of the stage.

    Raises:
        ConfigError: The language model has no linear layer of a name that `options.targets` gives.
        TrainingError: peft is not installed.
    """
    assert not any(is_adapter(name) for name, _ in model.named_parameters()), "the model has adapters already"
    peft = _import("peft", "train")
    was_trained = [(name, parameter, parameter.requires_grad) for name, parameter in model.named_parameters()]
    config = peft.LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=model.lora_target_modules(*(options.targets or ())),
    )
    peft.inject_adapter_in_model(config, model)
    for name, parameter, is_trained in was_trained:  # peft freezes everything but its own
        parameter.requires_grad_(is_trained and part_of(name) != "language_model")
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            parameter.data = parameter.data.float()  # steps are too small for a half-precision weight to take


def quantize_language_model(
    model: CambrianForConditionalGeneration,
    kind: Literal["nf4", "int8"],
    compute_dtype: torch.dtype,
    device: torch.device | None = None,
) -> None:
    """Stores the weights of the decoder layers' own linear layers in 4 or 8 bits, frozen; adapters come after.

    Embeddings, head, norms, SVA blocks, connector and encoders stay as they are; so do experts that a language model
    keeps in one tensor. "nf4" is QLoRA's, with scales in 8 bits (arXiv:2305.14314); "int8" is LLM.int8.

    Args:
        model: With its weights, before it has adapters and before it is sharded or wrapped.
        kind: See above.
        compute_dtype: Of the products of "nf4"; "int8" takes its input's on a CPU, and float16 elsewhere.
        device: Where the quantized layers go, one after another; by default each stays where it is.

    Raises:
        TrainingError: bitsandbytes is not installed or cannot compute on the device, a layer's width does not suit
            "nf4", or there is nothing to quantize.
    """
    bitsandbytes = _import("bitsandbytes", "qlora")
    # It would say of every product that its input is not float16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    found = _projections(model)
    if kind == "nf4":
        _check_widths(found)
    for path, linear in found.items():
        to = device or linear.weight.device
        try:
            model.set_submodule(path, _quantized(bitsandbytes, linear, kind, compute_dtype, to))
        except (RuntimeError, NotImplementedError) as error:
            raise TrainingError(
                f"bitsandbytes {bitsandbytes.__version__} cannot quantize to {kind} on {to}: {error}; "
                "set adapters.quantize=null, or run where it can"
            ) from error


def check_shardable(model: nn.Module) -> None:
    """Checks, before FSDP2 shards a model, that bitsandbytes can compute with shards of it; it can with "nf4".

    Raises:
        TrainingError: It holds weights in "int8", of which bitsandbytes keeps a whole copy outside of the parameter.
    """
    if found := next((name for name, parameter in model.named_parameters() if parameter.dtype == torch.int8), None):
        raise TrainingError(
            f"{found} is quantized to int8, which cannot be sharded; set adapters.quantize=nf4 or null, "
            "or parallel.strategy=ddp"
        )


def plain_weights(model: CambrianForConditionalGeneration) -> Iterator[tuple[str, Tensor]]:
    """Yields what a checkpoint holds, adapters merged and quantized weights at the precision of the others.

    The model stays as it is. Of a sharded one, every rank must take every tensor, and gets it whole.

    Yields:
        Name and tensor, under the names of a model without adapters; of tied tensors the first.
    """
    saved = model.state_dict().keys()
    dtype = _dtype(model)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name not in saved or is_adapter(name):
            continue
        path, _, kind = name.rpartition(".")
        owner = model.get_submodule(path.removesuffix(WRAPPED))
        if kind == "weight" and _is_changed(owner):
            tensor = _merged_weight(owner, dtype)
        elif kind == "bias" and _is_changed(owner):
            tensor = tensor.to(dtype)  # bitsandbytes casts it to its input's
        yield name.replace(f"{WRAPPED}.", "."), whole(tensor.detach())


def merge_adapters(model: CambrianForConditionalGeneration) -> None:
    """Adds the adapters to the weights that they sit on and removes them; quantized layers become plain ones.

    Args:
        model: Not sharded; see `plain_weights` for one that is.
    """
    assert not is_sharded(model), "the parameters of a sharded model cannot be replaced"
    dtype = _dtype(model)
    changed = [(path, module) for path, module in model.named_modules() if _is_changed(module)]
    for path, module in changed:
        if not path.endswith(WRAPPED):
            model.set_submodule(path, _merged(module, dtype))
    if hasattr(model, "peft_config"):
        del model.peft_config


def save_adapters(model: CambrianForConditionalGeneration, folder: Path, base: str | None = None) -> None:
    """Writes the adapters as peft does, for `PeftModel.from_pretrained(base_model, folder)`.

    A connector, and SVA blocks inside the language model, that are trained beside them are written too, whole, as
    peft's `modules_to_save`.

    Args:
        model: Every rank calls this; the first one writes.
        folder: Made if it is not there.
        base: Where the model that the adapters belong to is found, for the note in `adapter_config.json`.

    Raises:
        TrainingError: Parts are trained that have no place in an adapter.
    """
    modules = _modules_to_save(model)
    config = copy.copy(model.peft_config[NAME])
    config.inference_mode = True
    config.base_model_name_or_path = base
    config.modules_to_save = modules or None
    saved = model.state_dict().keys()
    named = [*model.named_parameters(), *model.named_buffers()]
    tensors = {
        f"base_model.model.{name.replace(f'.{NAME}.', '.')}": whole(tensor.detach()).cpu().contiguous()
        for name, tensor in named
        if is_adapter(name) or (name in saved and set(modules) & set(name.split(".")))
    }
    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        config.save_pretrained(str(folder))
        save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})


def _modules_to_save(model: nn.Module) -> list[str]:
    trained = {part_of(name) for name, parameter in model.named_parameters() if parameter.requires_grad}
    if odd := sorted(trained - {"adapters", *WHOLE_MODULES}):
        raise TrainingError(
            f"{', '.join(odd)} is trained beside the adapters, and an adapter of peft cannot hold it; "
            "export the merged model instead"
        )
    return sorted({WHOLE_MODULES[part] for part in trained if part in WHOLE_MODULES})


def _import(package: str, extra: str) -> Any:
    """Imports what is large and not needed without adapters; peft imports bitsandbytes too, where that is installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise TrainingError(
            f"this stage's adapters need the package {package}, which cannot be imported ({error}); "
            f'install it: pip install "cambrian-model[{extra}]"'
        ) from error


def _projections(model: CambrianForConditionalGeneration) -> dict[str, nn.Linear]:
    layers = {id(module) for layer in decoder_layers(model.language_model) for module in layer.modules()}
    found = {
        path: module
        for path, module in model.named_modules()
        if id(module) in layers and isinstance(module, nn.Linear) and BLOCK not in path.split(".")
    }
    if not found:
        raise TrainingError(
            f"{type(model.language_model).__name__} has no linear layers to quantize; set adapters.quantize=null"
        )
    return found


def _check_widths(projections: Mapping[str, nn.Linear]) -> None:
    # bitsandbytes quantizes blocks of the flattened matrix, but its kernels of a CPU read blocks of each row.
    for path, linear in projections.items():
        if linear.in_features % BLOCK_WIDTH:
            raise TrainingError(
                f"{path} takes {linear.in_features} features, and nf4 needs a multiple of {BLOCK_WIDTH}; "
                "set adapters.quantize=int8, or null"
            )


def _quantized(
    bitsandbytes: Any, linear: nn.Linear, kind: str, compute_dtype: torch.dtype, device: torch.device
) -> nn.Linear:
    sizes = (linear.in_features, linear.out_features, linear.bias is not None)
    weight = linear.weight.detach().cpu()  # bitsandbytes quantizes on the way from here to the device
    if kind == "nf4":
        new = bitsandbytes.nn.Linear4bit(*sizes, compute_dtype=compute_dtype, quant_type="nf4", device="meta")
        new.weight = bitsandbytes.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", module=new)
        # On some CPUs it would repack the weights in evaluation, for a product without gradients, also in training.
        new.support_avx512bf16_for_cpu = False
    else:
        new = bitsandbytes.nn.Linear8bitLt(*sizes, has_fp16_weights=False, threshold=OUTLIERS, device="meta")
        new.weight = bitsandbytes.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    new.bias = linear.bias
    return new.to(device).train(linear.training)


def _is_changed(module: nn.Module) -> bool:
    """Tells whether an adapter sits on a layer, or it is quantized."""
    return hasattr(module, "base_layer") or (isinstance(module, nn.Linear) and not module.weight.is_floating_point())


def _dtype(model: CambrianForConditionalGeneration) -> torch.dtype:
    """Returns the precision of the weights that are never quantized."""
    return next(model.get_input_embeddings().parameters()).dtype


def _merged(module: nn.Module, dtype: torch.dtype) -> nn.Linear:
    base: Any = getattr(module, "base_layer", module)
    weight = nn.Parameter(_merged_weight(module, dtype), requires_grad=False)
    if base.weight.is_floating_point():
        base.weight = weight
        return base
    plain = nn.Linear(base.in_features, base.out_features, bias=False, device="meta")
    plain.weight = weight
    if base.bias is not None:
        plain.bias = nn.Parameter(base.bias.detach().to(dtype), requires_grad=False)
    return plain.train(module.training)


def _merged_weight(module: Any, dtype: torch.dtype) -> Float[Tensor, "out_width in_width"]:
    base = getattr(module, "base_layer", module)
    weight = whole(base.weight.detach())
    if not weight.is_floating_point():
        weight = _dequantized(base, weight).to(dtype)
    if module is base:
        return weight
    down, up = (whole(adapter[NAME].weight.detach()).float() for adapter in (module.lora_A, module.lora_B))
    return (weight.float() + module.scaling[NAME] * (up @ down)).to(weight.dtype)


def _dequantized(base: Any, weight: Tensor) -> Float[Tensor, "out_width in_width"]:
    functional = _import("bitsandbytes.functional", "qlora")
    if weight.dtype == torch.uint8:
        return functional.dequantize_4bit(weight, base.quant_state)
    scales = base.state.SCB if base.state.SCB is not None else base.weight.SCB  # the first forward moves them
    return functional.int8_vectorwise_dequant(weight, scales)
