import dataclasses
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cambrian_eval import DataError
from cambrian_eval.picture import Picture
from cambrian_eval.selection import limit_questions, parse_ids, pick_questions, select, shuffle_pictures
from cambrian_eval.types import Question
from cambrian_eval.whole_units import SIZE


def questions(sizes, pictures=None):
    """One stratum for each size; every question its own picture unless `pictures` gives their contents."""
    made: list[Question] = []
    for stratum, size in enumerate(sizes):
        for _ in range(size):
            number = len(made)
            content = str(pictures[number] if pictures else number).encode()
            picture = Picture.from_bytes(f"{number}.png", content)
            part = "2D" if stratum % 2 == 0 else "3D"
            made.append(Question(f"q{number}", "?", ("a", "b"), ("A",), (picture,), part, f"task{stratum}", "source"))
    return made


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6), seed=st.integers(0, 5), share=st.floats(0, 1))
def test_limit_keeps_every_stratum_in_proportion_and_the_order_of_the_data(sizes, seed, share):
    everything = questions(sizes)
    limit = max(len(sizes), round(share * len(everything)))
    chosen = limit_questions(everything, limit, seed)
    assert len(chosen) == min(limit, len(everything))
    assert chosen == [question for question in everything if question in chosen]
    counts = Counter(question.stratum for question in chosen)
    for question in everything:
        ideal = limit * sum(q.stratum == question.stratum for q in everything) / len(everything)
        assert counts[question.stratum] >= 1
        # Every stratum has at least one question, so the others may lose as many as there are strata.
        assert abs(counts[question.stratum] - ideal) <= len(sizes)


def test_limit_depends_on_the_seed_and_on_nothing_else():
    everything = questions([30, 30])
    assert limit_questions(everything, 10, 1) == limit_questions(everything, 10, 1)
    assert limit_questions(everything, 10, 1) != limit_questions(everything, 10, 2)


def test_larger_limits_contain_smaller_ones():
    everything = questions([30, 10])
    assert {q.id for q in limit_questions(everything, 8, 0)} <= {q.id for q in limit_questions(everything, 20, 0)}


def test_limit_below_the_number_of_strata_is_an_error_with_both_numbers():
    with pytest.raises(DataError, match=r"found limit 1; the data has 2 groups .* give at least 2"):
        limit_questions(questions([3, 3]), 1, 0)


@settings(max_examples=60, deadline=None)
@given(contents=st.lists(st.integers(0, 9), min_size=2, max_size=40), seed=st.integers(0, 5))
def test_shuffled_pictures_are_never_a_questions_own(contents, seed):
    everything = questions([len(contents)], contents)
    if 2 * max(Counter(contents).values()) > len(contents):
        with pytest.raises(DataError, match="share one picture"):
            shuffle_pictures(everything, seed)
        return
    shuffled = shuffle_pictures(everything, seed)
    assert [q.id for q in shuffled] == [q.id for q in everything]
    assert all(a.pictures[0].sha256 != b.pictures[0].sha256 for a, b in zip(shuffled, everything, strict=True))
    assert Counter(q.pictures[0].sha256 for q in shuffled) == Counter(q.pictures[0].sha256 for q in everything)


def test_pictures_stay_in_their_part():
    everything = questions([5, 7, 3])
    part_of = {q.pictures[0].sha256: q.part for q in everything}
    assert all(part_of[q.pictures[0].sha256] == q.part for q in shuffle_pictures(everything, 0))


def test_limited_shuffled_run_shows_what_the_full_one_shows():
    everything = questions([9, 8])
    full = {q.id: q.pictures for q in select(everything, "shuffled", None, 3)}
    assert all(q.pictures == full[q.id] for q in select(everything, "shuffled", 6, 3))


def test_blind_questions_have_no_pictures():
    assert all(not q.pictures for q in select(questions([3, 3]), "blind", None, 0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("q3", ["q3"]),
        ("7,q3,0-1", ["q0", "q1", "q3", "q7"]),
        ("q3\nq3, 3\n", ["q3"]),
        ("8-99", ["q8", "q9"]),
    ],
)
def test_ids_and_places_in_the_data_name_questions(text, expected):
    assert [question.id for question in pick_questions(questions([10]), parse_ids(text))] == expected


def test_numbers_are_ids_where_the_data_has_numbers_for_ids():
    numbered = [dataclasses.replace(q, id=str(10 * n)) for n, q in enumerate(questions([6]))]
    assert [question.id for question in pick_questions(numbered, ["10", "25-40"])] == ["10", "30", "40"]
    with pytest.raises(DataError, match='"3" names none of the 6 questions'):
        pick_questions(numbered, ["3"])


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["q33"], 'ids: "q33" names none of the 5 questions; did you mean "q3"'),
        (["zebra"], "ids look like q0, q1, q2"),
        (["7"], '"7" names none'),
        (["3-1"], '"3-1" names none'),
        (["²"], "names none"),
        ([], "found no ids"),
    ],
)
def test_ids_that_name_nothing_are_errors(items, message):
    with pytest.raises(DataError, match=message):
        pick_questions(questions([5]), items)


@pytest.mark.parametrize("limit", [1, 2, 3, 9, 40])
def test_limit_keeps_whole_what_only_counts_together(limit):
    pairs = [
        dataclasses.replace(question, group=f"pair{number // 2}", details={SIZE: 2})
        for number, question in enumerate(questions([40]))
    ]
    chosen = limit_questions(pairs, limit, 0)
    assert set(Counter(question.group for question in chosen).values()) == {2}
    assert len(chosen) == max(2, limit // 2 * 2)


def test_shuffling_leaves_questions_without_pictures_alone():
    seeing = questions([6])
    text_only = [dataclasses.replace(question, id=f"t{question.id}", pictures=()) for question in seeing]
    shuffled = shuffle_pictures([*seeing, *text_only], 0)
    assert [question.pictures for question in shuffled[6:]] == [()] * 6
    assert all(one.pictures != two.pictures for one, two in zip(shuffled, seeing, strict=False))
