"""One encoded training conversation: what the processor hands to packing."""

from dataclasses import dataclass, replace

from jaxtyping import Float, Int
from torch import Tensor

IGNORED_LABEL = -100


@dataclass(frozen=True)
class Sample:
    """One conversation, encoded.

    Attributes:
        input_ids: Token ids; every cell and newline of a picture is one image token.
        labels: The ids that are supervised, in their own places (not shifted); `IGNORED_LABEL` elsewhere.
        pixel_values: One tensor per vision encoder, all pictures of the conversation in order; none at all beside
            `vision_features`.
        image_sizes: Original (height, width) of each picture, after its EXIF rotation.
        vision_features: What the vision encoders made of the pictures, one tensor per encoder, in place of pixels.
        picture_end: Tokens up to the end of the last picture, 0 without pictures; None if not known.
    """

    input_ids: Int[Tensor, " tokens"]
    labels: Int[Tensor, " tokens"]
    pixel_values: list[Float[Tensor, "images 3 _side _side"]]
    image_sizes: Int[Tensor, "images 2"]
    vision_features: list[Float[Tensor, "images _tokens _width"]] | None = None
    picture_end: int | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens that this conversation fills in the language model."""
        return self.input_ids.shape[0]

    def cut(self, max_tokens: int) -> "Sample":
        """Returns the sample without its text behind `max_tokens`; one that is not longer stays as it is.

        Only a sample that keeps all its pictures and something to learn may be cut; the plan drops all others.
        """
        if self.num_tokens <= max_tokens:
            return self
        end = self.picture_end or 0  # where it is not known, the model refuses pictures without their tokens
        assert end <= max_tokens, f"its last picture ends at token {end}, behind the cut at {max_tokens}"
        labels = self.labels[:max_tokens]
        # The first token's label does not count: no token stands before it to predict it from.
        assert bool((labels[1:] != IGNORED_LABEL).any()), f"nothing is supervised before the cut at {max_tokens}"
        return replace(self, input_ids=self.input_ids[:max_tokens], labels=labels)
