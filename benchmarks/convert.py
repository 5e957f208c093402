"""How fast a released checkpoint converts beside `cp`, and how much memory that takes.

Writes a checkpoint of random bytes in shards, then copies it with `cp` and converts it, in turn, each into a new folder
that is deleted before the next; `cp` is timed with and without waiting for the disk, for a conversion waits. All read
from the page cache. A conversion copies, hashes what it reads, reads back what it wrote and compares the hashes.

    uv run python benchmarks/convert.py --gigabytes 4 --shards 4 --rounds 5 --folder /somewhere/with/room
"""

import argparse
import json
import math
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from cambrian_model.checkpoints.completeness import expected_shapes
from cambrian_model.checkpoints.convert import convert
from cambrian_model.checkpoints.plan import Options
from cambrian_model.checkpoints.released import (
    KeyNames,
    config_from_released,
    text_config_from_released,
)

WIDTHS = (1152, 1024, 1536, 5760)
RELEASED = {
    "model_type": "cambrian_llama",
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "mm_vision_tower_aux_list": ["a", "b", "c", "d"],
    "mm_vision_tower_aux_token_len_list": [576, 576, 576, 9216],
    "mm_projector_type": "sva",
    "vision_hidden_size": 1024,
    "query_num_list": [576],
    "connector_only": False,
    "connector_depth": 3,
    "image_token_len": 576,
    "num_of_vision_sampler_layers": 2,
    "start_of_vision_sampler_layers": 0,
    "stride_of_vision_sampler_layers": 3,
}


def shapes_of(num_layers: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of a released checkpoint with so many decoder layers."""
    released = {**RELEASED, "num_hidden_layers": num_layers}
    config = config_from_released(released, text_config_from_released(released).to_dict(), WIDTHS)
    names = KeyNames.of(config)
    return {names.to_released(name): shape for name, shape in expected_shapes(config).items()}


def random_half(shape: tuple[int, ...]) -> torch.Tensor:
    """Random bytes, so that no disk can store them as nothing."""
    return torch.randint(-(2**15), 2**15, shape, dtype=torch.int16).view(torch.half)


def write_checkpoint(folder: Path, num_bytes: int, num_shards: int) -> None:
    """Writes a checkpoint of about this size in half precision, in shards of about equal size."""
    num_layers = 4
    while sum(2 * math.prod(shape) for shape in shapes_of(num_layers + 1).values()) < num_bytes:
        num_layers += 1
    shapes = list(shapes_of(num_layers).items())
    (folder / "config.json").write_text(json.dumps({**RELEASED, "num_hidden_layers": num_layers}))
    places: dict[str, str] = {}
    total = sum(2 * math.prod(shape) for _, shape in shapes)
    for i in range(num_shards):
        name, part, size = f"model-{i + 1:05d}-of-{num_shards:05d}.safetensors", {}, 0
        while shapes and size < total / num_shards:
            key, shape = shapes.pop()
            part[key] = random_half(shape)
            size += part[key].nbytes
        save_file(part, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def seconds(work: Callable[[], object]) -> float:
    """How long something takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def copy(source: Path, target: Path, wait: bool) -> None:
    """Copies a folder with `cp`, and waits for the disk if asked to."""
    subprocess.run(["cp", "-r", source, target], check=True)
    if wait:
        for file in [*target.iterdir(), target]:
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def measure(source: Path, rounds: int) -> None:
    """Prints the speed of every way, and the memory of the conversion."""
    target = source.with_name("target")
    sizes = [file.stat().st_size for file in source.iterdir()]
    num_bytes, largest = sum(sizes), max(sizes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    ways: dict[str, Callable[[], object]] = {
        "cp": lambda: copy(source, target, wait=False),
        "cp, then wait for the disk": lambda: copy(source, target, wait=True),
        "convert": lambda: convert(source, target, Options(precomputed_encoders=WIDTHS)),
    }
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, work in ways.items():
            copy(source, target, wait=True)  # so that everybody finds memory that was just freed, and an idle disk
            shutil.rmtree(target)
            os.sync()
            taken[way].append(seconds(work))
            shutil.rmtree(target)
    print(f"{num_bytes / 1e9:.2f} GB, largest shard {largest / 1e9:.2f} GB, {rounds} rounds in turn")
    fastest = statistics.median(taken["cp"])
    for way, times in taken.items():
        median = statistics.median(times)
        print(
            f"  {way:<28}{median:7.2f} s ({min(times):.2f} to {max(times):.2f}) {num_bytes / median / 1e9:6.2f} GB/s, "
            f"{fastest / median:.2f} of cp's speed"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"  peak memory {peak / 1e6:.0f} MB, {before / 1e6:.0f} MB before the first conversion (the libraries); "
        f"bound {largest / 1e6 + 500:.0f} MB (largest shard and 500 MB)"
    )


def main() -> None:
    """Reads the arguments and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where to write (three times the size)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        source = Path(name, "source")
        source.mkdir()
        # In a process of its own, whose memory is not that of the conversion.
        write = (source, int(arguments.gigabytes * 1e9), arguments.shards)
        writer = multiprocessing.get_context("spawn").Process(target=write_checkpoint, args=write)
        writer.start()
        writer.join()
        measure(source, arguments.rounds)


if __name__ == "__main__":
    main()
