"""Pretrains a tiny vision encoder to say, of every cell of the picture, what stands there: the labels of the texts.

The heads that read the labels off the features are thrown away; the features stay.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from cambrian_cli.tiny_parts.recipe import EncoderRecipe, TinyPartsRecipe, learning_rate_factor
from cambrian_data.cvbench.drawing import draw_boxes
from cambrian_data.cvbench.questions import BOX_COLOURS
from cambrian_data.grounding import Inventory, cell_items, read_inventories
from cambrian_data.grounding.records import draw_some_boxes
from cambrian_data.images import load_image
from cambrian_data.places import NUM_STEPS, depth_step, step
from cambrian_data.scenes.objects import COLOURS, KINDS
from cambrian_model.config import VisionEncoderConfig
from cambrian_model.vision import TimmEncoder, feature_shape

Progress = Callable[..., None]

NUM_DEPTHS = 32
MEAN, STD = 0.5, 0.5
BRIGHTNESS = 0.05  # pictures are this much lighter or darker
NO_LABEL = -100


class Head(NamedTuple):
    """One label of a cell that holds something: how many values it has, and how much it counts."""

    name: str
    size: int
    weight: float


HEADS = (
    Head("kind", len(KINDS), 1.5),
    Head("colour", len(COLOURS), 0.5),
    Head("box", 1 + len(BOX_COLOURS), 1.5),
    Head("column", NUM_STEPS, 0.5),
    Head("row", NUM_STEPS, 0.5),
    Head("depth", NUM_DEPTHS, 0.7),
)
PRESENCE_WEIGHT = 8.0  # most cells are empty


class Labelled(NamedTuple):
    """Pictures and the labels of their cells.

    Attributes:
        pixels: Normalised. (pictures, 3, side, side)
        present: Whether something's middle lies in a cell. (pictures, cells)
        labels: The value of every head, `NO_LABEL` in empty cells. (pictures, cells, heads)
    """

    pixels: Tensor
    present: Tensor
    labels: Tensor


class Pictures:
    """Scenes as pictures with fresh boxes, mirrored half of the time."""

    def __init__(self, scenes_dir: Path, grid_side: int) -> None:
        self.inventories = read_inventories(scenes_dir)
        self._grid_side = grid_side
        images = scenes_dir / "images"
        self._pixels = [np.asarray(load_image(images / inventory.file_name)) for inventory in self.inventories]

    def batch(self, numbers: Sequence[int], draw: random.Random, augment: bool = True) -> Labelled:
        """Draws boxes on these pictures and labels their cells."""
        made = [self._one(number, draw, augment) for number in numbers]
        pixels = torch.from_numpy(np.stack([pixels for pixels, _ in made])).permute(0, 3, 1, 2) / 255
        if augment:
            lightness = [1 + draw.uniform(-BRIGHTNESS, BRIGHTNESS) for _ in made]
            pixels = (pixels * torch.tensor(lightness)[:, None, None, None]).clamp(0, 1)
        labels = torch.from_numpy(np.stack([labels for _, labels in made]))
        return Labelled((pixels - MEAN) / STD, labels[..., 0] != NO_LABEL, labels)

    def _one(self, number: int, draw: random.Random, augment: bool) -> tuple[np.ndarray, np.ndarray]:
        inventory, pixels = self.inventories[number], self._pixels[number]
        boxes = draw_some_boxes([item.id for item in inventory.items], draw)
        by_id = {item.id: item.box for item in inventory.items}
        drawn = {colour: by_id[thing] for thing, colour in boxes.items()}
        pixels = np.asarray(draw_boxes(Image.fromarray(pixels), drawn))
        if augment and draw.random() < 0.5:
            return np.ascontiguousarray(pixels[:, ::-1]), label(mirrored(inventory), boxes, self._grid_side)
        return pixels, label(inventory, boxes, self._grid_side)


def mirrored(inventory: Inventory) -> Inventory:
    """The same things with left and right exchanged; cuboids keep their depth and are otherwise left alone."""
    width = inventory.width
    flipped = [item.box._replace(left=width - item.box.right, right=width - item.box.left) for item in inventory.items]
    items = zip(inventory.items, flipped, strict=True)
    return replace(
        inventory, items=tuple(replace(item, instance=replace(item.instance, box=box)) for item, box in items)
    )


def label(inventory: Inventory, boxes: dict[int, str], grid_side: int) -> np.ndarray:
    """Returns the value of every head in every cell, (cells, heads)."""
    kinds, colours = list(KINDS), list(COLOURS)
    labels = np.full((grid_side**2, len(HEADS)), NO_LABEL, dtype=np.int64)
    for cell, item in enumerate(cell_items(inventory, grid_side)):
        if item is not None:
            x, y = item.box.centre
            labels[cell] = (
                kinds.index(item.kind),
                colours.index(item.colour),
                1 + BOX_COLOURS.index(boxes[item.id]) if item.id in boxes else 0,
                step(x / inventory.width),
                step(y / inventory.height),
                min(NUM_DEPTHS - 1, depth_step(item.depth)),
            )
    return labels


def encoder_config(recipe: EncoderRecipe, side: int) -> VisionEncoderConfig:
    """Returns the encoder's configuration, its width and grid looked up."""
    config = VisionEncoderConfig(
        library="timm",
        name=recipe.architecture,
        image_side=side,
        width=0,
        grid_side=0,
        feature_layer=recipe.feature_layer,
        model_args=dict(recipe.model_args),
    )
    shape = feature_shape(config)
    return replace(config, width=shape.width, grid_side=shape.grid_side)


