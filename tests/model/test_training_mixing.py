import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cambrian_model.errors import TrainingError
from cambrian_model.training.mixing import WINDOW, MixtureIndex, plan_epoch, steps_of
from cambrian_model.training.packing import Limits, lower_bound

ROW = Limits(row_tokens=64, max_images=4)


def mixture(sizes, weights=None, lengths=None, index_hash=1, **columns):
    """Sources "a", "b", ... of these sizes, of samples of one token each unless something else is given."""
    count = sum(sizes)
    return MixtureIndex(
        lengths=np.array(lengths or [1] * count),
        num_images=np.array(columns.get("images", [0] * count)),
        picture_ends=np.array(columns.get("picture_ends", [0] * count)),
        first_supervised=np.array(columns.get("first_supervised", [1] * count)),
        source=np.repeat(np.arange(len(sizes)), sizes),
        names=[chr(ord("a") + source) for source in range(len(sizes))],
        weights=weights or [1.0] * len(sizes),
        hash=index_hash,
    )


def taken(index, epoch=0, seed=0, limits=ROW):
    """How often an epoch takes each sample."""
    return Counter(itertools.chain(*plan_epoch(index, limits, seed, epoch).rows))


def test_weight_one_takes_every_sample_once_whatever_the_number_of_windows():
    index = mixture([WINDOW, 1, 3])

    for epoch in range(2):
        assert taken(index, epoch) == Counter(range(WINDOW + 4))


def test_a_weight_below_one_takes_other_samples_until_all_have_been_taken():
    index = mixture([10, 7], weights=[0.5, 1])
    first, second, third = (taken(index, epoch) for epoch in range(3))

    assert first + second == Counter(range(10)) + Counter(range(10, 17)) + Counter(range(10, 17))
    assert third == first  # the third epoch begins the second round


def test_a_weight_above_one_takes_samples_again_the_part_of_a_round_after_all_of_them():
    index = mixture([10], weights=[2.5])
    first, second = taken(index, 0), taken(index, 1)

    assert sorted(first.values()) == [2] * 5 + [3] * 5
    assert first + second == Counter(list(range(10)) * 5)


@given(
    st.lists(st.tuples(st.integers(10, 40), st.floats(0.1, 3)), min_size=1, max_size=3),
    st.integers(1, 6),
    st.integers(0, 3),
)
@settings(deadline=None, max_examples=60)  # a busy machine may be slow
def test_over_all_epochs_samples_of_a_source_are_taken_equally_often_and_as_its_weight_says(sources, epochs, seed):
    sizes, weights = [size for size, _ in sources], [weight for _, weight in sources]
    index = mixture(sizes, weights)
    counts: Counter[int] = sum((taken(index, epoch, seed) for epoch in range(epochs)), Counter())

    for source, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
        of_source = [counts[sample] for sample in np.flatnonzero(index.source == source).tolist()]
        assert max(of_source) - min(of_source) <= 1
        assert abs(sum(of_source) - epochs * weight * size) <= 0.5 + 1e-6  # rounded once; floats are not exact


def test_which_samples_a_weight_takes_depends_on_data_and_seed():
    orders = [
        taken(mixture([100], [0.5], index_hash=index_hash), seed=seed) for index_hash, seed in ((1, 0), (1, 1), (2, 0))
    ]

    assert taken(mixture([100], [0.5])) == orders[0]
    assert all(a != b for a, b in itertools.combinations(orders, 2))


def test_order_depends_on_data_seed_and_epoch_and_on_nothing_else():
    def rows(index_hash=1, seed=0, epoch=0):
        return plan_epoch(mixture([200, 100], index_hash=index_hash), ROW, seed, epoch).rows

    orders = [rows(), rows(index_hash=2), rows(seed=1), rows(epoch=1)]

    assert rows() == orders[0]
    assert all(a != b for a, b in itertools.combinations(orders, 2))


def test_rows_do_not_begin_with_the_longest_samples():
    lengths = [60] * 500 + [5] * 500
    rows = plan_epoch(mixture([1000], lengths=lengths), Limits(60), 0, 0).rows
    is_long = [any(sample < 500 for sample in row) for row in rows]

    # 500 of 542 rows are long; of 271 shuffled ones 250 with a standard deviation of 3, in order 271 or 229.
    assert 235 < sum(is_long[:271]) < 265


