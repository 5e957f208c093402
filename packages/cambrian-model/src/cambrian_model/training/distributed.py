"""Several processes as one run: which devices and precision, how the model is spread, and sums over all ranks.

One process is the same code with sums over itself. DDP holds the whole model on every device. FSDP2 (and HSDP, which
is FSDP2 within groups of devices) shards it by decoder layer, encoder and connector.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel

from cambrian_model.errors import TrainingError
from cambrian_model.language.aggregation import decoder_layers
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.training.launch_environment import export_launch
from cambrian_model.training.recipe.engine import ParallelSection
from cambrian_model.training.recipe.recipe import Recipe

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
PATIENCE = timedelta(hours=2)  # how long ranks wait for one that measures data, or writes
BYTES_OF_STATE = 16  # per trained parameter: weight, gradient and both running averages, in float32


def start_accelerator(recipe: Recipe) -> Accelerator:
    """Joins the other processes of the run, if there are any, and chooses device and precision.

    Raises:
        TrainingError: The recipe's device is not there, or cannot compute in its precision.
    """
    export_launch(os.environ)
    device = _device(recipe)
    _check_precision(device, recipe.precision)
    # accelerate keeps one state per process and refuses a second run in another precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    patience = InitProcessGroupKwargs(timeout=PATIENCE)
    return Accelerator(cpu=device == "cpu", mixed_precision=MIXED[recipe.precision], kwargs_handlers=[patience])


def _device(recipe: Recipe) -> str:
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if recipe.device == "auto":
        return next(device for device, is_there in available.items() if is_there)
    if not available[recipe.device]:
        there = ", ".join(device for device, is_there in available.items() if is_there)
        raise TrainingError(
            f'the recipe asks for device "{recipe.device}", which this machine lacks (it has {there}); '
            "add --set device=auto, or run it where one is"
        )
    return recipe.device


def _check_precision(device: str, precision: str) -> None:
    lacks = {
        "fp16": device == "cpu",
        "bf16": device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False),
        "fp32": False,
    }
    if lacks[precision]:
        others = ", ".join(name for name, is_lacking in lacks.items() if not is_lacking)
        raise TrainingError(
            f"precision is {precision}, which {_called(device)} cannot compute in; add --set precision=VALUE with one "
            f"of {others}"
        )


def _called(device: str) -> str:
    return f"this GPU ({torch.cuda.get_device_name()})" if device == "cuda" else f'device "{device}"'


def rank() -> int:
    """Returns this process's number among those of the run."""
    return dist.get_rank() if dist.is_initialized() else 0


def num_ranks() -> int:
    """Returns how many processes the run has."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wait_for_all() -> None:
    """Waits until every rank is here."""
    if num_ranks() > 1:
        dist.barrier()


def sum_over_ranks(values: Sequence[float], device: torch.device) -> list[float]:
    """Returns every value summed over all ranks, in float64."""
    if num_ranks() == 1:
        return list(values)
    on = device if device.type != "mps" else torch.device("cpu")
    total = torch.tensor(values, dtype=torch.float64, device=on)
    dist.all_reduce(total)
    return total.tolist()


def gather_texts(text: str, device: torch.device, group: dist.ProcessGroup | None = None) -> list[str]:
    """Returns the text of every rank, on every rank; as bytes, for torch's own way with objects is pickle."""
    if num_ranks() == 1:
        return [text]
    content = torch.frombuffer(bytearray(text.encode() + b"\n"), dtype=torch.uint8).to(device)  # never empty
    sizes = _gather(torch.tensor([len(content)], device=device), group)
    padded = torch.zeros(int(max(sizes)), dtype=torch.uint8, device=device)
    padded[: len(content)] = content
    texts = zip(_gather(padded, group), sizes, strict=True)
    return [text[: int(size) - 1].cpu().numpy().tobytes().decode() for text, size in texts]


def _gather(tensor: Tensor, group: dist.ProcessGroup | None) -> list[Tensor]:
    tensors = [torch.zeros_like(tensor) for _ in range(num_ranks())]
    dist.all_gather(tensors, tensor, group=group)
    return tensors


