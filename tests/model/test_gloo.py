import os
import time

import pytest
import torch
import torch.distributed as dist

from tests.support.gloo import RankError, run_ranks


def sum_of_ranks(start):
    total = torch.tensor(start + dist.get_rank())
    dist.all_reduce(total)
    return int(total), os.environ["RANK"], os.environ["WORLD_SIZE"]


def fail_on_rank_1():
    if dist.get_rank() == 1:
        raise ValueError("this one is odd")
    dist.barrier()


def end_on_rank_1():
    if dist.get_rank() == 1:
        os._exit(7)
    dist.barrier()


def sleep():
    time.sleep(60)


def test_every_rank_talks_to_the_others_and_returns_its_result():
    assert run_ranks(sum_of_ranks, 3, 5) == [(18, "0", "3"), (18, "1", "3"), (18, "2", "3")]


@pytest.mark.parametrize(
    ("function", "message"),
    [(fail_on_rank_1, r"rank 1: [\s\S]*ValueError: this one is odd"), (end_on_rank_1, "rank 1 ended with exit code 7")],
)
def test_a_rank_that_fails_is_named_and_the_others_are_ended(function, message):
    with pytest.raises(RankError, match=message):
        run_ranks(function, 2)


def test_ranks_that_do_not_end_are_ended():
    with pytest.raises(RankError, match="rank 0, rank 1 did not end in time"):
        run_ranks(sleep, 2, timeout=1)
