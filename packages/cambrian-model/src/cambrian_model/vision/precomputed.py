"""An encoder that was run before: its features arrive as `vision_features`, it has no weights."""

from jaxtyping import Float
from torch import Tensor

from cambrian_model.errors import ConfigError
from cambrian_model.vision.base import VisionEncoder


class PrecomputedEncoder(VisionEncoder):
    """Stands for a frozen encoder whose saved features are passed to `forward` as `vision_features`."""

    def encode(self, pixels: Float[Tensor, "images 3 side side"]) -> list[Float[Tensor, "images _tokens _width"]]:
        """Always fails: there is nothing to run.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f'vision encoder "{self.config.name}" is precomputed and cannot see pixels; pass vision_features '
            f"(images, {self.config.num_tokens}, {self.config.width}) instead of pixel_values"
        )
