"""What enters the model equals the original's: pixels, geometry, windows, masks, and a training row.

Padded squares are exact. Resized ones are exact with the Pillow version that recorded them and within one grey level
with others, so pixels are compared within 1e-5 (float32 rounding) where the resized bytes agree. The rest is exact.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from cambrian_model.config import IMAGE_TOKEN
from cambrian_model.image_tokens import (
    num_image_tokens,
    to_windows,
    token_layout,
    visible_mask,
    visible_region,
    window_masks,
)
from cambrian_model.processing import IGNORED_LABEL, CambrianImageProcessor, CambrianProcessor
from cambrian_model.processing.images import PixelSpec, pad_to_square

# (width, height) on these grids lose every row or column in the original; ours keep the middle two.
EMPTIED = {((1000, 30), side) for side in (6, 12, 24)} | {((7, 500), side) for side in (6, 12, 24)}
ORIGINAL_IMAGE_ID = -200


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "reference" / "preprocessing"


@pytest.fixture(scope="module")
def images(folder):
    files = [load_file(folder / "images" / f"{name}.safetensors") for name in ("inputs", "outputs")]
    return json.loads((folder / "images" / "meta.json").read_text()), {**files[0], **files[1]}


def rows_of(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text())


def as_size(width_height: list[int]) -> tuple[int, int]:
    return width_height[1], width_height[0]


# --- pixels


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
    assert (len(pictures), len(specs)) == (5, 4)
    for i, picture in enumerate(pictures):
        for j, spec in enumerate(specs):
            square = pad_to_square(Image.fromarray(picture), spec.fill)
            assert np.array_equal(np.asarray(square), tensors[f"padded.{i}.{j}"].numpy())
            resized = torch.from_numpy(np.array(square.resize((spec.image_side,) * 2)))
            grey_levels = (resized.int() - tensors[f"resized.{i}.{j}"].int()).abs().max().item()
            assert grey_levels <= (0 if PIL.__version__ == meta["versions"]["pillow"] else 1)
            tolerance = 1e-5 + grey_levels / 255 / min(spec.std)
            pixels = batch["pixel_values"][j][i]
            assert torch.allclose(pixels, tensors[f"pixel_values.{i}.{j}"], rtol=0, atol=tolerance)
            # half precision has steps of 2^-9 between 1 and 4, and a value on an edge may round either way
            half = tensors[f"pixel_values_half.{i}.{j}"].float()
            assert torch.allclose(pixels.half().float(), half, rtol=0, atol=tolerance + 2**-9)


# --- the geometry of image tokens


def test_padding_of_the_grid_equals_the_original(folder):
    compared = 0
    for row in rows_of(folder / "padding_and_image_info" / "padding_offset.json"):
        width, side = row["grid"]
        if width != side:  # 6 x 27: no grid of tokens is oblong, in the original neither
            continue
        region = visible_region(as_size(row["image_size"]), side)
        ours = [
            region.left,
            side - region.left - region.columns,
            region.top,
            side - region.top - region.rows,
        ]
        is_emptied = (tuple(row["image_size"]), side) in EMPTIED
        assert ours == [edge - 1 if is_emptied and edge else edge for edge in row["left_right_top_bottom"]]
        compared += 1
    assert compared == 40


def test_unpadded_rows_and_columns_equal_the_original(folder):
    masks = load_file(folder / "unpad_unmask" / "masks.safetensors")
    emptied, compared = set(), 0
    for row in rows_of(folder / "unpad_unmask" / "unpad.json"):
        height, side = row["grid_h_w"]
        if height != side:
            continue
        size = as_size(row["image_size"])
        region = visible_region(size, side)
        if row["rows_cols_kept"] is None:
            emptied.add((tuple(row["image_size"]), side))
            assert sorted((region.rows, region.columns)) == [2, side]
            continue
        kept = row["rows_cols_kept"]
        assert [region.top, region.top + region.rows] == kept["rows"]
        assert [region.left, region.left + region.columns] == kept["cols"]
        assert torch.equal(visible_mask([size], side), masks[f"{row['key']}.mask"])
        compared += 1
    assert emptied == EMPTIED
    assert compared == 34


def test_visible_cells_newlines_and_positions_equal_the_original(folder):
    recorded = load_file(folder / "padding_and_image_info" / "image_info.safetensors")
    compared = 0
    for row in rows_of(folder / "padding_and_image_info" / "image_info.json"):
        size, side = as_size(row["image_size"]), round(row["image_token_len"] ** 0.5)
        if (tuple(row["image_size"]), side) in EMPTIED:
            assert num_image_tokens(size, side) in (2 * (side + 1), side * 3)
            continue
        theirs, positions = recorded[f"{row['key']}.mask"], recorded[f"{row['key']}.position_ids"]
        compared += 1
        if not row["newline"]:
            assert torch.equal(visible_mask([size], side)[0].flatten(), theirs)
            continue
        layout = token_layout([size], side)
        assert layout.lengths == [row["visible"]] == [theirs.sum()]
        # A cell's place among ours is the number of visible tokens before it in theirs; the others are newlines.
        cells = layout.cells + layout.cells // side  # one newline more in each row before
        assert torch.equal(positions[cells], layout.slots)
        assert theirs[cells].all()
        newlines = torch.arange(1, side + 1) * (side + 1) - 1
        assert theirs.sum() == len(cells) + theirs[newlines].sum()
    assert compared == 68


def test_windows_and_their_masks_equal_the_original(folder):
    recorded = load_file(folder / "window_rearrange" / "tensors.safetensors")
    compared = 0
    for case in json.loads((folder / "window_rearrange" / "meta.json").read_text())["cases"]:
        number, query_side = case["case"], case["query_side_len"]
        sizes = [as_size(size) for size in case["image_sizes"]]
        kept = visible_mask(sizes, query_side).flatten()
        for i, num_tokens in enumerate(case["token_lens"]):
            windows = to_windows(recorded[f"{number}.features.{i}"], query_side)
            masks = window_masks(sizes, round(num_tokens**0.5), query_side)
            assert torch.equal(masks, recorded[f"{number}.train.input_mask.{i}"])
            for kind, rows in (("train", slice(None)), ("unpad0", slice(None)), ("unpad1", kept)):
                assert torch.equal(windows.flatten(0, 1)[rows], recorded[f"{number}.{kind}.latents.{i}"])
                assert torch.equal(masks.flatten(0, 1)[rows], recorded[f"{number}.{kind}.mask.{i}"])
                compared += 1
    assert compared == 21


# --- a training row

# The original fills a row up to model_max_length, hides the padding of a picture behind masks and counts positions on.
# Ours holds only what is visible, in the same order, with positions 0, 1, 2, ...: the same to the language model.
COLLATED = {
    "collate_basic": (3, 3),
    "collate_image_elsewhere": (2, 2),
    "collate_left_padding": (2, 0),  # padding stands in front, and the picture pushes the answers off the end
    "collate_text_only": (3, 3),
    "collate_truncated": (2, 0),
}


def word_processor() -> CambrianProcessor:
    """A processor whose tokenizer knows the word "w17" as id 17, so that recorded ids can be written as text."""
    backend = Tokenizer(models.WordLevel({f"w{i}": i for i in range(100)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %} {% endfor %}"
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="w0")
    return CambrianProcessor(CambrianImageProcessor(), tokenizer, chat_template=template, grid_side=6)


def messages_of(ids: list[int], labels: list[int]) -> list[dict[str, Any]]:
    """One message for every stretch that is supervised, or is not; the original's image id becomes a picture."""
    messages: list[dict[str, Any]] = []
    for token, label in zip(ids, labels, strict=True):
        role = "user" if label == IGNORED_LABEL else "assistant"
        is_image = token == ORIGINAL_IMAGE_ID
        part = {"type": "image"} if is_image else {"type": "text", "text": f" w{token} "}
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"].append(part)
        else:
            messages.append({"role": role, "content": [part]})
    return messages


