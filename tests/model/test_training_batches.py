import itertools

import numpy as np
import pytest
import torch

from cambrian_model.errors import PromptError, TrainingError
from cambrian_model.processing.sample import IGNORED_LABEL, Sample
from cambrian_model.training.bad_samples import BadSample
from cambrian_model.training.batches import PackedSchedule, Place, Share, StepEncoder, stream
from cambrian_model.training.mixing import MixtureIndex, steps_of
from cambrian_model.training.recipe.stage import BatchSection


def text_index(lengths):
    """An index of samples without pictures, whose second token is the first that is trained on."""
    nothing = np.zeros(len(lengths), np.int32)
    return MixtureIndex(np.array(lengths, np.int32), nothing, nothing, nothing + 1, nothing, ["texts"], [1.0], hash=1)


def mixed_lengths(count):
    return (np.random.default_rng(0).random(count) ** 2 * 1500 + 20).astype(int).tolist()


def test_continuing_from_a_place_gives_the_steps_that_would_have_followed():
    schedule = PackedSchedule(text_index(mixed_lengths(50)), BatchSection(rows=4, row_tokens=2048), seed=0)
    steps = list(itertools.islice(schedule.steps(Place()), 25))

    assert {step.epoch for step in steps} >= {0, 1, 2}
    for taken in (1, 7, 24):
        rest = itertools.islice(schedule.steps(steps[taken - 1].next_place), 25 - taken)
        assert list(rest) == steps[taken:]


def test_an_epoch_has_every_row_once_and_its_last_step_may_be_smaller():
    schedule = PackedSchedule(text_index([64] * 50), BatchSection(rows=4, row_tokens=64), seed=0)
    plan = schedule.plan(0)
    steps = list(itertools.islice(schedule.steps(Place()), 13))

    assert sorted(itertools.chain(*plan.rows)) == list(range(50))
    assert [step.rows for step in steps] == steps_of(plan, 4)
    assert [len(step.rows) for step in steps] == [4] * 12 + [2]
    assert (steps[-1].epoch, steps[-1].next_place) == (0, Place(1))
    assert schedule.num_steps(epochs=2) == 26


class Words:
    """Encodes a message as one token for each of its words, which are numbers, and two small pictures without any."""

    def encode(self, messages, images):
        if "broken" in (words := messages[0]["content"].split()):
            raise PromptError("it is broken")
        return sample_of([int(word) for word in words])

    def measure(self, messages, image_sizes):
        raise AssertionError("the samples are encoded and never measured")


def sample_of(ids):
    pixels = [torch.zeros(0, 3, side, side) for side in (2, 5)]
    labels = [IGNORED_LABEL, *ids[1:]][: len(ids)]
    input_ids, supervised = (torch.tensor(values, dtype=torch.long) for values in (ids, labels))
    return Sample(input_ids, supervised, pixels, torch.zeros(0, 2, dtype=torch.long))


def texts(count):
    """Sample i is the number i + 1, twice to six times."""
    lengths = [2 + i % 5 for i in range(count)]
    contents = [" ".join([str(i + 1)] * length) for i, length in enumerate(lengths)]
    return [{"id": f"text-{i}", "messages": [{"role": "user", "content": text}]} for i, text in enumerate(contents)]


def encoder_of(dataset, batch, share=Share(), lengths=None, on_bad="error"):  # noqa: B008  (a tuple of two numbers)
    return StepEncoder(dataset, Words(), batch, 0, sample_of([]), share, lengths, on_bad)


def filled_rows(step):
    """The rows of a step that are not all padding, as tuples of numbers."""
    rows = [tuple(row) for batch in step.batches for row in batch.inputs["input_ids"].tolist()]
    return [row for row in rows if any(row)]


