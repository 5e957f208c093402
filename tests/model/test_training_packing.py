import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cambrian_model.errors import TrainingError
from cambrian_model.processing.sample import Sample
from cambrian_model.training.batches import Place, Schedule
from cambrian_model.training.index import DataIndex, index_dataset
from cambrian_model.training.packing import Limits, collate, plan_epoch, steps_of
from cambrian_model.training.recipe import BatchSection

sizes = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 4)), min_size=1, max_size=200)


def plan(lengths, images=None, row_tokens=64, max_images=None, index_hash=1, seed=0, epoch=0):
    limits = Limits(row_tokens, max_images)
    return plan_epoch(lengths, images or [0] * len(lengths), limits, index_hash, seed, epoch)


@given(sizes)
def test_every_sample_is_packed_once_and_no_row_overflows(samples):
    lengths, images = zip(*samples, strict=True)
    rows = plan(lengths, images, max_images=4).rows

    assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 64 for row in rows)
    assert all(sum(images[i] for i in row) <= 4 for row in rows)


def mixed_lengths(count):
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(count, generator=generator) ** 2 * 1500 + 20).long().tolist()


@pytest.mark.parametrize("count", [64, 512, 16384])
def test_rows_are_nearly_as_few_as_possible(count):
    lengths = mixed_lengths(count)
    fewest = -(-sum(lengths) // 2048)

    assert len(plan(lengths, row_tokens=2048).rows) <= max(fewest + 1, 1.025 * fewest)


def test_order_depends_on_data_seed_and_epoch_and_on_nothing_else():
    lengths = mixed_lengths(300)
    kinds = [{}, {"seed": 1}, {"epoch": 1}, {"index_hash": 2}]
    orders = [plan(lengths, row_tokens=2048, **kind).rows for kind in kinds]

    assert plan(lengths, row_tokens=2048).rows == orders[0]
    assert all(a != b for a, b in itertools.combinations(orders, 2))


def test_samples_that_fit_nowhere_are_counted_by_reason():
    result = plan([10, 65, 20, 64], images=[0, 0, 5, 1], max_images=4)

    assert result.dropped == {"longer than a row of 64 tokens": [1], "more than 4 images": [2]}
    assert sorted(itertools.chain(*result.rows)) == [0, 3]
    assert result.fill == pytest.approx(74 / 128)


def test_data_of_which_nothing_fits_is_an_error():
    with pytest.raises(TrainingError, match=r"none of 2 samples fits into a row of 64 tokens.*shortest sample: 70"):
        plan([70, 80])


def make_sample(length, images=0, first=1):
    ids = torch.arange(first, first + length)
    pixels = [torch.full((images, 3, side, side), float(first)) for side in (2, 5)]
    return Sample(ids, ids.clone(), pixels, torch.tensor([[first, 7]] * images, dtype=torch.long).reshape(-1, 2))


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


def test_continuing_from_a_place_gives_the_steps_that_would_have_followed():
    index = DataIndex([str(i) for i in range(50)], mixed_lengths(50), [0] * 50, "0" * 64)
    schedule = Schedule(index, BatchSection(rows=2, row_tokens=2048, accumulation=2), seed=0)
    steps = list(itertools.islice(schedule.steps(Place()), 25))

    assert {step.epoch for step in steps} >= {0, 1, 2}
    for taken in (1, 7, 24):
        rest = itertools.islice(schedule.steps(steps[taken - 1].next_place), 25 - taken)
        assert list(rest) == steps[taken:]


def test_an_epoch_has_every_row_once_and_its_last_step_may_be_smaller():
    index = DataIndex([str(i) for i in range(50)], [64] * 50, [0] * 50, "0" * 64)
    schedule = Schedule(index, BatchSection(rows=2, row_tokens=64, accumulation=2), seed=0)
    steps = steps_of(schedule.plan(0), 4)

    assert [len(step) for step in steps] == [4] * 12 + [2]
    assert schedule.num_steps(epochs=2) == 26


class Lengths:
    """Counts words, as a processor counts tokens."""

    def count_tokens(self, messages, image_sizes):
        return len(messages[0]["content"].split()) + sum(height * width for height, width in image_sizes)

    def encode(self, messages, images):
        raise AssertionError("the index encodes nothing")


def record(name, text, images=()):
    return {"id": name, "source": "test", "messages": [{"role": "user", "content": text}], "images": list(images)}


def test_the_index_measures_text_and_image_headers_and_changes_with_the_data(tmp_path):
    from PIL import Image

    path = tmp_path / "a.png"
    Image.new("RGB", (3, 5)).save(path)
    data = [record("a", "one two", [str(path)]), record("b", "one two three", [path.read_bytes()])]
    index = index_dataset(data, Lengths())

    assert (index.ids, index.lengths, index.num_images) == (["a", "b"], [17, 18], [1, 1])
    assert index_dataset(data, Lengths()).fingerprint == index.fingerprint
    assert index_dataset(data[::-1], Lengths()).fingerprint != index.fingerprint
    assert index_dataset([data[0], record("b", "one two four")], Lengths()).fingerprint != index.fingerprint


def test_an_empty_dataset_and_an_unreadable_image_are_errors(tmp_path):
    with pytest.raises(TrainingError, match="dataset is empty"):
        index_dataset([], Lengths())
    with pytest.raises(TrainingError, match=r'sample "b": .*missing\.png'):
        index_dataset([record("a", "x"), record("b", "x", [str(tmp_path / "missing.png")])], Lengths())
    with pytest.raises(TrainingError, match=r'sample "c": .*image 0'):
        index_dataset([record("c", "x", [b"no picture"])], Lengths())