def visible_row(outputs: dict[str, Tensor], i: int) -> list[list[int]]:
    """Ids (0 for all image tokens but a first one), labels and positions that the original's row i shows."""
    seen = outputs["attention_mask"][i]
    return [outputs[name][i][seen].tolist() for name in ("input_ids", "labels", "position_ids")]


def collated(folder: Path) -> Iterator[tuple[str, dict[str, Any], dict[str, Tensor], dict[str, Tensor]]]:
    for name in COLLATED:
        meta = json.loads((folder / name / "meta.json").read_text())
        yield (
            name,
            meta,
            load_file(folder / name / "inputs.safetensors"),
            load_file(folder / name / "outputs.safetensors"),
        )


def test_a_training_row_shows_what_the_original_shows(folder):
    processor = word_processor()
    found = {}
    for name, meta, inputs, outputs in collated(folder):
        equal = 0
        num_rows = len(meta["image_sizes"])
        for i in range(num_rows):
            ids, labels = (inputs[f"instance.{i}.{part}"].tolist() for part in ("input_ids", "labels"))
            has_image = ORIGINAL_IMAGE_ID in ids
            sizes = [as_size(meta["image_sizes"][i])] if has_image else []
            our_ids, our_labels = processor.encode_text(messages_of(ids, labels), sizes)
            # Ours: every token of the record in its place and with its label, and the picture's tokens between them.
            spelled = [token for token in our_ids if token != processor.image_token_id]
            assert spelled == [token for token in ids if token != ORIGINAL_IMAGE_ID]
            assert our_ids.count(processor.image_token_id) == sum(num_image_tokens(size, 6) for size in sizes)
            assert [label for label in our_labels if label >= 0] == [label for label in labels if label >= 0]
            their_ids, their_labels, their_positions = visible_row(outputs, i)
            as_theirs = [0 if token == processor.image_token_id else token for token in our_ids]
            is_equal = [max(token, 0) for token in their_ids] == as_theirs and their_labels == our_labels
            if is_equal:
                assert their_positions == list(range(len(our_ids)))
                equal += 1
            else:  # whatever of it the original does show is ours up to where it was cut
                shown = [max(token, 0) for token in their_ids]
                assert shown == as_theirs[: len(shown)]
                assert their_labels == our_labels[: len(shown)]
                assert len(shown) < len(our_ids)
        found[name] = (num_rows, equal)
    assert found == COLLATED


