"""Training speed on one GPU: a language model of 0.5 billion parameters with SigLIP-SO400M and CLIP-L as its encoders.

Weights are random. Synthetic pictures and text, encoded and in memory, fill packed rows and go through the engine's own
loop in bf16, with encoders frozen and trained, compiled and not. Prints tokens per second, MFU by `training/flops.py`
(nothing counted twice), the most memory, and, of further steps under the profiler, the shares of phases and of the
longest operations; there the device is waited for between phases, so that none hides behind another.

`--tiny` runs the same code on small parts on any device; on a CPU neither MFU nor memory are measured.

    uv run python -m benchmarks.gpu_training --rows 8 --row-tokens 4096 --steps 20
"""

import argparse
import gc
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import profiler
from torch.autograd import DeviceType
from transformers import Qwen2Config

from cambrian_model.config import CambrianConfig
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

WIDTHS, COUNTS = ("vocab_size", "hidden_size", "intermediate_size"), ("num_hidden_layers", "num_attention_heads")
SIZES = (*WIDTHS, *COUNTS, "num_key_value_heads")  # of the language model
FROZEN = ("connector", "in_llm", "language_model")
WARM_UP, PROFILED = 4, 3  # steps
NAMED = 8  # of the longest operations


def real_config() -> CambrianConfig:
    """Describes a model of real size; its language model is Qwen2.5-0.5B."""
    encoders = [{"name": name, "grid_side": 24} for name in ("siglip-so400m-384", "clip-l-336")]
    connector = {"width": 1024, "depth": 3, "num_heads": 16, "in_llm": {"start": 0, "stride": 3, "count": 8}}
    return make_config((151936, 896, 4864, 24, 14, 2), encoders, connector, 24)


def tiny_config() -> CambrianConfig:
    """Describes a model that a CPU trains in a moment."""
    vit = {"name": "timm:test_vit", "image_side": 64, "grid_side": 4, "model_args": {"img_size": 64}}
    convnext = {"name": "timm:test_convnext", "image_side": 64, "grid_side": 8, "feature_layer": 1}
    connector = {"width": 32, "depth": 1, "num_heads": 4, "in_llm": {"start": 0, "stride": 1, "count": 2}}
    return make_config((512, 64, 128, 3, 4, 2), [vit, convnext], connector, 4)


def make_config(
    sizes: Sequence[int], encoders: Sequence[dict[str, Any]], connector: dict[str, Any], grid_side: int
) -> CambrianConfig:
    """Describes a model of a Qwen2 (its `SIZES`), vision encoders as recipes write them, and SVA."""
    language = {**dict(zip(SIZES, sizes, strict=True)), "rms_norm_eps": 1e-6, "tie_word_embeddings": True}
    rope = {"rope_type": "default", "rope_theta": 1e6}
    return CambrianConfig(
        text_config=Qwen2Config(**language, max_position_embeddings=32768, rope_parameters=rope),
        vision_encoders=[describe(encoder).config for encoder in encoders],
        connector={**connector, "query_grid_sides": [grid_side]},
        grid_side=grid_side,
        image_token_id=language["vocab_size"],
        tie_word_embeddings=True,
    )


def make_sample(config: CambrianConfig, text: int, random: np.random.Generator) -> Sample:
    """Returns one square picture, behind it `text` tokens of which the later half is supervised."""
    picture, image_token = num_image_tokens((1, 1), config.grid_side), config.image_token_id
    ids = torch.cat([torch.full((picture,), image_token), torch.from_numpy(random.integers(0, image_token, text))])
    labels = torch.where(torch.arange(len(ids)) < picture + text // 2, IGNORED_LABEL, ids)
    pixels = [torch.randn(1, 3, encoder.image_side, encoder.image_side) for encoder in config.encoders]
    return Sample(ids, labels, pixels, torch.tensor([[1, 1]]) * config.encoders[0].image_side)


def make_row(config: CambrianConfig, row_tokens: int, random: np.random.Generator) -> list[Sample]:
    """Fills a row: three quarters are pictures, and what is left is text, shared out at random."""
    picture = num_image_tokens((1, 1), config.grid_side)
    count = row_tokens * 3 // 4 // picture
    shares = 2 + random.multinomial(row_tokens - count * (picture + 2), [1 / count] * count)
    return [make_sample(config, int(share), random) for share in shares]


def make_step(config: CambrianConfig, options: argparse.Namespace) -> tuple[StepData, BatchShape]:
    """Returns one optimizer step, and what it holds."""
    random = np.random.default_rng(0)
    rows = [make_row(config, options.row_tokens, random) for _ in range(options.rows)]
    starts = range(0, options.rows, options.micro_rows)
    batches = [collate(rows[start : start + options.micro_rows], options.row_tokens, 0) for start in starts]
    step = StepData(batches, [], 0, Place())
    lengths = [sample.num_tokens for row in rows for sample in row]
    cells = len(lengths) * config.grid_side**2
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


def measure(title: str, recipe: Recipe, config: CambrianConfig, options: argparse.Namespace) -> None:
    """Trains for a while and prints how fast that was, and what took the time."""
    accelerator, (data, shape) = start_accelerator(recipe), make_step(config, options)
    device, optim = accelerator.device, recipe.stages["finetune"].optim
    has_gpu = device.type == "cuda"
    synchronize = torch.cuda.synchronize if has_gpu else lambda: None
    torch.manual_seed(0)
    with device:
        model = CambrianForConditionalGeneration(config)
    trainable = prepare_model(recipe, "finetune", model, cast(CambrianProcessor, None), None, device).trainable
    flops = FlopModel.of(model, checkpointed=options.checkpoint).model_flops(shape)
    optimizer = build_optimizer(model, trainable.groups, optim)
    engine = Engine(model, optimizer, accelerator, optim, Guard(1), str)
    training = run_steps(engine, itertools.repeat(data), 0, WARM_UP + options.steps + PROFILED)

    def take(steps: int) -> float:
        synchronize()
        begin = time.perf_counter()
        assert len([*itertools.islice(training, steps)]) == steps
        synchronize()
        return (time.perf_counter() - begin) / steps

    take(WARM_UP)
    if has_gpu:
        torch.cuda.reset_peak_memory_stats()
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
    for option, default in (("--rows", 8), ("--micro-rows", 4), ("--row-tokens", 4096), ("--steps", 20)):
        parser.add_argument(option, type=int, default=default)
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
    config = tiny_config() if options.tiny else real_config()
    encoders = {"frozen encoders": FROZEN, "trained encoders": ("vision_encoders", *FROZEN)}
    for (title, train), compiled in itertools.product(encoders.items(), options.compile):
        gc.collect()  # of the model before
        name = f"{title}, {'compiled' if compiled == 'yes' else 'not compiled'}"
        measure(name, make_recipe(options, train, compiled == "yes"), config, options)


if __name__ == "__main__":
    main()
