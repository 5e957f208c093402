"""Places in words: sixteenths of the picture and steps of depth."""

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cambrian_data import places
from cambrian_data.boxes import Box
from cambrian_data.places import depth_step, left_to_right, place_words, step


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (0.0, 0),
        (math.nextafter(1 / 16, 0), 0),
        (1 / 16, 1),
        (0.5, 8),
        (math.nextafter(1, 0), 15),
        (1.0, 15),  # the picture's last edge belongs to its last sixteenth
        (-0.01, 0),
        (-3.0, 0),
        (1.01, 15),
        (40.0, 15),
    ],
)
def test_points_outside_the_picture_count_as_on_its_edge(part, expected):
    assert step(part) == expected


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(-2.0, 0), (0.0, 0), (0.5, 0), (1.0, 0), (1.11, 0), (1.13, 1), (7.0, 17), (1200.0, 62), (1270.0, 63), (1e12, 63)],
)
def test_depth_counts_twelve_percents_from_one_metre(depth, expected):
    assert depth_step(depth) == expected


def test_a_place_is_that_of_the_box_s_middle():
    box = Box(20, 60, 30, 80)  # middle (25, 70) of 160 x 320
    assert place_words(box, 160, 320) == ("at x2", "y3")
    assert place_words(box, 160, 320, 7.0) == ("at x2", "y3", "z17")
    assert place_words(box, 320, 160) == ("at x1", "y7")
    assert place_words(Box(0, 0, 0, 0), 160, 320, 0.0) == ("at x0", "y0", "z0")
    assert place_words(Box(160, 320, 160, 320), 160, 320) == ("at x15", "y15")
    assert place_words(Box(-90, 400, -80, 500), 160, 320) == ("at x0", "y15")


pixels = st.integers(0, 4096)
sides = st.integers(1, 4096)
boxes = st.tuples(pixels, pixels, pixels, pixels).map(
    lambda edges: Box(
        min(edges[0], edges[2]), min(edges[1], edges[3]), max(edges[0], edges[2]), max(edges[1], edges[3])
    )
)
depths = st.floats(0.01, 5000)


@given(boxes, sides, sides, st.integers(2, 50), st.none() | depths)
def test_a_place_does_not_depend_on_the_picture_s_size(box, width, height, times, depth):
    larger = Box(*(edge * times for edge in box))
    assert place_words(larger, width * times, height * times, depth) == place_words(box, width, height, depth)


@given(boxes, boxes, sides, sides)
def test_left_to_right_sorts_as_the_words_read(one, other, width, height):
    keys = [left_to_right(box, width, height) for box in (one, other)]
    for key, box in zip(keys, (one, other), strict=True):
        assert place_words(box, width, height) == (f"at x{key[0]}", f"y{key[1]}")
    if one.centre[0] <= other.centre[0] and one.centre[1] <= other.centre[1]:
        assert keys[0] <= keys[1]


@given(depths, depths)
def test_what_is_further_away_has_no_smaller_step(one, other):
    near, far = sorted((one, other))
    assert depth_step(near) <= depth_step(far)
    if near >= 1 and far >= 1.13 * near and depth_step(near) < 63:
        assert depth_step(near) < depth_step(far)


def test_the_example_is_true():
    assert doctest.testmod(places) == (0, 1)
