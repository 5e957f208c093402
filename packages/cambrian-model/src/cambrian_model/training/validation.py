"""Loss on data that no step trains on, source by source."""

from collections.abc import Mapping
from itertools import islice
from typing import NamedTuple

import torch

from cambrian_model.errors import TrainingError
from cambrian_model.training.bad_samples import BadSample
from cambrian_model.training.batches import Place, stream
from cambrian_model.training.distributed import sum_over_ranks
from cambrian_model.training.loop import Engine
from cambrian_model.training.stage_data import StageData


class Validated(NamedTuple):
    """What a validation found of one source.

    Attributes:
        loss: Per supervised token, on all ranks together.
        bad: Samples that this rank could not read and left out.
    """

    loss: float
    bad: list[BadSample]


@torch.no_grad()
def validate(engine: Engine, sources: Mapping[str, StageData], num_workers: int = 0) -> dict[str, Validated]:
    """Finds the loss on every source; every rank calls it and has the same losses.

    Raises:
        TrainingError: No sample of a source can be read.
    """
    engine.model.eval()
    return {name: _validate(engine, name, source, num_workers) for name, source in sources.items()}


def _validate(engine: Engine, name: str, source: StageData, num_workers: int) -> Validated:
    steps = stream(source.encoder, source.schedule, Place(), num_workers)
    loss, supervised = 0.0, 0
    bad: list[BadSample] = []
    for data in islice(steps, source.schedule.num_steps(1)):
        bad += data.bad
        for batch in data.batches:
            with engine.accelerator.autocast():
                output = engine.model(**batch.to(engine.device), num_items_in_batch=1, use_cache=False)
            loss += output.loss.item()
            supervised += batch.supervised_tokens
    loss, tokens = sum_over_ranks([loss, supervised], engine.device)
    if not tokens:
        raise TrainingError(f'no sample of data "{name}" can be validated on: none could be read; mend its pictures')
    return Validated(loss / tokens, bad)
