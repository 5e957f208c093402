"""What saved features of frozen encoders save: steps of alignment with the feature cache and without it.

Both ways start from the same weights and take the same steps over captioned scenes, read from PNG files and encoded in
the loop, in one process on the CPU; within a round they run one after the other, in turned order. Only the connector
and the SVA blocks are trained. The benchmark fails if the losses differ by more than rounding. Prints the ratio of
every round, their median and its 95 % interval from resampled rounds, the size of the cache, the time that writing it
took, and after how many epochs that was worth it.

    uv run python benchmarks/feature_cache.py --rounds 9 --steps 8 --threads 2
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

import cambrian_model.recipes
from cambrian_data.scenes import make_scene, render
from cambrian_data.scenes.captions import caption_record
from cambrian_data.scenes.generate import encode_png
from cambrian_model.assemble import assemble
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.training.collate import collate
from cambrian_model.training.feature_cache import CachedEncoder, DatasetImages, FeatureCache
from cambrian_model.training.feature_estimate import estimate
from cambrian_model.training.index import Encoder
from cambrian_model.training.parts import part_of

TOKENIZER = Path(cambrian_model.recipes.__file__).parent / "tiny"
SMALL = [
    {"name": "timm:test_vit", "image_side": 64, "grid_side": 4, "model_args": {"img_size": 64}},
    {"name": "timm:test_convnext", "image_side": 64, "grid_side": 8, "feature_layer": 1},
]
LARGER = [
    {"name": "timm:vit_tiny_patch16_224", "grid_side": 12},
    {"name": "timm:convnext_atto", "image_side": 224, "grid_side": 12, "feature_layer": 2},
]
LANGUAGE = {
    "model_type": "llama",
    "vocab_size": 986,
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONNECTOR = {"width": 96, "depth": 1, "num_heads": 4, "in_llm": {"start": 0, "stride": 2, "count": 2}}
TOLERANCE = 1e-5  # of losses near 7: a convolution may round otherwise in a batch of another size, which made 1e-6
SAMPLES_PER_STEP, SAMPLE_TOKENS = 4, 112  # of text at most, beside the image tokens


def make_scenes(folder: Path, count: int, side: int) -> list[dict[str, Any]]:
    """Renders scenes to files and returns their captions."""
    made = []
    for index in range(count):
        scene = make_scene(0, index)
        pixels, file = render(scene, side), folder / f"{index}.png"
        file.write_bytes(encode_png(pixels.pixels))
        made.append(caption_record(scene, pixels).to_dict() | {"images": [str(file)]})
    return made


def build(encoders: Sequence[dict[str, Any]], grid_side: int) -> Any:
    """Returns model and processor; only connector and SVA blocks are trained."""
    torch.manual_seed(0)
    model, processor = assemble(
        {
            "language_model": {"config": LANGUAGE},
            "tokenizer": str(TOKENIZER),
            "chat_template": "user_assistant",
            "vision_encoders": encoders,
            "connector": {**CONNECTOR, "query_grid_sides": [grid_side]},
            "grid_side": grid_side,
        }
    )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name) in ("projector", "sva", "in_llm"))
    return model, processor


def run(
    model: CambrianForConditionalGeneration, encoder: Encoder, scenes: Sequence[dict[str, Any]], grid_tokens: int
) -> tuple[float, list[float]]:
    """Takes a step for every few scenes; returns the seconds that it took, and the losses."""
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    begin = time.perf_counter()
    for start in range(0, len(scenes), SAMPLES_PER_STEP):
        chosen = scenes[start : start + SAMPLES_PER_STEP]
        samples = [encoder.encode(scene["messages"], scene["images"]) for scene in chosen]
        batch = collate([samples], SAMPLES_PER_STEP * (SAMPLE_TOKENS + grid_tokens), 0)
        loss = model(**batch.inputs, num_items_in_batch=batch.supervised_tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return time.perf_counter() - begin, losses


def compare(title: str, encoders: Sequence[dict[str, Any]], grid_side: int, rounds: int, steps: int) -> None:
    """Runs both ways in every round and prints how they compare."""
    model, processor = build(encoders, grid_side)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = make_scenes(folder, steps * SAMPLES_PER_STEP, side=model.config.encoders[0].image_side)
        begin = time.perf_counter()
        cache = FeatureCache.open(folder / "features", model.encoders, processor)
        cache.write(DatasetImages(scenes, [1] * len(scenes)), model.encoders)
        writing = time.perf_counter() - begin
        ways = [processor, CachedEncoder(processor, cache)]
        seconds = np.zeros((rounds + 1, 2))  # the first round warms up
        for number in range(rounds + 1):
            losses: list[list[float]] = [[], []]
            for way in (number % 2, 1 - number % 2):
                seconds[number, way], losses[way] = run(model, ways[way], scenes, grid_side * (grid_side + 1))
            if (apart := float(np.abs(np.subtract(*losses)).max())) > TOLERANCE:
                raise SystemExit(f"{title}: losses differ: {losses}")
        size = estimate(model.config, len(scenes), 4, encoder_flops_per_image=0.0)
    seconds = seconds[1:]
    ratios = seconds[:, 0] / seconds[:, 1]
    low, high = stats.bootstrap((ratios,), np.median, method="percentile", rng=0).confidence_interval
    saved = np.median(seconds[:, 0] - seconds[:, 1])
    print(f"{title}: {1000 * np.median(seconds[:, 1]) / steps:.1f} ms a step with the cache, losses {apart:.1e} apart")
    print(f"  without over with: {' '.join(f'{ratio:.2f}' for ratio in ratios)}")
    print(f"  median {np.median(ratios):.2f} (95 %: {low:.2f} to {high:.2f})")
    print(f"  {size.bytes_per_image:,} bytes a picture; writing {len(scenes)} pictures took {writing:.2f} s", end="")
    print(f", paid back after {writing / saved:.1f} epochs" if saved > 0 else "")


def main() -> None:
    """Compares with small encoders, and with larger ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    for option, default in (("--rounds", 9), ("--steps", 8), ("--threads", 2)):
        parser.add_argument(option, type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    compare("encoders of 64 pixels (test_vit, test_convnext)", SMALL, 4, args.rounds, args.steps)
    compare("encoders of 224 pixels (vit_tiny, convnext_atto)", LARGER, 12, args.rounds, args.steps)


if __name__ == "__main__":
    main()