@pytest.mark.parametrize("micro_rows", [None, 1, 2])
@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_ranks_share_every_step_and_run_the_same_number_of_batches(ranks, micro_rows):
    batch = BatchSection(rows=5, micro_rows=micro_rows, row_tokens=16)
    dataset = texts(43)
    schedule = PackedSchedule(text_index([2 + i % 5 for i in range(43)]), batch, seed=0)
    one = encoder_of(dataset, batch)
    shares = [encoder_of(dataset, batch, Share(rank, ranks)) for rank in range(ranks)]
    planned = list(itertools.islice(schedule.steps(Place()), schedule.num_steps(1)))
    assert len(planned[-1].rows) < 5  # the last step of an epoch is smaller, and shared as well

    for step in planned:
        whole, parts = one[step], [share[step] for share in shares]
        assert [filled_rows(part) for part in parts] == [filled_rows(whole)[rank::ranks] for rank in range(ranks)]
        assert sorted(itertools.chain(*(part.ids for part in parts))) == sorted(whole.ids)
        assert sum(part.supervised_tokens for part in parts) == whole.supervised_tokens
        shapes = [[tuple(each.inputs["input_ids"].shape) for each in part.batches] for part in parts]
        assert all(shape == shapes[0] for shape in shapes)
        assert all(rows <= (micro_rows or 5) for rows, _ in shapes[0])
        assert {part.next_place for part in parts} == {step.next_place}


def test_a_rank_without_a_row_gets_batches_of_padding_without_pictures():
    batch = BatchSection(rows=2, row_tokens=16)
    schedule = PackedSchedule(text_index([6, 6, 6, 6]), batch, seed=0)
    step = next(schedule.steps(Place()))
    idle = encoder_of(texts(4), batch, Share(2, 3))[step]

    (padding,) = idle.batches
    assert (idle.ids, idle.supervised_tokens, padding.tokens, padding.samples) == ([], 0, 0, 0)
    assert (padding.inputs["labels"] == IGNORED_LABEL).all()
    assert [tuple(pixels.shape) for pixels in padding.inputs["pixel_values"]] == [(0, 3, 2, 2), (0, 3, 5, 5)]
    assert tuple(padding.inputs["image_sizes"].shape) == (0, 2)


def broken_texts():
    """Nine samples, of which the fifth cannot be encoded."""
    dataset = texts(9)
    dataset[4] = {**dataset[4], "messages": [{"role": "user", "content": "broken"}], "location": "mine.jsonl:5"}
    return dataset, PackedSchedule(text_index([2 + i % 5 for i in range(9)]), BatchSection(rows=9, row_tokens=16), 0)


def test_a_sample_that_cannot_be_read_is_left_out_and_named():
    dataset, schedule = broken_texts()
    step = next(stream(encoder_of(dataset, schedule.batch, on_bad="skip"), schedule, Place()))

    assert step.bad == [BadSample(4, "mine.jsonl:5", "it is broken")]
    assert sorted(step.ids) == sorted(f"text-{i}" for i in range(9) if i != 4)
    assert {token for row in filled_rows(step) for token in row} - {0} == {i + 1 for i in range(9) if i != 4}


def test_a_sample_that_cannot_be_read_is_an_error_that_says_what_to_do():
    dataset, schedule = broken_texts()
    with pytest.raises(TrainingError, match=r"^mine\.jsonl:5: it is broken; .*--on-bad-sample skip$"):
        next(stream(encoder_of(dataset, schedule.batch), schedule, Place()))


@pytest.mark.parametrize("on_bad", ["error", "skip"])
def test_a_sample_that_changed_since_it_was_indexed_is_an_error(on_bad):
    batch = BatchSection(rows=1, row_tokens=16)
    schedule = PackedSchedule(text_index([3]), batch, seed=0)
    changed = encoder_of(texts(1), batch, lengths=[3], on_bad=on_bad)
    with pytest.raises(TrainingError, match=r'sample "text-0" has 2 tokens, but had 3 when .*do not change records'):
        next(stream(changed, schedule, Place()))
