import itertools
from bisect import bisect_right
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cambrian_model.training import packing
from cambrian_model.training.packing import Limits, lower_bound, pack

ROW = Limits(row_tokens=4096, max_images=18)

sizes = st.lists(st.tuples(st.integers(1, 64), st.integers(0, 4)), max_size=200)


def images_and_text(random, images, text):
    """Lengths of samples with 64 tokens to a picture and `text` to a conversation, none longer than a row."""
    return (images * 64 + text.astype(int)).clip(1, ROW.row_tokens), images


def benchmark(random, count):  # as benchmarks/packing.py has it
    return images_and_text(random, random.integers(0, 7, count), random.lognormal(np.log(600), 1, count))


def image_bound(random, count):
    return images_and_text(random, random.integers(2, 10, count), random.uniform(20, 900, count))


def one_image_heavy_class(random, count):
    images = np.where(random.random(count) < 0.1, 12, random.integers(0, 3, count))
    return images_and_text(random, images, random.lognormal(6, 0.8, count))


def lognormal_text(random, count):
    return images_and_text(random, np.zeros(count, int), random.lognormal(np.log(512), 1, count))


def long_text_and_short_pictures(random, count):
    is_text = random.random(count) < 0.3
    text = np.where(is_text, random.uniform(2100, 4000, count), random.uniform(50, 700, count))
    return images_and_text(random, np.where(is_text, 0, random.integers(1, 7, count)), text)


def all_equal(random, count):
    return np.full(count, 1024), np.ones(count, int)


MIXTURES = [
    benchmark,
    image_bound,
    one_image_heavy_class,
    lognormal_text,
    long_text_and_short_pictures,
    all_equal,
]


def packed(lengths, images, limits):
    rows = pack(range(len(lengths)), lengths, images, limits)
    assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= limits.row_tokens for row in rows)
    if limits.max_images is not None:
        assert all(sum(images[i] for i in row) <= limits.max_images for row in rows)
    return rows


@settings(deadline=None)
@given(sizes, st.sampled_from([4, 7, None]))
def test_every_sample_is_packed_once_and_no_row_overflows(samples, max_images):
    lengths, images = [tokens for tokens, _ in samples], [count for _, count in samples]
    limits = Limits(64, max_images)
    rows = packed(lengths, images, limits)

    assert len(rows) >= lower_bound(lengths, images, limits)
    assert pack(range(len(lengths)), lengths, images, limits) == rows


@settings(deadline=None)
@given(sizes.filter(bool), st.randoms(use_true_random=False))
def test_only_the_given_samples_are_packed_as_often_as_they_are_given(samples, random):
    lengths, images = zip(*samples, strict=True)
    given_samples = random.choices(range(len(samples)), k=50)
    rows = pack(given_samples, lengths, images, Limits(64, 4))

    assert sorted(itertools.chain(*rows)) == sorted(given_samples)


def test_the_lower_bound_is_the_largest_of_tokens_images_and_samples_over_half_a_row():
    limits = Limits(10, 4)

    assert lower_bound([3, 4, 4], [0, 0, 0], limits) == 2
    assert lower_bound([3, 1, 1], [4, 4, 1], limits) == 3
    assert lower_bound([6, 6, 6, 5], [0, 0, 0, 0], limits) == 3
    assert lower_bound([3, 1, 1], [4, 4, 1], Limits(10)) == 1
    assert lower_bound([], [], limits) == 0


@pytest.mark.parametrize("count", [64, 512, 4096, 16384])
@pytest.mark.parametrize("mixture", MIXTURES, ids=lambda mixture: mixture.__name__)
def test_rows_are_nearly_as_few_as_possible(mixture, count):
    for seed in range(1 if count > 1000 else 5):
        lengths, images = mixture(np.random.default_rng([seed, count]), count)
        fewest = lower_bound(lengths, images, ROW)

        assert len(packed(lengths.tolist(), images.tolist(), ROW)) <= max(fewest + 1, 1.025 * fewest)


@given(st.integers(1, 400), st.integers(0, 2**32))
@settings(deadline=None, max_examples=50)  # a busy machine may be slow
def test_rows_are_nearly_as_few_as_possible_for_any_number_of_samples(count, seed):
    lengths, images = benchmark(np.random.default_rng(seed), count)
    fewest = lower_bound(lengths, images, ROW)

    assert len(packed(lengths.tolist(), images.tolist(), ROW)) <= max(fewest + 1, 1.025 * fewest)


@pytest.mark.parametrize(
    ("lengths", "images"),
    [([2049] * 3000, [1] * 3000), ([4096] * 3000, [0] * 3000), ([10] * 3000, [10] * 3000)],
    ids=["just over half a row", "a whole row", "over half of the images"],
)
def test_samples_of_which_no_two_fit_together_have_a_row_each(lengths, images):
    assert len(packed(lengths, images, ROW)) == 3000


def test_what_just_fits_beside_a_sample_over_half_a_row_is_put_there():
    lengths = [2049] * 500 + [2047] * 500

    assert len(packed(lengths, [0] * 1000, ROW)) == 500


def test_pictures_are_spread_over_the_rows_that_text_fills():
    lengths, images = [400] * 5000 + [100] * 9000, [0] * 5000 + [1] * 9000
    tokens_alone = -(-sum(lengths) // ROW.row_tokens)  # longest first would put all text into rows of its own

    assert len(packed(lengths, images, ROW)) <= 1.025 * tokens_alone


@pytest.mark.parametrize("mixture", MIXTURES, ids=lambda mixture: mixture.__name__)
def test_a_sample_is_searched_for_once_on_every_shelf(mixture, monkeypatch):
    lengths, images = mixture(np.random.default_rng(0), 16384)
    searched: list[int] = []

    def search(lengths, tokens_left):
        searched.append(tokens_left)
        return bisect_right(lengths, tokens_left)

    monkeypatch.setattr(packing, "bisect", SimpleNamespace(bisect_right=search))

    rows = pack(range(16384), lengths, images, ROW)

    assert len(searched) <= (16384 + len(rows)) * len(np.unique(images))  # time: benchmarks/packing.py
