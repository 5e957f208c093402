"""The loss scale of fp16: what it saves, when it moves, and that it changes nothing else."""

import json
import math

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from cambrian_model.errors import TrainingError
from cambrian_model.training.loss_scale import LossScale


def new_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 3), nn.Linear(3, 2).requires_grad_(False))


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def backward(model: nn.Module, scale: float = 1.0) -> None:
    inputs = torch.linspace(-1, 1, 20).reshape(4, 5).to(next(model.parameters()).dtype)
    (model(inputs).square().mean() * scale).backward()


def test_gradients_are_bit_identical_to_those_without_a_scale():
    plain, scaled, loss_scale = new_model(), new_model(), LossScale()
    backward(plain)
    backward(scaled, loss_scale.scale)
    assert not torch.equal(gradients(scaled)[0], gradients(plain)[0])
    loss_scale.unscale(scaled.parameters())
    assert all(torch.equal(mine, other) for mine, other in zip(gradients(scaled), gradients(plain), strict=True))


def test_gradients_too_small_for_fp16_survive():
    factor, loss_scale = 1e-8, LossScale()  # the smallest number of fp16 is 6e-8
    exact, lost, kept = new_model(), new_model().half(), new_model().half()
    backward(exact)
    backward(lost, factor)
    backward(kept, factor * loss_scale.scale)
    assert not gradients(lost)[0].any()
    for mine, other in zip(gradients(kept), gradients(exact), strict=True):
        # fp16 has 11 bits, and steps of 6e-8, here 9e-5 after division, where it underflows; a few are added up.
        assert torch.allclose(mine.float() / (factor * loss_scale.scale), other, rtol=1e-2, atol=1e-3)


def test_it_halves_after_every_bad_step_and_doubles_after_2000_good_ones_in_a_row():
    loss_scale = LossScale()
    for _ in range(3):
        loss_scale.update(False)
    assert loss_scale.scale == 2.0**13
    for _ in range(1999):
        loss_scale.update(True)
    loss_scale.update(False)
    assert loss_scale.scale == 2.0**12
    for _ in range(1999):
        loss_scale.update(True)
    assert loss_scale.scale == 2.0**12
    loss_scale.update(True)
    assert loss_scale.scale == 2.0**13
    assert loss_scale.good_steps == 0


def test_it_finds_a_scale_that_a_model_can_bear():
    model, loss_scale = new_model().half(), LossScale()
    taken = []
    for _ in range(20):
        backward(model, 1000 * loss_scale.scale)  # more than fp16 holds, which is 65504
        loss_scale.unscale(model.parameters())
        norm = torch.nn.utils.get_total_norm([gradient.float() for gradient in gradients(model)])
        taken.append(math.isfinite(norm.item()))
        loss_scale.update(taken[-1])
        model.zero_grad()
    assert taken == sorted(taken)  # bad steps, then good ones
    assert not taken[0]
    assert taken[-1]


def test_its_state_goes_through_json():
    loss_scale, resumed = LossScale(), LossScale()
    for is_finite in (False, True, True):
        loss_scale.update(is_finite)
    resumed.load(json.loads(json.dumps(loss_scale.state())))
    assert resumed.state() == loss_scale.state() == {"scale": 2.0**15, "good_steps": 2}


@pytest.mark.parametrize("state", [{}, {"scale": 0.0, "good_steps": 1}, {"scale": 2.0}])
def test_a_state_that_is_none_is_refused(state):
    with pytest.raises(TrainingError, match="expected scale, above 0, and good_steps"):
        LossScale().load(state)


def test_gradients_of_a_sharded_model_are_unscaled_in_place(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        plain, sharded, loss_scale = new_model(), new_model(), LossScale()
        fully_shard(sharded)
        backward(plain)
        backward(sharded, loss_scale.scale)
        loss_scale.unscale(sharded.parameters())
        for mine, other in zip(gradients(sharded), gradients(plain), strict=True):
            assert isinstance(mine, DTensor)
            assert torch.equal(mine.full_tensor(), other)
    finally:
        dist.destroy_process_group()
