"""An encoded sample as text that a person can check: what the model sees, and what it is taught."""

from itertools import groupby

import torch
from jaxtyping import Int
from torch import Tensor

from cambrian_model.processing.processor import CambrianProcessor
from cambrian_model.processing.sample import IGNORED_LABEL
from cambrian_model.training.batches import StepData

OPEN, CLOSE = "[[", "]]"  # around what is supervised


def render(
    processor: CambrianProcessor, input_ids: Int[Tensor, " tokens"], labels: Int[Tensor, " tokens"], most: int = 2000
) -> str:
    """Returns a sample as text: supervised spans in double brackets, image tokens as one mark with their number.

    Args:
        processor: Made the sample.
        input_ids: Its tokens.
        labels: `IGNORED_LABEL` where nothing is supervised.
        most: Characters after which the text ends.
    """
    kinds = [
        "image" if token == processor.image_token_id else "plain" if label == IGNORED_LABEL else "supervised"
        for token, label in zip(input_ids.tolist(), labels.tolist(), strict=True)
    ]
    text, start = "", 0
    for kind, run in groupby(kinds):
        end = start + len(list(run))
        text += _render_run(processor, kind, input_ids[start:end])
        start = end
    return text if len(text) <= most else f"{text[:most]}... ({len(text) - most} more characters)"


def _render_run(processor: CambrianProcessor, kind: str, ids: Int[Tensor, " tokens"]) -> str:
    if kind == "image":
        return f"<image x {len(ids)}>"
    text = processor.decode(ids.tolist(), skip_special_tokens=False)
    return f"{OPEN}{text}{CLOSE}" if kind == "supervised" else text


def render_first(processor: CambrianProcessor, data: StepData) -> str:
    """Returns the name of a step's first sample on this rank, and the sample as text."""
    if not data.ids:
        return "(this rank has none)"
    inputs = data.batches[0].inputs
    starts = torch.nonzero(inputs["position_ids"][0] == 0).flatten().tolist()
    end = starts[1] if len(starts) > 1 else inputs["input_ids"].shape[1]
    return f'sample "{data.ids[0]}": {render(processor, inputs["input_ids"][0, :end], inputs["labels"][0, :end])}'
