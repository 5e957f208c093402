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
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn, profiler
from transformers import Qwen2Config

from cambrian_model.config import CambrianConfig, VisionEncoderConfig
from cambrian_model.image_tokens import num_image_tokens
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.processing.sample import IGNORED_LABEL, Sample
from cambrian_model.training.batches import Place, StepData
from cambrian_model.training.collate import collate
from cambrian_model.training.distributed import parallelize, start_accelerator
from cambrian_model.training.flops import BatchShape, FlopModel, peak_flops
from cambrian_model.training.guard import Guard
from cambrian_model.training.loop import Engine, run_steps
from cambrian_model.training.optim import build_optimizer
from cambrian_model.training.recipe import Recipe, load_recipe
from cambrian_model.training.start_model import StageModel, prepare_model
from cambrian_model.vision.source import describe

CONNECTOR = {"in_llm": {"start": 0, "stride": 3, "count": 8}}
QWEN2_05B = {
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}
SMALL = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3}
SMALL_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
MAX_TEXT = 400  # tokens of a document beside its picture
WARM_UP, PROFILED = 4, 3  # steps
FROZEN = ("connector", "in_llm", "language_model")


class Parts(NamedTuple):
    """What the model is made of."""

    language: dict[str, Any]
    encoders: list[VisionEncoderConfig]
    connector: dict[str, Any]
    grid_side: int


def real_parts() -> Parts:
    """Returns parts of real size."""
    specs = ({"name": name, "grid_side": 24} for name in ("siglip-so400m-384", "clip-l-336"))
    connector = {"width": 1024, "depth": 3, "num_heads": 16, "query_grid_sides": [24], **CONNECTOR}
    return Parts(QWEN2_05B, [describe(spec).config for spec in specs], connector, 24)


def tiny_parts() -> Parts:
    """Returns parts that a CPU trains in a moment."""
    specs: list[dict[str, Any]] = [
        {"name": "timm:test_vit", "image_side": 64, "grid_side": 4, "model_args": {"img_size": 64}},
        {"name": "timm:test_convnext", "image_side": 64, "grid_side": 8, "feature_layer": 1},
    ]
    connector = {"width": 32, "depth": 1, "num_heads": 4, "query_grid_sides": [4], **CONNECTOR}
    connector["in_llm"] = {"start": 0, "stride": 1, "count": 2}
    return Parts(QWEN2_05B | SMALL | SMALL_HEADS, [describe(spec).config for spec in specs], connector, 4)


