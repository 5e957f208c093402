"""Training speed on one GPU: a language model of 0.5 billion parameters with SigLIP-SO400M and CLIP-L as its encoders.

All weights are random and of real size. Pictures and text are synthetic, encoded and in memory, packed into full rows,
and go through the engine's own loop in bf16, with the encoders frozen and trained, compiled and not. Prints useful
tokens per second, MFU by the documented model of operations (`training/flops.py`, nothing counted twice), the most
memory, and, of a window of further steps under the profiler, the share of every phase and the longest operations. In
that window the device is waited for between phases, so that none hides behind another.

`--tiny` runs the same code on small parts, on whatever device there is; on a CPU it measures neither MFU nor memory.

    uv run python -m benchmarks.gpu_training --rows 8 --row-tokens 4096 --steps 20
"""

import argparse
import gc
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import profiler
from torch.autograd import DeviceType
from transformers import Qwen2Config

from cambrian_model.config import CambrianConfig, VisionEncoderConfig
from cambrian_model.image_tokens import num_image_tokens
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.processing.processor import CambrianProcessor
from cambrian_model.processing.sample import IGNORED_LABEL, Sample
from cambrian_model.training.batches import Place, StepData
from cambrian_model.training.collate import collate
from cambrian_model.training.distributed import start_accelerator
from cambrian_model.training.flops import BatchShape, FlopModel, peak_flops
from cambrian_model.training.guard import Guard
from cambrian_model.training.loop import Engine, run_steps
from cambrian_model.training.optim import build_optimizer
from cambrian_model.training.recipe import Recipe, load_recipe
from cambrian_model.training.start_model import prepare_model
from cambrian_model.vision.source import describe

FROZEN = ("connector", "in_llm", "language_model")
WARM_UP, PROFILED = 4, 3  # steps
NAMED = 8  # of the longest operations


class Parts(NamedTuple):
    """A Qwen2, vision encoders, and an SVA connector."""

    language: dict[str, Any]
    encoders: list[VisionEncoderConfig]
    connector: dict[str, Any]
    grid_side: int


