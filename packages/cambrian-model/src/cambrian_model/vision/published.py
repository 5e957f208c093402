"""What an encoder's publisher says of it, before its user changes anything."""

from dataclasses import dataclass

from cambrian_model.config import VisionEncoderConfig


@dataclass(frozen=True)
class Published:
    """An encoder as it was published.

    Attributes:
        config: Its configuration; `width` is 0 where it is not known yet, `grid_side` 0 for the features' own grid.
        hub_id: The model of the hub that holds its weights as safetensors; None where there is none.
        licence: The weights' licence; None where it is not known.
        elsewhere: Where the weights are if not on the hub, and what to do with them.
    """

    config: VisionEncoderConfig
    hub_id: str | None = None
    licence: str | None = None
    elsewhere: str = ""
