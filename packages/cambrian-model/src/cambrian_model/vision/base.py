"""What every vision encoder is: pixels in, visual features on a square grid out."""

from jaxtyping import Float
from torch import Tensor, nn

from cambrian_model.config import VisionEncoderConfig
from cambrian_model.image_tokens import resize_grid


class VisionEncoder(nn.Module):
    """Base of the encoders. A subclass implements `encode`; interpolation to the asked grid happens here."""

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        self.config = config

    def encode(self, pixels: Float[Tensor, "images 3 side side"]) -> Float[Tensor, "images tokens width"]:
        """Returns the features on the encoder's own grid, in reading order."""
        raise NotImplementedError

    def forward(self, pixels: Float[Tensor, "images 3 side side"]) -> Float[Tensor, "images resized width"]:
        """Encodes prepared pixels in the encoder's own precision; features are interpolated to `config.grid_side`."""
        dtype = next((parameter.dtype for parameter in self.parameters()), pixels.dtype)
        return resize_grid(self.encode(pixels.to(dtype)), self.config.grid_side)

    def train(self, mode: bool = True) -> "VisionEncoder":
        """A frozen encoder stays in evaluation mode: batch statistics and drop-path never move."""
        return super().train(mode and any(parameter.requires_grad for parameter in self.parameters()))

    def restore_buffers(self) -> None:
        """Recomputes buffers that checkpoints do not hold; called after weights were loaded into an empty shell."""
