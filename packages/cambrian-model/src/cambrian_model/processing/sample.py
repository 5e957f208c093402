"""One encoded training conversation: what the processor hands to packing."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

IGNORED_LABEL = -100


@dataclass(frozen=True)
class Sample:
    """One conversation, encoded.

    Attributes:
        input_ids: Token ids; every cell and newline of a picture is one image token.
        labels: The ids that are supervised, in their own places (not shifted); `IGNORED_LABEL` elsewhere.
        pixel_values: One tensor per vision encoder, all pictures of the conversation in order.
        image_sizes: Original (height, width) of each picture, after its EXIF rotation.
    """

    input_ids: Int[Tensor, " tokens"]
    labels: Int[Tensor, " tokens"]
    pixel_values: list[Float[Tensor, "images 3 _ _"]]
    image_sizes: Int[Tensor, "images 2"]

    @property
    def num_tokens(self) -> int:
        """Tokens that this conversation fills in the language model."""
        return self.input_ids.shape[0]