def test_windows_pack_nearly_as_well_as_everything_at_once():
    random = np.random.default_rng(0)
    images = random.integers(0, 7, 3 * WINDOW)
    lengths = (images * 64 + random.lognormal(np.log(600), 1, images.size).astype(int)).clip(1, 4096)
    limits = Limits(4096, 18)
    rows = plan_epoch(mixture([images.size], lengths=lengths.tolist(), images=images), limits, 0, 0).rows

    assert len(rows) <= 1.025 * lower_bound(lengths, images, limits)


def test_text_is_cut_and_what_would_lose_a_picture_or_all_supervision_is_dropped_by_reason():
    index = mixture(
        [7],
        lengths=[10, 65, 70, 80, 64, 90, 20],
        images=[0, 0, 1, 1, 2, 5, 5],
        picture_ends=[0, 0, 64, 65, 60, 40, 15],
        first_supervised=[1, 64, 63, 66, 63, 50, 16],
    )
    plan = plan_epoch(index, ROW, 0, 0)

    assert plan.dropped == {
        "a picture does not end within a row of 64 tokens": [3],
        "no supervised token within a row of 64 tokens": [1],
        "more than 4 images": [5, 6],
    }
    assert plan.truncated == [2]
    assert sorted(itertools.chain(*plan.rows)) == [0, 2, 4]
    assert plan.fill == pytest.approx((10 + 64 + 64) / (3 * 64))


def test_long_samples_may_be_dropped_instead_of_cut():
    plan = plan_epoch(mixture([3], lengths=[10, 65, 64]), ROW, 0, 0, too_long="drop")

    assert plan.dropped == {"longer than a row of 64 tokens": [1]}
    assert plan.truncated == []
    assert sorted(itertools.chain(*plan.rows)) == [0, 2]


def test_samples_that_the_index_could_not_read_are_in_no_row():
    plan = plan_epoch(mixture([4], lengths=[10, 0, 10, 0]), ROW, 0, 0)

    assert plan.dropped == {"could not be read when the data was indexed": [1, 3]}
    assert sorted(itertools.chain(*plan.rows)) == [0, 2]


def test_what_is_dropped_is_the_same_in_every_epoch_and_is_not_counted_in_a_weight():
    index = mixture([6], weights=[0.5], lengths=[10, 70, 10, 70, 10, 10])
    plans = [plan_epoch(index, ROW, 0, epoch, "drop") for epoch in range(2)]

    assert plans[0].dropped == plans[1].dropped
    assert sorted(itertools.chain(*plans[0].rows, *plans[1].rows)) == [0, 2, 4, 5]


def test_the_share_of_tokens_is_what_is_trained_on():
    index = mixture([2, 1, 1], weights=[1, 3, 1], lengths=[10, 100, 6, 70], first_supervised=[1, 1, 1, 65])
    plan = plan_epoch(index, Limits(64), 0, 0)

    assert plan.token_share == pytest.approx({"a": 74 / 92, "b": 18 / 92, "c": 0})


def test_an_epoch_is_cut_into_steps_of_which_the_last_may_be_smaller():
    plan = plan_epoch(mixture([50], lengths=[64] * 50), ROW, 0, 0)
    steps = steps_of(plan, 8)

    assert [len(step) for step in steps] == [8] * 6 + [2]
    assert list(itertools.chain(*steps)) == plan.rows


def test_data_of_which_nothing_fits_is_an_error_that_says_why():
    with pytest.raises(
        TrainingError,
        match=r"none of 3 samples fits into a row of 64 tokens and 4 images \(2: longer than a row of 64 tokens; "
        r"1: more than 4 images; shortest sample: 5 tokens\); raise batch.row_tokens",
    ):
        plan_epoch(mixture([3], lengths=[70, 80, 5], images=[0, 0, 5]), ROW, 0, 0, "drop")


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_that_is_not_a_positive_number_is_an_error(weight):
    with pytest.raises(TrainingError, match=r'source "b" has weight .*above 0'):
        mixture([3, 3], weights=[1, weight])


def test_nothing_to_train_on_is_an_error():
    with pytest.raises(TrainingError, match="no samples to train on"):
        mixture([])
    with pytest.raises(TrainingError, match='source "b" has no samples'):
        mixture([3, 0])
    with pytest.raises(TrainingError, match=r"less than one sample .*\[0.01, 0.2\].*raise the weights"):
        plan_epoch(mixture([3, 4], weights=[0.01, 0.2]), ROW, 0, 0)
