"""The model of a stage as a checkpoint in transformers' layout; a sharded one is gathered tensor by tensor."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, logging

from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.processing.processor import CambrianProcessor
from cambrian_model.training.adapters import is_adapter, plain_weights
from cambrian_model.training.distributed import is_sharded

SHARD_BYTES = 5_000_000_000


def export_model(model: CambrianForConditionalGeneration, processor: CambrianProcessor, folder: Path | None) -> None:
    """Writes model and processor into a folder; adapters are merged there, not in the model.

    Args:
        model: Every rank calls this with its part.
        processor: Goes with it.
        folder: Where the first rank writes; None on the others, which only hand over their shards.
    """
    with no_progress_bars():
        if is_sharded(model) or any(is_adapter(name) for name, _ in model.named_parameters()):
            _write_shards(model, folder)
        elif folder is not None:
            model.save_pretrained(folder)
        if folder is not None:
            processor.save_pretrained(folder)


def _write_shards(model: CambrianForConditionalGeneration, folder: Path | None) -> None:
    weight_map: dict[str, str] = {}
    shard: dict[str, Tensor] = {}
    total = size = 0

    def write() -> None:
        if folder is not None:
            file = f"model-{len(set(weight_map.values())) + 1:05d}.safetensors"
            save_file(shard, folder / file, {"format": "pt"})
            weight_map.update(dict.fromkeys(shard, file))
        shard.clear()

    for name, tensor in plain_weights(model):  # every rank gathers every tensor; the first one keeps it
        num_bytes = tensor.numel() * tensor.element_size()
        if size and size + num_bytes > SHARD_BYTES:
            write()
            size = 0
        if folder is not None:
            shard[name] = tensor.cpu().contiguous()
        size += num_bytes
        total += num_bytes
    write()
    if folder is None:
        return
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    model.config.architectures = [CambrianForConditionalGeneration.__name__]  # FSDP2 gives the class another name
    model.config.dtype = "float32"
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keeps transformers from drawing over whatever shows the run's own progress."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
