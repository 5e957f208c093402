from dataclasses import replace

import pytest
import torch

from cambrian_model.processing.sample import Sample
from cambrian_model.training.collate import collate


def make_sample(length, images=0, first=1):
    ids = torch.arange(first, first + length)
    pixels = [torch.full((images, 3, side, side), float(first)) for side in (2, 5)]
    return Sample(ids, ids.clone(), pixels, torch.tensor([[first, 7]] * images, dtype=torch.long).reshape(-1, 2))


def with_features(sample):
    features = [image[:, 0, :, :1].repeat(1, 2, 3) for image in sample.pixel_values]
    return replace(sample, pixel_values=[], vision_features=features)


def test_a_row_holds_samples_end_to_end_with_positions_that_restart():
    batch = collate(
        [[make_sample(3, first=10), make_sample(2, first=20)], [make_sample(5, first=30)]], 7, pad_token_id=9
    )

    assert batch.inputs["input_ids"].tolist() == [[10, 11, 12, 20, 21, 9, 9], [30, 31, 32, 33, 34, 9, 9]]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1], [0, 1, 2, 3, 4, 0, 1]]
    assert batch.inputs["labels"].tolist() == [
        [-100, 11, 12, -100, 21, -100, -100],
        [-100, 31, 32, 33, 34, -100, -100],
    ]
    assert "attention_mask" not in batch.inputs
    assert (batch.tokens, batch.supervised_tokens, batch.samples, batch.capacity) == (10, 7, 3, 14)


def test_pictures_stand_in_the_order_of_their_samples_for_every_encoder():
    batch = collate([[make_sample(3, 2, first=1), make_sample(2, 0, first=2)], [make_sample(2, 1, first=3)]], 8, 0)

    assert [tuple(x.shape) for x in batch.inputs["pixel_values"]] == [(3, 3, 2, 2), (3, 3, 5, 5)]
    assert all(x[:, 0, 0, 0].tolist() == [1, 1, 3] for x in batch.inputs["pixel_values"])
    assert batch.inputs["image_sizes"].tolist() == [[1, 7], [1, 7], [3, 7]]
    assert batch.images == 3


def test_saved_features_take_the_place_of_pixels():
    rows = [[make_sample(3, 2, first=1), make_sample(2, 0, first=2)], [make_sample(2, 1, first=3)]]
    saved = collate([[with_features(sample) for sample in row] for row in rows], 8, 0)
    plain = collate(rows, 8, 0)

    assert [tuple(x.shape) for x in saved.inputs["vision_features"]] == [(3, 4, 3), (3, 10, 3)]
    assert all(x[:, 0, 0].tolist() == [1, 1, 3] for x in saved.inputs["vision_features"])
    assert "pixel_values" not in saved.inputs
    assert all(torch.equal(saved.inputs[name], plain.inputs[name]) for name in ("input_ids", "labels", "image_sizes"))
    assert saved.images == plain.images == 3
    with pytest.raises(AssertionError, match="features of all its samples or none"):
        collate([[rows[0][0], with_features(rows[1][0])]], 8, 0)


def test_a_batch_is_filled_up_with_rows_of_padding():
    batch = collate([[make_sample(2, 1, first=10)]], 4, pad_token_id=9, num_rows=3)

    assert batch.inputs["input_ids"].tolist() == [[10, 11, 9, 9], [9] * 4, [9] * 4]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 0, 1], [0, 1, 2, 3], [0, 1, 2, 3]]
    assert batch.inputs["labels"].tolist() == [[-100, 11, -100, -100], [-100] * 4, [-100] * 4]
    assert (batch.tokens, batch.supervised_tokens, batch.images, batch.samples, batch.capacity) == (2, 1, 1, 1, 12)


@pytest.mark.parametrize("rows", [[], [[]], [[], []]])
def test_a_batch_without_samples_has_pictures_of_the_right_shape_but_none(rows):
    batch = collate(rows, 4, pad_token_id=9, num_rows=2, empty=make_sample(0))

    assert [tuple(x.shape) for x in batch.inputs["pixel_values"]] == [(0, 3, 2, 2), (0, 3, 5, 5)]
    assert batch.inputs["image_sizes"].shape == (0, 2)
    assert batch.inputs["input_ids"].tolist() == [[9] * 4] * 2
    assert (batch.tokens, batch.supervised_tokens, batch.images, batch.samples, batch.capacity) == (0, 0, 0, 0, 8)


def test_a_batch_without_samples_has_features_of_the_right_shape_where_others_have_them():
    batch = collate([[], []], 4, pad_token_id=9, empty=with_features(make_sample(0)))

    assert [tuple(x.shape) for x in batch.inputs["vision_features"]] == [(0, 4, 3), (0, 10, 3)]
    assert "pixel_values" not in batch.inputs


def test_all_inputs_move_to_a_device():
    inputs = collate([[make_sample(3, 1)]], 4, 0).to(torch.device("meta"))

    flat = [*inputs.pop("pixel_values"), *inputs.values()]
    assert len(flat) == 6
    assert all(tensor.device.type == "meta" for tensor in flat)


def test_a_cut_sample_keeps_its_pictures_and_the_beginning_of_its_text():
    sample = replace(make_sample(7, 2, first=10), picture_end=4)
    cut = sample.cut(5)

    assert cut.input_ids.tolist() == cut.labels.tolist() == [10, 11, 12, 13, 14]
    assert cut.pixel_values is sample.pixel_values
    assert cut.image_sizes is sample.image_sizes
    assert sample.cut(7) is sample


def test_a_cut_that_would_go_through_a_picture_or_leave_nothing_to_learn_is_refused():
    sample = replace(make_sample(7, 1), picture_end=4)

    with pytest.raises(AssertionError, match="last picture ends at token 4, behind the cut at 3"):
        sample.cut(3)
    late = torch.where(torch.arange(7) == 5, sample.labels, -100)
    with pytest.raises(AssertionError, match="nothing is supervised before the cut at 5"):
        replace(sample, labels=late).cut(5)
    # The label of a sample's first token is never learned from, see `collate`.
    first = torch.where(torch.arange(7) == 0, sample.labels, -100)
    with pytest.raises(AssertionError, match="nothing is supervised"):
        replace(sample, labels=first).cut(5)
