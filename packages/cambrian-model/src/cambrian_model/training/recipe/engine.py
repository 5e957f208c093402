"""How a run is carried out: devices, loss, checkpoints, profiling. None of it changes what is learned."""

from typing import Annotated, Literal

from pydantic import Field

from cambrian_model.training.recipe.section import Count, Section


class CheckpointSection(Section):
    """How often a run can be continued from.

    Attributes:
        every: Steps between two checkpoints; 0: only between stages, and when the run is told to stop.
        keep: The last so many stay, and the best by validation loss.
        full: Whether frozen weights are stored too; else a reference to where they came from, with their hash.
    """

    every: Annotated[int, Field(ge=0)] = 0
    keep: Count = 2
    full: bool = False


class ParallelSection(Section):
    """How several devices share the work; one device ignores it.

    Attributes:
        strategy: "ddp" holds the whole model on every device, "fsdp" a shard of it; "auto" takes ddp where weights,
            gradients and optimizer fit into a third of a device's memory.
        replicas: Of "fsdp": groups of devices that each hold one sharded copy (HSDP); the usual number is that of
            the nodes.
        frozen_encoders: Of "fsdp": whether frozen encoders lie whole on every device, or sharded.
    """

    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    replicas: Count = 1
    frozen_encoders: Literal["replicate", "shard"] = "replicate"


class LossSection(Section):
    """Cross-entropy of the supervised tokens.

    Attributes:
        implementation: "chunked" makes logits of `chunk_tokens` supervised tokens at a time and never all of them;
            "liger" is liger's kernel for that (CUDA); "whole" makes all logits of all tokens.
        chunk_tokens: See above.
    """

    implementation: Literal["chunked", "liger", "whole"] = "chunked"
    chunk_tokens: Count = 1024


class ProfileSection(Section):
    """A window of steps recorded by `torch.profiler`, as traces for a browser in the run's folder.

    Attributes:
        start: Steps before the window, counted from where the stage begins or is resumed.
        steps: Its length.
    """

    start: Count = 5
    steps: Count = 3