def test_features_of_a_training_row_are_masked_as_in_the_original(folder):
    compared = 0
    for _, meta, _, outputs in collated(folder):
        sizes = [as_size(size) for size in meta["image_sizes"]]
        query_side = round(meta["image_token_len"] ** 0.5)
        for i, num_tokens in enumerate(meta["image_aux_token_len_list"]):
            theirs = outputs[f"image_aux_attention_mask.{i}"]
            assert torch.equal(window_masks(sizes, round(num_tokens**0.5), query_side), theirs)
            compared += 1
    assert compared == 15


def test_padding_and_dummy_pictures_hide_nothing_of_ours(folder):
    """What the original's collator loses: id 0 is its padding, and a dummy picture shifts the last token out."""
    processor = word_processor()
    (text_only,) = [outputs for name, _, _, outputs in collated(folder) if name == "collate_text_only"]
    assert not text_only["attention_mask"][1][5:47].any()  # 42 hidden positions for no picture
    ids, labels = processor.encode_text(messages_of([5, 0, 7, 0], [IGNORED_LABEL, IGNORED_LABEL, 7, 0]))
    assert ids == [5, 0, 7, 0]
    # 0 is this tokenizer's unknown token: it is seen, but never a target
    assert labels == [IGNORED_LABEL, IGNORED_LABEL, 7, IGNORED_LABEL]
    full = list(range(1, 81))
    ids, labels = processor.encode_text(messages_of(full, [IGNORED_LABEL] * 40 + full[40:]))
    assert ids == full
    assert labels[-1] == 80
    assert IMAGE_TOKEN not in processor.decode(ids)
