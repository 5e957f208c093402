"""What a run tells whoever watches it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        phase: "index" measures the data, "encode" saves features of pictures, "train" takes steps, "validate" and
            "evaluate" look at the model in between, "save" and "export" write it, "skip" leaves out a step.
        stage: The stage; in phase "index" the name of the data.
        done: Units done: samples, pictures, steps, or 1.
        total: Units in all.
        numbers: What to show beside them: loss, learning rate, tokens per second, MFU, share of time spent waiting
            for data, memory.
        note: What happened, in words.
    """

    phase: Literal["index", "encode", "train", "validate", "evaluate", "export", "skip"]
    stage: str
    done: int
    total: int
    numbers: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


Report = Callable[[Progress], None]