def real_parts() -> Parts:
    """Returns parts of real size: the language model is Qwen2.5-0.5B's."""
    language = {
        **{"vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24},
        **{"num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768},
        **{"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "rms_norm_eps": 1e-6},
    }
    encoders = [describe({"name": name, "grid_side": 24}).config for name in ("siglip-so400m-384", "clip-l-336")]
    connector = {"width": 1024, "depth": 3, "num_heads": 16, "query_grid_sides": [24]}
    return Parts(language, encoders, {**connector, "in_llm": {"start": 0, "stride": 3, "count": 8}}, 24)


def tiny_parts() -> Parts:
    """Returns parts that a CPU trains in a moment."""
    language = {
        **{"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3},
        **{"num_attention_heads": 4, "num_key_value_heads": 2},
    }
    vit = {"name": "timm:test_vit", "image_side": 64, "grid_side": 4, "model_args": {"img_size": 64}}
    convnext = {"name": "timm:test_convnext", "image_side": 64, "grid_side": 8, "feature_layer": 1}
    connector = {"width": 32, "depth": 1, "num_heads": 4, "query_grid_sides": [4]}
    encoders = [describe(spec).config for spec in (vit, convnext)]
    return Parts(language, encoders, {**connector, "in_llm": {"start": 0, "stride": 1, "count": 2}}, 4)


def build(parts: Parts, device: torch.device) -> CambrianForConditionalGeneration:
    """Returns the model with random weights in float32."""
    torch.manual_seed(0)
    config = CambrianConfig(
        text_config=Qwen2Config(**parts.language, tie_word_embeddings=True),
        vision_encoders=parts.encoders,
        connector=parts.connector,
        grid_side=parts.grid_side,
        image_token_id=parts.language["vocab_size"],
        tie_word_embeddings=True,
    )
    with device:
        return CambrianForConditionalGeneration(config)


def make_sample(parts: Parts, text: int, random: np.random.Generator) -> Sample:
    """Returns one square picture, behind it `text` tokens of which the later half is supervised."""
    picture, vocabulary = num_image_tokens((1, 1), parts.grid_side), parts.language["vocab_size"]
    ids = torch.cat([torch.full((picture,), vocabulary), torch.from_numpy(random.integers(0, vocabulary, text))])
    labels = torch.where(torch.arange(len(ids)) < picture + text // 2, IGNORED_LABEL, ids)
    pixels = [torch.randn(1, 3, encoder.image_side, encoder.image_side) for encoder in parts.encoders]
    return Sample(ids, labels, pixels, torch.tensor([[1, 1]]) * parts.encoders[0].image_side)


def make_row(parts: Parts, row_tokens: int, random: np.random.Generator) -> list[Sample]:
    """Fills a row: three quarters are pictures, and what is left is text, shared out at random."""
    picture = num_image_tokens((1, 1), parts.grid_side)
    count = row_tokens * 3 // 4 // picture
    text = row_tokens - count * picture
    shares = 2 + random.multinomial(text - 2 * count, [1 / count] * count)
    return [make_sample(parts, int(share), random) for share in shares]


def make_step(parts: Parts, options: argparse.Namespace) -> tuple[StepData, BatchShape]:
    """Returns one optimizer step, and what it holds."""
    random = np.random.default_rng(0)
    rows = [make_row(parts, options.row_tokens, random) for _ in range(options.rows)]
    starts = range(0, options.rows, options.micro_rows)
    batches = [collate(rows[start : start + options.micro_rows], options.row_tokens, 0) for start in starts]
    step = StepData(batches, [], 0, Place())
    lengths = [sample.num_tokens for row in rows for sample in row]
    cells = len(lengths) * parts.grid_side**2
    return step, BatchShape.of_documents(lengths, step.supervised_tokens, images=len(lengths), cells=cells)


@contextmanager
def phases(
    model: CambrianForConditionalGeneration, optimizer: torch.optim.Optimizer, synchronize: Callable[[], None]
) -> Iterator[dict[str, float]]:
    """Gives the seconds of every phase of a step; waits for the device wherever one ends."""
    seconds: dict[str, float] = {}
    now = ("other", time.perf_counter())

    def begin(phase: str, *_: Any) -> None:
        nonlocal now
        synchronize()
        ended, since = now
        now = (phase, time.perf_counter())
        seconds[ended] = seconds.get(ended, 0.0) + now[1] - since

    decoder = model.language_model
    called = [(model.connector, "connector"), (decoder, "decoder"), *((x, "vision encoders") for x in model.encoders)]
    handles = [
        *(module.register_forward_pre_hook(partial(begin, name)) for module, name in called),
        decoder.register_forward_hook(partial(begin, "loss")),
        model.register_forward_hook(partial(begin, "backward")),
        optimizer.register_step_pre_hook(partial(begin, "optimizer")),
        optimizer.register_step_post_hook(partial(begin, "other")),
    ]
    yield seconds
    begin("other")
    for handle in handles:
        handle.remove()


def make_recipe(options: argparse.Namespace, train: tuple[str, ...], is_compiled: bool) -> Recipe:
    """Returns a recipe of which the engine's settings and the optimizer count, its model does not."""
    stage = {"stages.finetune.train": list(train), "stages.finetune.optim.groups": {}}
    engine = {"precision": "bf16", "attention": options.attention, "compile": is_compiled}
    values = {**stage, **engine, "activation_checkpointing": options.checkpoint}
    return load_recipe("tiny", [f"{key}={json.dumps(value)}" for key, value in values.items()])


def measure(title: str, recipe: Recipe, parts: Parts, options: argparse.Namespace) -> None:
    """Trains for a while and prints how fast that was, and what took the time."""
    accelerator, (data, shape) = start_accelerator(recipe), make_step(parts, options)
    device, optim = accelerator.device, recipe.stages["finetune"].optim
    has_gpu = device.type == "cuda"
    synchronize = torch.cuda.synchronize if has_gpu else lambda: None
    model, processor = build(parts, device), cast(CambrianProcessor, None)  # none is needed: all is encoded
    start = prepare_model(recipe, "finetune", model, processor, None, device)
    flops = FlopModel.of(model, checkpointed=options.checkpoint).model_flops(shape)
    optimizer = build_optimizer(model, start.trainable.groups, optim)
    engine = Engine(model, optimizer, accelerator, optim, Guard(1), str)
    training = run_steps(engine, itertools.repeat(data), 0, WARM_UP + options.steps + PROFILED)

    def take(steps: int) -> float:
        synchronize()
        begin = time.perf_counter()
        assert len([*itertools.islice(training, steps)]) == steps
        synchronize()
        return (time.perf_counter() - begin) / steps

    take(WARM_UP)
    seconds = take(options.steps)
    peak = peak_flops(torch.cuda.get_device_name(device), recipe.precision) if has_gpu else None
    mfu = f"{flops / seconds / peak:.1%}" if peak else "not measured"
    memory = f"{torch.cuda.max_memory_allocated(device) / 1e9:.1f} GB" if has_gpu else "not measured"
    print(f"{title}: {shape.tokens / seconds:,.0f} tokens/s, MFU {mfu}, memory {memory}")
    print(f"  {seconds:.3f} s, {flops / 1e12:.3f} TFLOP, {shape.tokens:,} tokens, {shape.images} pictures a step")
    with profiler.profile() as profile, phases(model, optimizer, synchronize) as spent:
        take(PROFILED)
    print_shares((seconds, name) for name, seconds in spent.items())
    kind, own = (DeviceType.CUDA, "self_device_time_total") if has_gpu else (DeviceType.CPU, "self_cpu_time_total")
    print_shares((getattr(event, own), event.key) for event in profile.key_averages() if event.device_type == kind)


def print_shares(parts: Iterable[tuple[float, str]]) -> None:
    """Prints the largest parts of a whole."""
    spent = sorted(parts, reverse=True)
    whole = sum(seconds for seconds, _ in spent)
    print("  " + ", ".join(f"{name[:40]} {seconds / whole:.1%}" for seconds, name in spent[:NAMED]))


def main() -> None:
    """Measures frozen and trained encoders, compiled and not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8, help="of an optimizer step")
    parser.add_argument("--micro-rows", type=int, default=4, help="of them at once")
    parser.add_argument("--row-tokens", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "flex_attention", "flash_attention_2"])
    parser.add_argument("--checkpoint", nargs="*", default=[], choices=["language_model", "vision_encoders"])
    parser.add_argument("--compile", nargs="+", choices=["no", "yes"], help="default: no and yes; with --tiny, no")
    parser.add_argument("--tiny", action="store_true", help="small parts, to check this code anywhere")
    options = parser.parse_args()
    options.compile = options.compile or ["no"] + ["yes"] * (not options.tiny)
    if options.tiny:
        options.rows, options.micro_rows, options.row_tokens, options.steps = 4, 2, 128, 2
    elif not torch.cuda.is_available():
        parser.error("there is no CUDA device; --tiny runs anywhere")
    parts = tiny_parts() if options.tiny else real_parts()
    encoders = {"frozen encoders": FROZEN, "trained encoders": ("vision_encoders", *FROZEN)}
    for (title, train), compiled in itertools.product(encoders.items(), options.compile):
        gc.collect()  # of the model before
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        name = f"{title}, {'compiled' if compiled == 'yes' else 'not compiled'}"
        measure(name, make_recipe(options, train, compiled == "yes"), parts, options)


if __name__ == "__main__":
    main()