@contextmanager
def together(what: str, device: torch.device) -> Iterator[None]:
    """Lets no rank go on alone: an error on one is raised on all, so that none waits for it forever.

    Raises:
        TrainingError: Another rank failed at `what`.
    """
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        reasons = gather_texts((str(failure) or type(failure).__name__) if failure else "", device)
        if failure is None and (reason := next((reason for reason in reasons if reason), None)):
            raise TrainingError(f"{what} failed on rank {reasons.index(reason)}: {reason}")


def parallelize(
    model: CambrianForConditionalGeneration, parallel: ParallelSection, precision: str, device: torch.device
) -> nn.Module:
    """Puts a model on the devices of all ranks; what is trained must be decided before.

    Returns:
        What to call instead of the model: the model itself where there is one process, or where it was sharded in
        place.

    Raises:
        TrainingError: The ranks cannot be divided into the asked replicas.
    """
    if num_ranks() == 1:
        return model.to(device)
    if choose_strategy(model, parallel, device) == "ddp":
        ids = [device.index] if device.type == "cuda" else None
        # A depthwise convolution's gradient has a stride of its own along the axis of length one, which costs nothing.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        return DistributedDataParallel(model.to(device), device_ids=ids, gradient_as_bucket_view=True)
    shard(model, _mesh(parallel, device), DTYPES[precision], parallel.frozen_encoders == "shard", device)
    return model


def choose_strategy(model: nn.Module, parallel: ParallelSection, device: torch.device) -> str:
    """Returns "ddp" or "fsdp"; see `ParallelSection`."""
    if parallel.strategy != "auto" or device.type != "cuda":
        return "fsdp" if parallel.strategy == "fsdp" else "ddp"
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    frozen = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    needed = BYTES_OF_STATE * trained + 4 * frozen
    return "ddp" if needed <= torch.cuda.get_device_properties(device).total_memory / 3 else "fsdp"


def _mesh(parallel: ParallelSection, device: torch.device) -> DeviceMesh:
    ranks = num_ranks()
    if parallel.replicas == 1:
        return init_device_mesh(device.type, (ranks,), mesh_dim_names=("shard",))
    if ranks % parallel.replicas:
        raise TrainingError(
            f"parallel.replicas is {parallel.replicas}, but {ranks} processes cannot be divided into so many groups; "
            f"choose a divisor of {ranks}"
        )
    shape = (parallel.replicas, ranks // parallel.replicas)
    return init_device_mesh(device.type, shape, mesh_dim_names=("replicate", "shard"))


def shard(
    model: CambrianForConditionalGeneration,
    mesh: DeviceMesh,
    dtype: torch.dtype,
    shard_frozen_encoders: bool,
    device: torch.device,
) -> None:
    """Shards a model in place: decoder layers with their SVA blocks, encoders, connector, and the rest, apart.

    Frozen encoders stay whole unless asked: they need no gradients, and a rank without pictures need not run them.
    Weights are gathered in `dtype`; gradients are summed in float32.
    """
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    # Encoders and layers with SVA blocks return views, which is only wrong if somebody writes into them; nobody does.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    whole: set[nn.Parameter] = set()
    for layer in decoder_layers(model.language_model):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    for encoder in model.encoders:
        is_trained = any(parameter.requires_grad for parameter in encoder.parameters())
        if (is_trained or shard_frozen_encoders) and any(True for _ in encoder.parameters()):
            fully_shard(encoder, mesh=mesh, mp_policy=policy)
        else:
            whole.update(encoder.to(device).parameters())
    fully_shard(model.connector, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False, ignored_params=whole)
    register_fsdp_forward_method(model, "generate")


@contextmanager
def synchronizing(model: nn.Module, is_last: bool) -> Iterator[None]:
    """Lets DDP sum gradients only in the last batch of a step; FSDP2 does in every one, which keeps them sharded."""
    if isinstance(model, DistributedDataParallel) and not is_last:
        with model.no_sync():
            yield
    else:
        yield


def plain_model(model: nn.Module) -> CambrianForConditionalGeneration:
    """Returns the model inside of what `parallelize` returned."""
    return model.module if isinstance(model, DistributedDataParallel) else model  # type: ignore[return-value]


def is_sharded(model: nn.Module) -> bool:
    """Tells whether FSDP2 has sharded this model."""
    return isinstance(model, FSDPModule)


def whole(tensor: Tensor) -> Tensor:
    """Returns a sharded tensor whole, on every rank; a plain one as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
