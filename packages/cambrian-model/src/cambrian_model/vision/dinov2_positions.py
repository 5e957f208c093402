"""DINOv2's position table at another resolution, as DINOv2's own code and the released Cambrian-1 models have it.

They interpolate by a scale factor a little too large, where transformers now interpolates to the size asked for: places
near the far edge differ by 0.13 cells at 378 pixels.

Source: `interpolate_pos_encoding` in facebookresearch/dinov2 and in transformers 4.37, which the original ran with.
"""

from jaxtyping import Float
from torch import Tensor, cat, nn
from transformers.models.dinov2.modeling_dinov2 import Dinov2Embeddings

OFFSET = 0.1  # cells


class Dinov2Positions(Dinov2Embeddings):
    """Embeddings of transformers' DINOv2 with positions resized as in the original; takes the place of its class."""

    def interpolate_pos_encoding(
        self, embeddings: Float[Tensor, "images tokens dim"], height: int, width: int
    ) -> Float[Tensor, "1 tokens dim"]:
        """Returns a position for the class token and every patch of a picture of `height` x `width` pixels."""
        table = self.position_embeddings
        side = round((table.shape[1] - 1) ** 0.5)
        patch_height, patch_width = self.patch_embeddings.patch_size
        wanted = [height // patch_height, width // patch_width]
        if wanted == [side, side]:
            return table
        grid = table[:, 1:].transpose(1, 2).unflatten(2, (side, side))  # 1, dim, side, side
        scale = [(cells + OFFSET) / side for cells in wanted]
        resized = nn.functional.interpolate(grid.float(), scale_factor=scale, mode="bicubic").to(table.dtype)
        return cat([table[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)
