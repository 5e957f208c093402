"""Compiles a tiny model; its own process, for a compiler cannot follow the checker of shapes of the test run."""

from typing import Any

import torch
from transformers import CompileConfig

from tests.support.tiny_model import pad_left, tiny_model, tiny_sample

SAMPLES = [tiny_sample(1, [(20, 50)], 5), tiny_sample(2, [], 7), tiny_sample(3, [(70, 20), (33, 33)], 3)]


@torch.no_grad()
def forward_equals_compiled() -> None:
    """One graph for each number of pictures, given what `get_image_features` made of them."""
    model = tiny_model()
    compiled = torch.compile(model, fullgraph=True)
    for sample in SAMPLES:
        images = model.get_image_features(sample["pixel_values"], sample["image_sizes"])
        inputs = {"input_ids": sample["input_ids"], "mm_encoder_outputs": {"image": images}, "use_cache": False}
        torch.testing.assert_close(compiled(**inputs).logits, model(**inputs).logits, atol=1e-5, rtol=0)


@torch.no_grad()
def decoding_equals_compiled() -> None:
    """One graph for all steps that follow the prompt, as `generate` compiles them on a GPU by itself."""
    model = tiny_model()
    compiling = CompileConfig(fullgraph=True, mode="default")
    compiling._compile_all_devices = True
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}
    told = model.generate(**pad_left(SAMPLES), **options, cache_implementation="static", compile_config=compiling)
    assert torch.equal(told, model.generate(**pad_left(SAMPLES), **options))


if __name__ == "__main__":
    forward_equals_compiled()
    decoding_equals_compiled()
