"""The geometry of image tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cambrian_model.errors import ImageError
from cambrian_model.image_tokens import (
    num_image_tokens,
    resize_grid,
    to_windows,
    token_layout,
    visible_mask,
    visible_region,
    window_masks,
)


def original_kept(height: int, width: int, side: int) -> tuple[int, int]:
    """Rows and columns that the original keeps, written from the recorded rule (reference README, oddity 9)."""
    if width / height > side / side:
        return side - 2 * ((side - int(height * (side / width))) // 2), side
    return side, side - 2 * ((side - int(width * (side / height))) // 2)


@pytest.mark.parametrize("side", [4, 6, 7, 24, 27])
def test_geometry_equals_the_original_for_every_size(side):
    for height in range(1, 201):
        for width in range(1, 201):
            region = visible_region((height, width), side)
            rows, columns = original_kept(height, width, side)
            # Documented difference: the original empties extreme pictures on even grids, ours keep the middle.
            expected = (max(rows, 2), max(columns, 2)) if 0 in (rows, columns) else (rows, columns)
            assert (region.rows, region.columns) == expected
            assert region.num_tokens == region.rows * (region.columns + 1)


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (3, 1000)])
def test_extreme_pictures_keep_tokens(size):
    assert num_image_tokens(size, 24) > 0


def test_a_picture_without_area_is_refused():
    with pytest.raises(ImageError, match="5x0 pixels has no area"):
        visible_region((0, 5), 24)


def test_layout_visits_every_visible_cell_once_and_closes_rows_with_a_newline():
    sizes, side = [(20, 50), (70, 20), (33, 33)], 6
    check_layout(sizes, side)


picture_sizes = st.tuples(st.integers(1, 6000), st.integers(1, 6000))


@settings(max_examples=80, deadline=None)
@given(sizes=st.lists(picture_sizes, max_size=4), side=st.integers(1, 27))
def test_any_pictures_are_laid_out_so(sizes, side):
    check_layout(sizes, side)


def check_layout(sizes: list[tuple[int, int]], side: int) -> None:
    layout = token_layout(sizes, side)
    assert layout.lengths == [num_image_tokens(size, side) for size in sizes]
    visible = visible_mask(sizes, side).flatten().nonzero().squeeze(1)
    assert layout.cells.tolist() == visible.tolist()
    newlines = sorted(set(range(sum(layout.lengths))) - set(layout.slots.tolist()))
    first, expected = 0, []
    for size, length in zip(sizes, layout.lengths, strict=True):
        region = visible_region(size, side)
        expected += [first + (row + 1) * (region.columns + 1) - 1 for row in range(region.rows)]
        first += length
    assert newlines == expected


def test_windows_cover_the_grid_once_in_place():
    side, query_side = 12, 4
    grid = torch.arange(2 * side * side).reshape(2, side * side)
    windows = to_windows(grid, query_side)
    assert sorted(windows.flatten().tolist()) == list(range(2 * side * side))
    corner = windows[1, 5].reshape(3, 3)  # row 1, column 1 of the queries
    assert corner.tolist() == grid[1].reshape(side, side)[3:6, 3:6].tolist()


@settings(max_examples=60, deadline=None)
@given(images=st.integers(1, 3), query_side=st.integers(1, 6), window_side=st.integers(1, 4), dim=st.integers(1, 3))
def test_any_grid_is_cut_into_windows_that_cover_it_once(images, query_side, window_side, dim):
    side = query_side * window_side
    grid = torch.arange(images * side * side * dim).reshape(images, side * side, dim)
    windows = to_windows(grid, query_side)
    assert windows.shape == (images, query_side**2, window_side**2, dim)
    cell, place = torch.meshgrid(torch.arange(query_side**2), torch.arange(window_side**2), indexing="ij")
    row = cell // query_side * window_side + place // window_side
    column = cell % query_side * window_side + place % window_side
    assert torch.equal(windows, grid[:, row * side + column])
    assert (row * side + column).flatten().sort().values.tolist() == list(range(side * side))


@settings(max_examples=80, deadline=None)
@given(size=picture_sizes, query_side=st.integers(1, 8), window_side=st.integers(1, 4))
def test_window_masks_show_the_picture_and_only_it(size, query_side, window_side):
    side = query_side * window_side
    (visible,) = to_windows(visible_mask([size], side).flatten(1), query_side)
    (masks,) = window_masks([size], side, query_side)
    shown = visible.any(dim=1)
    assert visible.sum() == visible_region(size, side).rows * visible_region(size, side).columns
    assert torch.equal(masks[shown], visible[shown])
    assert masks[~shown].all()


def test_a_window_of_padding_alone_is_marked_whole():
    masks = window_masks([(10, 100)], 12, 4)
    assert masks.shape == (1, 16, 9)
    assert masks[0, 0].all()  # top left: nothing of a flat picture is there
    assert masks[0, 4:8].sum() == 4 * 3 * 1  # its middle rows show one of three feature rows


def test_no_pictures_give_an_empty_layout():
    layout = token_layout([], 4)
    assert layout.cells.shape == (0,)
    assert layout.lengths == []


def test_resizing_keeps_a_grid_of_the_right_size_untouched():
    features = torch.rand(2, 9, 5)
    assert resize_grid(features, 3) is features
    assert resize_grid(features, 6).shape == (2, 36, 5)
    torch.testing.assert_close(resize_grid(torch.ones(1, 9, 2), 7), torch.ones(1, 49, 2))
