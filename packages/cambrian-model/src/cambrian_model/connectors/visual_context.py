"""What an SVA block sees besides its queries: the windows of every encoder's features, and a summary of the picture."""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor


class VisualContext(NamedTuple):
    """What an SVA block sees besides its queries. One row per query; no rows where there is no picture.

    Attributes:
        features: Per encoder, the features in each query's window.
        masks: Per encoder, which of them show the picture.
        summary: Per picture, the mean of the first encoder's projected features, padding included.
        image_of_query: Which picture each query belongs to.
    """

    features: tuple[Float[Tensor, "queries window width"], ...]
    masks: tuple[Bool[Tensor, "queries window"], ...]
    summary: Float[Tensor, "images width"]
    image_of_query: Int[Tensor, " queries"]

    def select(self, queries: Int[Tensor, " kept"]) -> "VisualContext":
        """Keeps the given queries, in that order."""
        return VisualContext(
            tuple(features.index_select(0, queries) for features in self.features),
            tuple(masks.index_select(0, queries) for masks in self.masks),
            self.summary,
            self.image_of_query.index_select(0, queries),
        )
