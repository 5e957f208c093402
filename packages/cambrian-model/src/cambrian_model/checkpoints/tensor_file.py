"""One file of weights: which tensors it holds and where their bytes lie, read from its header alone.

safetensors' own reader judges a file; byte offsets, which it does not give, come from the same header.
"""

import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from cambrian_model.checkpoints.foreign import reading
from cambrian_model.errors import CheckpointError

METADATA = "__metadata__"
TORCH_SUFFIXES = (".bin", ".pt", ".pth")
LONGEST_HEADER = 100_000_000  # bytes; safetensors' own limit
HEADER_ALIGNMENT = 8  # bytes
# What other files begin with that go by the name of safetensors.
IMPOSTORS = {
    b"PK\x03\x04": "a file of torch.save (a zip of pickles)",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself (run `git lfs pull`)",
}
# safetensors' names of the types.
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class StoredTensor(NamedTuple):
    """One tensor of a file.

    Attributes:
        name: Its key.
        dtype: Its type, as safetensors names it.
        shape: Its shape.
        num_bytes: Its size.
        start: Its first byte in a safetensors file; 0 in a file of torch.save, which is read through torch.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int
    start: int = 0

    @property
    def num_parameters(self) -> int:
        """Its elements."""
        return math.prod(self.shape)


class TensorFile(NamedTuple):
    """What one file of weights holds.

    Attributes:
        path: The file.
        tensors: Its tensors, in the order of their bytes.
        metadata: Free text of a safetensors header.
    """

    path: Path
    tensors: tuple[StoredTensor, ...]
    metadata: Mapping[str, str]

    @property
    def is_safetensors(self) -> bool:
        """Whether its bytes can be copied as they are; a file of torch.save is read through torch."""
        return not is_torch_file(self.path)


def is_torch_file(path: Path) -> bool:
    """Tells, by its name, whether a file was written by torch.save."""
    return path.suffix in TORCH_SUFFIXES


def read_tensor_file(path: Path) -> TensorFile:
    """Reads what a file of weights holds.

    Raises:
        CheckpointError: It is missing, truncated, damaged, or another kind of file than its name says.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected weights")
    if is_torch_file(path):
        state = load_torch_file(path)
        tensors = [StoredTensor(name, dtype_name(x, path), tuple(x.shape), x.nbytes) for name, x in state.items()]
        return TensorFile(path, tuple(tensors), {"format": "pt"})
    header, data_start = _read_header(path)
    # Through numpy, which maps the file to be read; torch would map it to be written, and the machine then wants room.
    with reading(path, "safetensors"), safe_open(path, "np") as file:
        metadata = dict(file.metadata() or {})
    tensors = [
        StoredTensor(name, entry["dtype"], tuple(entry["shape"]), end - start, data_start + start)
        for name, entry in header.items()
        if name != METADATA
        for start, end in [entry["data_offsets"]]
    ]
    return TensorFile(path, tuple(sorted(tensors, key=lambda tensor: (tensor.start, tensor.name))), metadata)


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Returns the header and where the bytes of the tensors begin."""
    size = path.stat().st_size
    with path.open("rb") as file:
        opening = file.read(32)
        for mark, meaning in IMPOSTORS.items():
            if opening.startswith(mark):
                raise CheckpointError(f"{path}: this is {meaning}; expected safetensors")
        length = int.from_bytes(opening[:8], "little")
        if size < 8 or length > LONGEST_HEADER:
            raise CheckpointError(f"{path}: {size} bytes without a safetensors header; expected safetensors")
        if size < 8 + length:
            raise _truncated(path, 8 + length, size)
        file.seek(8)
        text = file.read(length)
    with reading(path, "safetensors"):
        header = json.loads(text, object_pairs_hook=_without_duplicates)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != METADATA]
        whole = 8 + length + max(ends, default=0)
    if size < whole:
        raise _truncated(path, whole, size)
    return header, 8 + length


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'the key "{twice}" stands in it twice')
    return entries


def _truncated(path: Path, whole: int, size: int) -> CheckpointError:
    return CheckpointError(f"{path}: truncated: {whole} bytes by its header, but {size} are there; fetch it again")


def load_torch_file(path: Path) -> dict[str, Tensor]:
    """Maps a file of torch.save into memory: the one place where such a file is read, and as tensors alone.

    Raises:
        CheckpointError: It is damaged, or holds anything but tensors; nothing in it is ever run.
    """
    try:
        with reading(path, "weights of torch.save"):
            # Only the newer form, a zip, can be mapped; the older one is read whole.
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (UnpicklingError, EOFError) as error:
        raise CheckpointError(
            f"{path}: refused: it is damaged, or holds other things than tensors, which could run code "
            f"({str(error).strip().splitlines()[0] if str(error).strip() else 'it ends early'}); ask its author for "
            "safetensors"
        ) from error
    if not isinstance(state, dict) or not all(_is_named_tensor(*item) for item in state.items()):
        odd = [str(k) for k, x in state.items() if not _is_named_tensor(k, x)] if isinstance(state, dict) else []
        raise CheckpointError(
            f"{path}: holds {', '.join(odd[:3]) if odd else type(state).__name__}; expected a dictionary of tensors"
        )
    return dict(state)


def _is_named_tensor(name: object, value: object) -> bool:
    is_dense = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
    return isinstance(name, str) and is_dense


def dtype_name(tensor: Tensor, path: Path) -> str:
    """Returns safetensors' name of a tensor's type.

    Raises:
        CheckpointError: safetensors has none.
    """
    if tensor.dtype not in DTYPES:
        raise CheckpointError(f"{path}: holds {tensor.dtype}; known: {', '.join(map(str, DTYPES))}")
    return DTYPES[tensor.dtype]


def header_bytes(tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str]) -> bytes:
    """Returns the header of a safetensors file that holds these tensors end to end, under the names of the mapping.

    It is spelled as the library spells it, so that a file renamed twice has its first bytes again.
    """
    header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.num_bytes
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
