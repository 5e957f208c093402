"""Loss on data that no step trains on, source by source."""

from collections.abc import Mapping
from itertools import islice

import torch

from cambrian_model.training.batches import Place, stream
from cambrian_model.training.distributed import sum_over_ranks
from cambrian_model.training.loop import Engine
from cambrian_model.training.stage_data import StageData


@torch.no_grad()
def validate(engine: Engine, sources: Mapping[str, StageData], num_workers: int = 0) -> dict[str, float]:
    """Returns the loss per supervised token of every source; every rank calls it and has the same numbers."""
    engine.model.eval()
    return {name: _loss(engine, source, num_workers) for name, source in sources.items()}


def _loss(engine: Engine, source: StageData, num_workers: int) -> float:
    steps = stream(source.encoder, source.schedule, Place(), num_workers)
    loss, supervised = 0.0, 0
    for data in islice(steps, source.schedule.num_steps(1)):
        for batch in data.batches:
            with engine.accelerator.autocast():
                output = engine.model(**batch.to(engine.device), num_items_in_batch=1, use_cache=False)
            loss += output.loss.item()
            supervised += batch.supervised_tokens
    loss, tokens = sum_over_ranks([loss, supervised], engine.device)
    return loss / tokens
