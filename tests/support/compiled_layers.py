"""Compiles a tiny model layer by layer; its own process, for a compiler cannot follow the checker of shapes of tests.

Says what it compiled as one line of JSON: graphs after each batch, graph breaks, and the largest difference of a
gradient from that of the same model as it is, over the largest gradient.

    python -m tests.support.compiled_layers BACKEND [--checkpointing]
"""

import json
import sys
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters

from cambrian_model.language.loss import LossOptions
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.training.compute import checkpoint_activations, compile_layers
from tests.support.tiny_model import pack, tiny_encoders, tiny_model, tiny_sample

PICTURES = [0, 1, 3, 2, 0, 4, 1, 5, 3]
SIZES = [(20, 50), (70, 20), (33, 33)]
ROW_TOKENS = 160


def make_batch(pictures: int) -> dict[str, Any]:
    """One row with some pictures, each of another size than in the batch before, in text of a sample of its own."""
    samples = [tiny_sample(i, [SIZES[(pictures + i) % 3]], 4) for i in range(pictures)]
    batch = pack([*samples, tiny_sample(20, [], 9)])
    padding = ROW_TOKENS - batch["input_ids"].shape[1]
    batch["input_ids"] = torch.nn.functional.pad(batch["input_ids"], (0, padding), value=5)
    batch["position_ids"] = torch.cat([batch["position_ids"], torch.arange(padding)[None]], dim=1)
    return {**batch, "pixel_values": batch["pixel_values"][:1], "labels": batch["input_ids"]}


def make_model(checkpointing: bool) -> CambrianForConditionalGeneration:
    """One encoder and few layers, of which one has an SVA block."""
    in_llm = {"start": 0, "stride": 1, "count": 1}
    connector = {"width": 32, "depth": 1, "num_heads": 4, "query_grid_sides": [4], "in_llm": in_llm}
    model = tiny_model(vision_encoders=tiny_encoders()[:1], connector=connector).train()
    model.loss_options = LossOptions("chunked", 50)
    if checkpointing:
        checkpoint_activations(model, ["language_model", "vision_encoders"])
    return model


def gradients(model: CambrianForConditionalGeneration, batch: dict[str, Any]) -> dict[str, Tensor]:
    model.zero_grad()
    model(**batch).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def main() -> None:
    plain, compiled = make_model(False), make_model("--checkpointing" in sys.argv)
    names = list(dict(compiled.named_parameters()))
    compile_layers(compiled, sys.argv[1])
    assert list(dict(compiled.named_parameters())) == names
    graphs, worst = [], 0.0
    for pictures in PICTURES:
        batch = make_batch(pictures)
        expected, found = gradients(plain, batch), gradients(compiled, batch)
        assert found.keys() == expected.keys() == set(names)
        largest = max(gradient.abs().max() for gradient in expected.values())
        worst = max(worst, *(((found[n] - expected[n]).abs().max() / largest).item() for n in names))
        graphs.append(counters["stats"]["unique_graphs"])
    breaks = sum(counters["graph_break"].values())
    sys.stdout.write(json.dumps({"graphs": graphs, "breaks": breaks, "worst": worst}) + "\n")


if __name__ == "__main__":
    main()
