"""Streams: the same steps however often reading is interrupted, every sample once, sources mixed by weight."""

import dataclasses
import io
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cambrian_model.errors import PromptError, TrainingError
from cambrian_model.processing.measure import Measure
from cambrian_model.training.bad_samples import UnreadableSampleError
from cambrian_model.training.batches import Place, SampleRef, StepRows
from cambrian_model.training.index import Conversation
from cambrian_model.training.packing import Limits, lower_bound
from cambrian_model.training.stream_sources import occurrences
from cambrian_model.training.streaming import (
    DatasetSource,
    MixedSource,
    StreamPlace,
    StreamSchedule,
    StreamSource,
    Weighted,
    read_place,
)

ROW = 64


class Numbers:
    """Measures samples whose text is made of the numbers to be found: length, picture's end, first supervised."""

    def measure(self, messages: Any, image_sizes: Any) -> Measure:
        if messages is None:
            raise PromptError("nothing to learn from")
        assert len(image_sizes) == messages["images"]
        return Measure(messages["length"], messages["picture_end"], messages["first"])


class Lines:
    """A source that knows only how to go on behind a line; some of its lines may be errors."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items
        self.start(0)

    def start(self, epoch: int) -> None:
        self._epoch, self._line = epoch, 0

    def __iter__(self) -> Iterator[Any]:
        while self._line < len(self._items):
            self._line += 1
            yield self._items[self._line - 1]

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "line": self._line}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._epoch, self._line = state["epoch"], state["line"]


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (5, 7)).save(file, "PNG")
    return file.getvalue()


PNG = png()


def sample(name: str, length: int = 10, images: int = 0, picture_end: int = 0, first: int = 3) -> dict[str, Any]:
    numbers = {"length": length, "images": images, "picture_end": picture_end, "first": first}
    return {"id": name, "messages": numbers, "images": [PNG] * images}


def samples(count: int, prefix: str = "s", seed: int = 0) -> list[dict[str, Any]]:
    """Many short samples and few long ones, a third with pictures."""
    random = np.random.default_rng(seed)
    lengths = (random.random(count) ** 2 * 55 + 5).astype(int).tolist()
    return [sample(f"{prefix}{i}", length, images=(i % 3 == 0) * (1 + i % 2)) for i, length in enumerate(lengths)]


def schedule(source: StreamSource, window: int = 16, step_rows: int = 3, **options: Any) -> StreamSchedule:
    return StreamSchedule(
        source,
        Numbers(),  # type: ignore[arg-type]  # measures, and never encodes
        options.pop("limits", Limits(ROW, 4)),
        step_rows,
        seed=options.pop("seed", 0),
        window=window,
        **options,
    )


def take(plan: StreamSchedule, count: int, place: Place | None = None) -> list[StepRows]:
    return list(itertools.islice(plan.steps(place or Place()), count))


def epoch_of(plan: StreamSchedule, epoch: int = 0) -> list[StepRows]:
    return list(itertools.takewhile(lambda step: step.epoch == epoch, plan.steps(Place(epoch))))


def in_row(row: Sequence[SampleRef]) -> list[Conversation]:
    """The samples of a row, which a stream gives whole, not by number."""
    found = [each for each in row if not isinstance(each, int)]
    assert len(found) == len(row)
    return found


def ids(steps: Sequence[StepRows]) -> list[str]:
    return [each["id"] for step in steps for row in step.rows for each in in_row(row)]


def place_after(step: StepRows) -> StreamPlace:
    assert isinstance(step.next_place, StreamPlace)
    return step.next_place


def saved(place: Place) -> Place:
    """A place after it lay in a checkpoint."""
    return read_place(json.loads(json.dumps(dataclasses.asdict(place))))


@given(st.integers(1, 90), st.integers(1, 40), st.integers(1, 9), st.integers(0, 5))
def test_every_sample_occurs_once_in_an_epoch_in_whole_steps_but_for_the_last(count, window, step_rows, seed):
    data = samples(count, seed=seed)
    steps = epoch_of(schedule(Lines(data), window, step_rows, seed=seed))

    assert sorted(ids(steps)) == sorted(each["id"] for each in data)
    assert {len(step.rows) for step in steps[:-1]} <= {step_rows}
    assert 1 <= len(steps[-1].rows) <= step_rows
    assert steps[-1].next_place == StreamPlace(epoch=1)
    for row in itertools.chain(*(step.rows for step in steps)):
        assert row
        assert sum(each["messages"]["length"] for each in in_row(row)) <= ROW
        assert sum(each["messages"]["images"] for each in in_row(row)) <= 4


def mixed() -> MixedSource:
    broken = UnreadableSampleError("b.jsonl:7", "malformed JSON")
    return MixedSource(
        {
            "lines": Weighted(Lines([*samples(30, "a"), broken, *samples(9, "b")]), 1.0),
            "numbered": Weighted(DatasetSource(samples(20, "c"), seed=4), 1.5, size=20),
            "half": Weighted(Lines([*samples(15, "d"), sample("long", 70, first=66)]), 0.5),
        }
    )


@pytest.mark.parametrize("window", [5, 16, 40])
def test_a_run_killed_behind_any_step_goes_on_with_the_very_same_steps(window):
    whole = take(schedule(mixed(), window, on_bad="skip"), 30)

    assert {step.epoch for step in whole} >= {0, 1, 2}
    assert [sum(len(step.bad) for step in whole if step.epoch == epoch) for epoch in (0, 1)] == [1, 1]
    for killed in range(1, len(whole)):
        again = schedule(mixed(), window, on_bad="skip")  # of a new process: nothing is left of the old one
        rest = take(again, len(whole) - killed, saved(whole[killed - 1].next_place))
        assert rest == whole[killed:]


def test_a_place_is_a_few_numbers_however_many_samples_wait():
    steps = take(schedule(Lines(samples(500)), window=100), 20)

    assert all(len(json.dumps(dataclasses.asdict(step.next_place))) < 200 for step in steps)
    assert any(place_after(step).window_step for step in steps)


def test_the_order_depends_on_the_seed_and_the_epoch():
    orders = [ids(epoch_of(schedule(Lines(samples(60)), seed=seed), epoch)) for seed in (0, 1) for epoch in (0, 1)]

    assert len({tuple(order) for order in orders}) == 4


def test_windows_are_filled_nearly_as_well_as_possible():
    """Of 20 windows each leaves half a row empty where it is cut: 20 / 2 rows of some 640, within 3 %."""
    data = samples(2000)
    steps = epoch_of(schedule(Lines(data), window=100, step_rows=4))
    lengths, images = zip(*((each["messages"]["length"], each["messages"]["images"]) for each in data), strict=True)

    assert sum(len(step.rows) for step in steps) <= 1.03 * lower_bound(lengths, images, Limits(ROW, 4))


def test_a_step_larger_than_a_window_reads_on_until_it_is_whole():
    steps = epoch_of(schedule(Lines(samples(200)), window=4, step_rows=25))

    assert [len(step.rows) for step in steps[:-1]] == [25] * (len(steps) - 1)
    assert len(steps) > 1


def test_samples_that_fit_nowhere_are_counted_by_reason():
    data = [
        sample("fits"),
        sample("cut", 65, first=63),
        sample("picture", 99, images=1, picture_end=65),
        sample("untaught", 99, first=64),
        sample("many", 20, images=5),
    ]
    (step,) = epoch_of(schedule(Lines(data)))

    assert sorted(ids([step])) == ["cut", "fits"]
    assert step.next_place == StreamPlace(
        epoch=1,
        left_out={
            "a picture does not end within a row of 64 tokens": 1,
            "no supervised token within a row of 64 tokens": 1,
            "more than 4 images": 1,
        },
    )
    (step,) = epoch_of(schedule(Lines(data), too_long="drop"))
    assert ids([step]) == ["fits"]
    assert place_after(step).left_out["longer than a row of 64 tokens"] == 3


def bad_samples(tmp_path: Path) -> list[Any]:
    broken = sample("broken picture", images=1) | {"images": [b"no picture"]}
    missing = sample("missing picture", images=1) | {"images": [str(tmp_path / "none.png")], "location": "x.jsonl:3"}
    untaught = sample("untaught") | {"messages": None}
    return [
        sample("good"),
        broken,
        missing,
        untaught,
        UnreadableSampleError("x.jsonl:5", "malformed JSON"),
        sample("also good"),
    ]


def test_bad_samples_are_left_out_counted_and_listed_if_asked(tmp_path):
    (step,) = epoch_of(schedule(Lines(bad_samples(tmp_path)), on_bad="skip"))

    assert sorted(ids([step])) == ["also good", "good"]
    assert place_after(step).left_out == {"cannot be read": 4}
    assert [each.name for each in step.bad] == [
        'sample "broken picture"',
        "x.jsonl:3",
        'sample "untaught"',
        "x.jsonl:5",
    ]
    assert [each.reason for each in step.bad][2:] == ["nothing to learn from", "malformed JSON"]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1, 'sample "broken picture": image 0: is no image of a known format'),
        (2, "x.jsonl:3: .*none.png: no such file"),
        (3, 'sample "untaught": nothing to learn from'),
        (4, "x.jsonl:5: malformed JSON"),
    ],
)
def test_a_bad_sample_is_an_error_that_names_it(tmp_path, number, said):
    data = [sample("good"), bad_samples(tmp_path)[number]]
    with pytest.raises(TrainingError, match=f"{said}.*--on-bad-sample skip"):
        take(schedule(Lines(data)), 1)


def test_a_stream_of_nothing_is_an_error_and_not_an_endless_search():
    with pytest.raises(TrainingError, match=r"rows of 64 tokens and 4 images \(it holds no records"):
        take(schedule(Lines([])), 1)
    with pytest.raises(TrainingError, match="1: no supervised token within a row of 64 tokens"):
        take(schedule(Lines([sample("untaught", 99, first=64)])), 1)


def test_the_place_of_an_indexed_run_is_no_place_in_a_stream():
    with pytest.raises(TrainingError, match="step 3 of epoch 1 is no place in a stream"):
        take(schedule(Lines(samples(9))), 1, Place(1, 3))


def test_a_stage_that_ends_after_epochs_is_asked_for_its_steps():
    with pytest.raises(TrainingError, match=r"2 epochs reads a stream.*set max_steps"):
        schedule(Lines(samples(9))).num_steps(2)


def names_of(source: StreamSource, epoch: int = 0) -> list[str]:
    source.start(epoch)
    return [each["id"] for each in source if not isinstance(each, UnreadableSampleError)]


def test_sources_of_known_sizes_are_spread_evenly_and_end_together():
    source = MixedSource(
        {
            "large": Weighted(Lines(samples(90, "a")), 1.0, size=90),
            "small": Weighted(Lines(samples(30, "b")), 1.0, size=30),
        }
    )
    order = "".join(name[0] for name in names_of(source))

    assert Counter(order) == {"a": 90, "b": 30}
    assert all(order[start : start + 4].count("b") == 1 for start in range(0, 120, 4))


def test_sources_of_unknown_sizes_alternate_by_weight_until_each_ends():
    source = MixedSource({"a": Weighted(Lines(samples(40, "a")), 2.0), "b": Weighted(Lines(samples(30, "b")), 1.0)})
    order = "".join(name[0] for name in names_of(source))

    assert Counter(order) == {"a": 80, "b": 30}
    assert all(order[start : start + 3].count("b") == 1 for start in range(0, 90, 3))
    assert order.endswith("a" * 20)


def test_a_source_is_read_in_another_order_when_it_is_read_again():
    names = names_of(MixedSource({"a": Weighted(DatasetSource(samples(20), seed=0), 2.0)}))

    assert sorted(names[:20]) == sorted(names[20:])
    assert names[:20] != names[20:]


@pytest.mark.parametrize("weight", [0.25, 0.5, 1.0, 1.5, 2.0, 2.75])
def test_over_epochs_every_sample_occurs_as_often_as_its_weight_says(weight):
    source = MixedSource({"a": Weighted(Lines(samples(50, "a")), weight)})
    epochs = [Counter(names_of(source, epoch)) for epoch in range(4)]

    for epoch in epochs:
        assert set(epoch.values()) <= {int(weight), int(-(-weight // 1))} - {0}
    assert set(sum(epochs, Counter()).values()) == {int(4 * weight)}


@given(st.text(min_size=1), st.floats(0.01, 5), st.integers(0, 99))
def test_occurrences_never_stray_from_the_weight(name, weight, epochs):
    # One at either end of the interval of epochs, whatever the weight.
    assert abs(sum(occurrences(name, weight, epoch) for epoch in range(epochs)) - weight * epochs) <= 1 + 1e-9


def test_half_of_a_source_is_about_half_of_its_samples():
    """Which samples is decided by their names: binomial, so 1,000 of 2,000 within 5 standard deviations of 22."""
    source = MixedSource({"a": Weighted(Lines(samples(2000, "a")), 0.5)})
    assert len(names_of(source)) == pytest.approx(1000, abs=112)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(TrainingError, match='source "a" has weight'):
        MixedSource({"a": Weighted(Lines([]), weight)})


def test_other_data_than_a_run_was_saved_with_is_refused():
    place = take(schedule(mixed(), on_bad="skip"), 1)[0].next_place
    fewer = MixedSource({"numbered": Weighted(DatasetSource(samples(20, "c"), seed=4), 1.5)})
    with pytest.raises(TrainingError, match="saved with the sources lines, numbered, half, and now has numbered"):
        take(schedule(fewer), 1, place)

    shorter = DatasetSource(samples(19), seed=4)
    with pytest.raises(TrainingError, match="had 20 samples when the run was saved and has 19 now"):
        shorter.load_state_dict(DatasetSource(samples(20), seed=4).state_dict())


class Broken(list[dict[str, Any]]):
    """A data set whose second sample cannot be read."""

    def __getitem__(self, number: Any) -> Any:
        if number == 1:
            raise UnreadableSampleError("y.jsonl:2", "malformed JSON")
        return super().__getitem__(number)


def test_a_sample_that_a_data_set_cannot_give_is_bad_like_any_other():
    (step,) = epoch_of(schedule(DatasetSource(Broken(samples(3)), seed=0), on_bad="skip"))

    assert sorted(ids([step])) == ["s0", "s2"]
    assert step.bad == [(-1, "y.jsonl:2", "malformed JSON")]


def test_a_data_set_with_numbers_is_shuffled_anew_in_every_epoch():
    source = DatasetSource(samples(40), seed=1)
    orders = [names_of(source, epoch) for epoch in (0, 1, 0)]

    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