def build(parts: Parts, device: torch.device) -> CambrianForConditionalGeneration:
    """Returns the model with random weights in float32."""
    torch.manual_seed(0)
    config = CambrianConfig(
        text_config=Qwen2Config(**parts.language),
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
    side = parts.encoders[0].image_side
    picture = num_image_tokens((side, side), parts.grid_side)
    words = torch.from_numpy(random.integers(0, parts.language["vocab_size"], text))
    ids = torch.cat([torch.full((picture,), parts.language["vocab_size"]), words])
    labels = torch.where(torch.arange(len(ids)) < picture + text // 2, IGNORED_LABEL, ids)
    pixels = [torch.randn(1, 3, encoder.image_side, encoder.image_side) for encoder in parts.encoders]
    return Sample(ids, labels, pixels, torch.tensor([[side, side]]))


def make_row(parts: Parts, row_tokens: int, random: np.random.Generator) -> list[Sample]:
    """Fills a row with documents of different lengths."""
    side = parts.encoders[0].image_side
    picture, row = num_image_tokens((side, side), parts.grid_side), []
    while (room := row_tokens - sum(sample.num_tokens for sample in row) - picture) > 1:
        row.append(make_sample(parts, min(room, int(random.integers(2, MAX_TEXT))), random))
    return row


def make_step(parts: Parts, options: argparse.Namespace) -> tuple[StepData, BatchShape]:
    """Returns one optimizer step, and what it holds."""
    random = np.random.default_rng(0)
    rows = [make_row(parts, options.row_tokens, random) for _ in range(options.rows)]
    starts = range(0, options.rows, options.micro_rows)
    batches = [collate(rows[start : start + options.micro_rows], options.row_tokens, 0) for start in starts]
    step = StepData(batches, [], 0, Place())
    lengths = [sample.num_tokens for row in rows for sample in row]
    shape = BatchShape.of_documents(
        lengths, step.supervised_tokens, images=len(lengths), cells=len(lengths) * parts.grid_side**2
    )
    return step, shape


class Phases:
    """Seconds of every phase of a step; waits for the device wherever one ends."""

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self.seconds: dict[str, float] = {}
        self._synchronize, self._phase, self._since = synchronize, "other", time.perf_counter()

    def begin(self, phase: str, *_: Any) -> None:
        """Ends the running phase."""
        self._synchronize()
        now = time.perf_counter()
        self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now

    @contextmanager
    def watching(self, model: CambrianForConditionalGeneration, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Begins phases as the modules of a model are called."""
        before = {"vision encoders": model.encoders, "connector": [model.connector], "decoder": [model.language_model]}
        after: dict[str, nn.Module] = {"loss": model.language_model, "backward": model}
        handles = [
            *(m.register_forward_pre_hook(partial(self.begin, name)) for name, ms in before.items() for m in ms),
            *(module.register_forward_hook(partial(self.begin, name)) for name, module in after.items()),
            optimizer.register_step_pre_hook(partial(self.begin, "optimizer")),
            optimizer.register_step_post_hook(partial(self.begin, "other")),
        ]
        yield
        for handle in handles:
            handle.remove()


def make_recipe(options: argparse.Namespace, train: tuple[str, ...], is_compiled: bool) -> Recipe:
    """Returns a recipe of which the engine's settings and the optimizer count, its model does not."""
    values = {
        "stages.finetune.train": f"[{', '.join(train)}]",
        "stages.finetune.optim.groups": "{}",
        "stages.finetune.optim.lr": "1.0e-4",
        "precision": options.precision,
        "attention": options.attention,
        "activation_checkpointing": f"[{', '.join(options.checkpoint)}]",
        "compile": str(is_compiled).lower(),
    }
    return load_recipe("tiny", [f"{key}={value}" for key, value in values.items()])


def measure(title: str, recipe: Recipe, parts: Parts, options: argparse.Namespace) -> None:
    """Trains for a while and prints how fast that was, and what took the time."""
    accelerator, (data, shape) = start_accelerator(recipe), make_step(parts, options)
    device = accelerator.device
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    model, processor = build(parts, device), None
    start: StageModel = prepare_model(recipe, "finetune", model, processor, None, device)  # type: ignore[arg-type]
    flops = FlopModel.of(model, checkpointed=options.checkpoint).model_flops(shape)
    optim = recipe.stages["finetune"].optim
    optimizer = build_optimizer(model, start.trainable.groups, optim)
    engine = Engine(
        parallelize(model, recipe.parallel, recipe.precision, device), optimizer, accelerator, optim, Guard(1), str
    )
    training = run_steps(engine, itertools.repeat(data), 0, WARM_UP + options.steps + PROFILED)

    def take(steps: int) -> float:
        synchronize()
        begin = time.perf_counter()
        assert len([*itertools.islice(training, steps)]) == steps
        synchronize()
        return (time.perf_counter() - begin) / steps

    take(WARM_UP)
    seconds = take(options.steps)
    mfu = memory = "not measured"
    if device.type == "cuda":
        peak = peak_flops(torch.cuda.get_device_name(device), recipe.precision)
        mfu = f"{flops / seconds / peak:.1%}" if peak else mfu
        memory = f"{torch.cuda.max_memory_allocated(device) / 1e9:.1f} GB"
    print(f"{title}: {shape.tokens / seconds:,.0f} tokens/s, MFU {mfu}, memory {memory}; ", end="")
    print(f"{seconds:.3f} s and {flops / 1e12:.3f} TFLOP a step of {shape.tokens:,} tokens, {shape.images} pictures")
    phases = Phases(synchronize)
    with phases.watching(model, optimizer), profiler.profile() as profile:
        take(PROFILED)
        phases.begin("other")
    whole = sum(phases.seconds.values())
    print("  " + ", ".join(f"{name} {part / whole:.1%}" for name, part in phases.seconds.items()))
    own = f"self_{'device' if device.type == 'cuda' else 'cpu'}_time_total"
    spent = sorted(((getattr(event, own), event.key) for event in profile.key_averages()), reverse=True)
    total = sum(seconds for seconds, _ in spent)
    print("  " + ", ".join(f"{key[:40]} {seconds / total:.1%}" for seconds, key in spent[: options.operations]))


def main() -> None:
    """Measures frozen and trained encoders, compiled and not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8, help="of an optimizer step")
    parser.add_argument("--micro-rows", type=int, default=4, help="of them at once")
    parser.add_argument("--row-tokens", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp16", "fp32"])
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "flex_attention", "flash_attention_2"])
    parser.add_argument("--checkpoint", nargs="*", default=[], choices=["language_model", "vision_encoders"])
    parser.add_argument("--compile", nargs="+", default=["no", "yes"], choices=["no", "yes"])
    parser.add_argument("--operations", type=int, default=8, help="the longest ones are named")
    parser.add_argument("--tiny", action="store_true", help="small parts, to check this code anywhere")
    options = parser.parse_args()
    if options.tiny:
        options.rows, options.micro_rows, options.row_tokens, options.steps = 4, 2, 128, 2
    elif not torch.cuda.is_available():
        parser.error("there is no CUDA device; --tiny runs anywhere")
    parts = tiny_parts() if options.tiny else real_parts()
    trained = {"frozen encoders": FROZEN, "trained encoders": ("vision_encoders", *FROZEN)}
    for (title, train), compiled in itertools.product(trained.items(), options.compile):
        name = f"{title}, {'compiled' if compiled == 'yes' else 'not compiled'}"
        measure(name, make_recipe(options, train, compiled == "yes"), parts, options)


if __name__ == "__main__":
    main()
