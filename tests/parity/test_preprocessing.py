"""Pixels equal the original's: padding, resize and normalisation of its four kinds of processors.

Padded squares are exact. Resized ones are exact with the Pillow version that recorded them and within one grey level
with others, so pixels are compared within 1e-5 (float32 rounding) where the resized bytes agree.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cambrian_model.image_tokens import num_image_tokens, visible_mask
from cambrian_model.processing.images import CambrianImageProcessor, PixelSpec, pad_to_square


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "reference" / "preprocessing"


@pytest.fixture(scope="module")
def images(folder):
    files = [load_file(folder / "images" / f"{name}.safetensors") for name in ("inputs", "outputs")]
    return json.loads((folder / "images" / "meta.json").read_text()), {**files[0], **files[1]}


def specs_of(meta) -> list[PixelSpec]:
    return [
        PixelSpec(p["side"], tuple(p["mean"]), tuple(p["std"]), pad_color=tuple(p["pad_color_rgb"]))
        for p in meta["processors"]
    ]


def test_the_original_processors_pad_with_their_mean(images):
    # "siglip-like" pads with CLIP's mean although it normalises with another: the released models' configs say so.
    for processor, spec in zip(images[0]["processors"], specs_of(images[0]), strict=True):
        own = PixelSpec(spec.image_side, spec.mean, spec.std).fill
        assert (own == spec.pad_color) == (processor["name"] != "siglip-like")


def test_squares_and_pixels_equal_the_original(images):
    meta, tensors = images
    specs = specs_of(meta)
    processor = CambrianImageProcessor([vars(spec) for spec in specs])
    pictures = [tensors[f"image.{i}"].numpy() for i in range(len(meta["image_sizes_width_height"]))]
    batch = processor(pictures)
    assert batch["image_sizes"].tolist() == [[height, width] for width, height in meta["image_sizes_width_height"]]
    for i, picture in enumerate(pictures):
        for j, spec in enumerate(specs):
            square = pad_to_square(Image.fromarray(picture), spec.fill)
            assert np.array_equal(np.asarray(square), tensors[f"padded.{i}.{j}"].numpy())
            resized = torch.from_numpy(np.array(square.resize((spec.image_side,) * 2)))
            grey_levels = (resized.int() - tensors[f"resized.{i}.{j}"].int()).abs().max()
            assert grey_levels <= 1
            tolerance = 1e-5 + grey_levels.item() / 255 / min(spec.std)
            expected = tensors[f"pixel_values.{i}.{j}"]
            assert torch.allclose(batch["pixel_values"][j][i], expected, rtol=0, atol=tolerance)


def test_visible_cells_and_newlines_equal_the_original(folder):
    rows = json.loads((folder / "padding_and_image_info" / "image_info.json").read_text())
    masks = load_file(folder / "padding_and_image_info" / "image_info.safetensors")
    emptied = {row["key"].removesuffix(".plain") for row in rows if row["visible"] == 0}
    for row in rows:
        (width, height), side = row["image_size"], round(row["image_token_len"] ** 0.5)
        if row["key"].rpartition(".")[0] in emptied:  # ours keep the middle of a picture that the original empties
            assert num_image_tokens((height, width), side) > 0
        elif row["newline"]:
            assert num_image_tokens((height, width), side) == row["visible"]
        else:
            expected = masks[f"{row['key']}.mask"].reshape(side, side)
            assert torch.equal(visible_mask([(height, width)], side)[0], expected)