class Reader(nn.Module):
    """An encoder and the heads that read its features."""

    def __init__(self, recipe: EncoderRecipe, parts: TinyPartsRecipe) -> None:
        super().__init__()
        config = replace(encoder_config(recipe, parts.side), grid_side=parts.grid_side)
        self.encoder = TimmEncoder(config)
        if recipe.layer_scale is not None:
            for name, parameter in self.encoder.named_parameters():
                if name.endswith("gamma"):
                    nn.init.constant_(parameter, recipe.layer_scale)
        self.sizes = [1, *(head.size for head in HEADS)]
        self.heads = nn.Linear(config.width, sum(self.sizes))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Returns the logits of presence and of every head, each (pictures, cells, values)."""
        return list(self.heads(self.encoder(pixels)).split(self.sizes, dim=-1))

    def loss(self, batch: Labelled) -> Tensor:
        """Returns how far the heads are from the labels."""
        presence, *logits = self(batch.pixels)
        total = PRESENCE_WEIGHT * functional.binary_cross_entropy_with_logits(
            presence.squeeze(-1), batch.present.float()
        )
        for head, scores, wanted in zip(HEADS, logits, batch.labels.unbind(-1), strict=True):
            total = total + head.weight * functional.cross_entropy(
                scores.flatten(0, 1), wanted.flatten(), ignore_index=NO_LABEL
            )
        return total


@torch.no_grad()
def accuracy(reader: Reader, batch: Labelled) -> dict[str, float]:
    """Returns recall and precision of presence, and how often each head is right where there is something."""
    reader.eval()
    presence, *logits = reader(batch.pixels)
    said, there = presence.squeeze(-1) > 0, batch.present
    found = {
        "recall": ((said & there).sum() / there.sum()).item(),
        "precision": ((said & there).sum() / said.sum().clamp(min=1)).item(),
    }
    for head, scores, wanted in zip(HEADS, logits, batch.labels.unbind(-1), strict=True):
        found[head.name] = (scores.argmax(-1) == wanted)[there].float().mean().item()
    return {name: round(value, 4) for name, value in found.items()}


def train_encoder(
    pictures: Pictures, recipe: EncoderRecipe, parts: TinyPartsRecipe, progress: Progress
) -> tuple[TimmEncoder, dict[str, float]]:
    """Trains one encoder; returns it and how well the last scenes, which it was not trained on, were read."""
    torch.manual_seed(parts.seed)
    draw = random.Random(f"cambrian tiny-parts {recipe.name} {parts.seed}")
    reader = Reader(recipe, parts)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.05)
    num_trained = len(pictures.inventories) - parts.held_out
    for number in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * learning_rate_factor(number, recipe.steps)
        loss = reader.loss(pictures.batch([draw.randrange(num_trained) for _ in range(recipe.rows)], draw))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        if (number + 1) % 100 == 0:
            progress(number + 1, recipe.steps, loss=loss.item())
    held_out = pictures.batch(range(num_trained, num_trained + parts.held_out), random.Random(0), augment=False)
    return reader.encoder, accuracy(reader, held_out)
