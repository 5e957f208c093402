"""Tensors of all ranks in one folder of safetensors, by torch.distributed.checkpoint's planners and its HF storage.

Each rank writes what it holds, of what several hold one does; any number of ranks reads it back.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.checkpoint import (
    DefaultLoadPlanner,
    DefaultSavePlanner,
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.metadata import MetadataIndex, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, WriteItem
from torch.distributed.tensor import DTensor

from cambrian_model.training.ranks import Ranks

# A rank begins another file beyond this. Each is put together in memory at a stretch, while Python does nothing else:
# in one file of 288 MB the training stood still for 2 s, in pieces of 64 MB for 0.2 s (two busy cores).
FILE_BYTES = 1 << 26


class Staged(NamedTuple):
    """What this rank writes: torch's plan of it, and the tensors on the CPU."""

    plan: SavePlan
    tensors: Mapping[MetadataIndex, Tensor]


class _StagedPlanner(DefaultSavePlanner):
    """Gives the writer the tensors that were staged."""

    def __init__(self, staged: Staged) -> None:
        super().__init__()
        self._staged = staged

    def resolve_data(self, write_item: WriteItem) -> Tensor:
        return self._staged.tensors[write_item.index]


def stage_tensors(tensors: Mapping[str, Tensor], ranks: Ranks) -> Staged:
    """Copies to the CPU what this rank has to write: its shards.

    What every rank has whole is rank 0's: running statistics too, which the others may have summed up differently.
    """
    mine = {name: tensor for name, tensor in tensors.items() if _is_mine(tensor, ranks.rank)}
    planner = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(mine, is_coordinator=ranks.rank == 0)
    plan = planner.create_local_plan()
    copies = {item.index: _copy(planner.resolve_data(item)) for item in plan.items}
    if torch.cuda.is_available():
        torch.cuda.current_stream().synchronize()
    return Staged(plan, copies)


def _copy(tensor: Any) -> Tensor:
    """Begins to copy a tensor to the CPU; from a GPU into pinned memory, so that one wait serves all copies."""
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return copy.copy_(tensor.detach(), non_blocking=True)


def _is_mine(tensor: Tensor, rank: int) -> bool:
    """Tells whether this rank writes its part of a tensor: a part that several ranks have, the first of them writes."""
    if not isinstance(tensor, DTensor):
        return rank == 0
    coordinate = tensor.device_mesh.get_coordinate()
    if coordinate is None or not tensor.to_local().numel():
        return False
    places = zip(coordinate, tensor.placements, strict=True)
    return all(position == 0 for position, placement in places if placement.is_replicate())


def write_tensors(folder: Path, staged: Staged, ranks: Ranks) -> list[Path]:
    """Writes this rank's tensors and returns its files.

    Raises:
        OSError: The disk is full, or a file cannot be written.
    """
    files = _divide(staged)
    writer = HuggingFaceStorageWriter(str(folder), fqn_to_index_mapping=files, save_distributed=True)
    writer.set_up_storage_writer(is_coordinator=ranks.rank == 0)
    plan = writer.prepare_local_plan(staged.plan)
    # The writer names files by the position of a plan among those of all ranks.
    plan = writer.prepare_global_plan([SavePlan([])] * ranks.rank + [plan])[-1]
    results = writer.write_data(plan, _StagedPlanner(staged)).wait()
    return [folder / name for name in sorted({result.storage_data.relative_path for result in results})]


def _divide(staged: Staged) -> dict[str, int]:
    """Returns for every name the number of the file it goes to, from 1."""
    files: dict[str, int] = {}
    filled = 0
    for index, tensor in staged.tensors.items():
        files[index.fqn] = 1 + filled // FILE_BYTES
        filled += tensor.nbytes
    return files


class TensorFacts(NamedTuple):
    """A tensor as it is stored."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> "TensorFacts":
        """Returns the facts of a tensor, whole or sharded."""
        return cls(tuple(tensor.shape), tensor.dtype)

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}{list(self.shape)}"


class StoredTensors:
    """What `write_tensors` wrote, of which only the heads of the files are read at first.

    Attributes:
        facts: Whole shape and type of every tensor, by name.

    Raises:
        SafetensorError: A file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._reader = HuggingFaceStorageReader(str(folder))
        self._metadata = self._reader.read_metadata()
        self.facts: dict[str, TensorFacts] = {}
        for name, found in self._metadata.state_dict_metadata.items():
            assert isinstance(found, TensorStorageMetadata)
            self.facts[name] = TensorFacts(tuple(found.size), found.properties.dtype)

    def read_into(self, targets: dict[str, Any]) -> None:
        """Reads what this rank holds of each tensor, in place, however many ranks wrote it.

        Args:
            targets: Tensors, whole or sharded, with exactly the names, shapes and types of the stored ones.

        Raises:
            SafetensorError: A file is damaged.
        """
        planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
        planner.set_up_planner(targets, self._metadata)
        self._reader.set_up_storage_reader(self._metadata, is_coordinator=False)
        plan = planner.finish_plan(self._reader.prepare_local_plan(planner.create_local_plan()))
        with torch.no_grad():
            self._reader.read_data(plan, planner).wait()
