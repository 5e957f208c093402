"""What absorbed projections save: an SVA block beside the same block that projects every feature.

Both compute with the same parameters on the same pictures, in turn, in one process, and must agree. A turn is a few
calls, as in training, of which the median counts: the first one still finds the memory as the other left it. Prints the
time of forward and of forward with backward as ratios of every round, their median and its 95 % interval from resampled
rounds; and the bytes that each keeps for its backward pass, without parameters and inputs, and with the inputs.

    uv run python -m benchmarks.sva --rounds 15 --threads 2
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from cambrian_model.connectors.sva import SVABlock
from cambrian_model.connectors.visual_context import VisualContext
from cambrian_model.connectors.window_attention import WindowShape
from tests.support.plain_sva import plain_block

Step = Callable[[], object]
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 0.05, torch.float16: 0.02}  # of the output's size


def make_inputs(options: argparse.Namespace) -> tuple[SVABlock, Tensor, VisualContext]:
    """Builds one block, and queries with their windows; of some windows a part is masked."""
    torch.manual_seed(0)
    device, dtype, width = options.device, getattr(torch, options.dtype), options.width
    queries = options.images * options.grid**2
    block = SVABlock(width, width, [WindowShape(side, width) for side in options.windows], options.heads)
    masks = [torch.rand(queries, side**2, device=device) > 0.2 for side in options.windows]
    masks[0][:] = True
    features = tuple(
        torch.randn(queries, side**2, width, device=device, dtype=dtype).requires_grad_() for side in options.windows
    )
    summary = torch.randn(options.images, width, device=device, dtype=dtype).requires_grad_()
    image_of_query = torch.arange(options.images, device=device).repeat_interleave(options.grid**2)
    context = VisualContext(features, tuple(masks), summary, image_of_query)
    asking = torch.randn(queries, width, device=device, dtype=dtype).requires_grad_()
    return block.to(device, dtype), asking, context


def steps_of(compute: Callable[..., Tensor], block: SVABlock, queries: Tensor, context: VisualContext) -> list[Step]:
    """Returns forward without gradients, and forward with backward."""
    leaves = [queries, *context.features, context.summary, *block.parameters()]

    def forward() -> Tensor:
        with torch.no_grad():
            return compute(queries, context)

    def both() -> object:
        return torch.autograd.grad(compute(queries, context).square().sum(), leaves)

    return [forward, both]


def time_of(step: Step, calls: int, device: str) -> float:
    """Times a turn of calls and returns the median of one, in seconds."""
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        step()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def saved_bytes(compute: Callable[..., Tensor], queries: Tensor, context: VisualContext, kept: set[int]) -> int:
    """Returns the bytes kept for the backward pass, storages in `kept` left out."""
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        compute(queries, context)
    return sum(size for pointer, size in found.items() if pointer not in kept)


def report(name: str, plain: Sequence[float], ours: Sequence[float]) -> None:
    """Prints how many times faster ours is."""
    ratios = np.array(plain) / np.array(ours)
    low, high = stats.bootstrap((ratios,), np.median, rng=0).confidence_interval
    seconds = f"{statistics.median(ours):.4f} s of {statistics.median(plain):.4f} s"
    print(f"{name}: {np.median(ratios):.2f} times as fast (95 % {low:.2f} to {high:.2f}); medians {seconds}")


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 1, 1, 4], help="features per side, per encoder")
    parser.add_argument("--grid", type=int, default=24)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=3, help="of one kind in a turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--compile", action="store_true", help="compile both with torch.compile first")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    block, queries, context = make_inputs(options)
    computes: list[Callable[..., Tensor]] = [partial(plain_block, block), block]
    if options.compile:
        computes = [torch.compile(compute, fullgraph=True) for compute in computes]
    plain, ours = (steps_of(compute, block, queries, context) for compute in computes)
    check(plain[0](), ours[0](), queries.dtype)  # type: ignore[arg-type]
    for i, name in enumerate(["forward", "forward + backward"]):
        plain[i](), ours[i]()
        times: list[list[float]] = [[], []]
        for turn in range(options.rounds):
            order = (0, 1) if turn % 2 else (1, 0)
            for which in order:
                times[which].append(time_of((plain, ours)[which][i], options.calls, options.device))
        report(name, *times)
    if not options.compile:
        parameters = {p.untyped_storage().data_ptr() for p in block.parameters()}
        inputs = {x.untyped_storage().data_ptr() for x in (queries, context.summary, *context.features)}
        for name, kept in (("its own", parameters | inputs), ("its own and inputs", parameters)):
            sizes = [saved_bytes(compute, queries, context, kept) for compute in computes]
            print(f"kept for backward, {name}: {sizes[1] / sizes[0]:.3f} ({sizes[1]:,} of {sizes[0]:,} bytes)")


def check(plain: Tensor, ours: Tensor, dtype: torch.dtype) -> None:
    """Stops if the two differ."""
    difference = ((plain - ours).float().abs().max() / plain.float().square().mean().sqrt()).item()
    print(f"largest difference of outputs, over their size: {difference:.1e}")
    if not difference <= TOLERANCES[dtype]:
        raise SystemExit(f"the two differ by {difference:.1e}, expected at most {TOLERANCES[dtype]:.0e}")


if __name__ == "__main__":
    main()
