"""What every vision encoder is: pixels in, visual features on a square grid out."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cambrian_model.config import VisionEncoderConfig
from cambrian_model.errors import ConfigError
from cambrian_model.image_tokens import resize_grid


class VisionEncoder(nn.Module):
    """Base of the encoders. A subclass implements `encode`; interpolation to the asked grid happens here."""

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def fits(cls, config: VisionEncoderConfig) -> Sequence[VisionEncoderConfig]:
        """Returns the ways to ask the library for `config.image_side`, the plainest first.

        Raises:
            ConfigError: The model cannot take this resolution.
        """
        return [config]

    def encode(self, pixels: Float[Tensor, "images 3 side side"]) -> list[Float[Tensor, "images _tokens _width"]]:
        """Returns the features of every chosen level on its own grid, in reading order."""
        raise NotImplementedError

    def forward(self, pixels: Float[Tensor, "images 3 side side"]) -> Float[Tensor, "images resized width"]:
        """Encodes prepared pixels in the encoder's own precision.

        Every level is interpolated to `config.grid_side`; several levels are concatenated on channels, in their order.
        """
        dtype = next((parameter.dtype for parameter in self.parameters()), pixels.dtype)
        levels = [resize_grid(level, self.config.grid_side) for level in self.encode(pixels.to(dtype))]
        features = levels[0] if len(levels) == 1 else torch.cat(levels, dim=-1)
        # The last bit of a product depends on how its input lies in memory, and saved features lie in order.
        return features.contiguous()

    def train(self, mode: bool = True) -> "VisionEncoder":
        """A frozen encoder stays in evaluation mode: batch statistics and drop-path never move.

        In a trained one the batch statistics do not move either: they would depend on how a step is cut into batches
        and spread over devices, count a batch twice under activation checkpointing, and keep what a skipped step left.
        """
        super().train(mode and is_trained(self))
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def checkpoint_activations(self) -> None:
        """Keeps from now on only what enters each block while it trains, and computes the rest again.

        Raises:
            ConfigError: The model cannot do it.
        """
        raise ConfigError(
            f"vision encoder {self.config.name} cannot checkpoint its activations; leave vision_encoders out, "
            "or freeze it"
        )

    def restore_buffers(self) -> None:
        """Recomputes buffers that checkpoints do not hold; called after weights were loaded into an empty shell."""


def is_trained(module: nn.Module) -> bool:
    """Tells whether any parameter of a module is trained."""
    return any(parameter.requires_grad for parameter in module.parameters())


def chosen_levels(config: VisionEncoderConfig) -> list[int]:
    """Returns the feature levels that a configuration names, as they are written.

    Raises:
        ConfigError: None at all, or one of them twice.
    """
    levels = [config.feature_layer] if isinstance(config.feature_layer, int) else list(config.feature_layer)
    if not levels or len(set(levels)) < len(levels):
        raise ConfigError(
            f"vision encoder {config.name}: feature_layer is {levels}; expected one level, or several different ones"
        )
    return levels


def unsaved_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Returns the buffers that a state dict leaves out: rotary tables, position indices."""
    saved = module.state_dict().keys()
    return {name: buffer for name, buffer in module.named_buffers() if name not in saved}
