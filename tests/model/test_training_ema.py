"""Averages of the trained weights: what they are, how they get into a model and back, whole and sharded."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from cambrian_model.errors import TrainingError
from cambrian_model.training.ema import EMA

DECAY = 0.9


def new_model() -> nn.Sequential:
    """The last layer is frozen."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 3), nn.Linear(3, 2))
    model[3].requires_grad_(False)
    return model


def inputs() -> Tensor:
    return torch.linspace(-1, 1, 20).reshape(4, 5)


def train(model: nn.Module, ema: EMA, steps: int, lr: float = 0.1) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr)
    for _ in range(steps):
        model(inputs().to(next(model.parameters()).dtype)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        ema.update(model)


def test_the_average_follows_the_weights_quickly_at_first_and_by_the_decay_later():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    ema = EMA(model, DECAY)
    expected = 0.0
    for n in range(200):
        nn.init.constant_(model.weight, n + 1.0)
        ema.update(model)
        decay = min(DECAY, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * (n + 1.0)
        # Float32 has a relative spacing of 1.2e-7, and about the last ten roundings count.
        assert ema.state()["weight"].item() == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(200 - DECAY / (1 - DECAY), abs=0.01)  # 9 steps behind, as the decay says


def test_only_trained_parameters_have_an_average_in_float32_without_gradient():
    model = new_model().bfloat16()
    ema = EMA(model, DECAY)
    train(model, ema, 2, lr=1e-3)
    averages = ema.state()
    assert averages.pop("num_updates").item() == 2
    assert averages.keys() == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert all(average.dtype == torch.float32 and not average.requires_grad for average in averages.values())
    assert any(not torch.equal(average, average.bfloat16().float()) for average in averages.values())


def test_the_averages_are_in_the_model_only_for_a_while():
    model = new_model()
    ema = EMA(model, DECAY)
    train(model, ema, 3)
    last = copy.deepcopy(model.state_dict())
    with ema.swapped(model):
        averages = ema.state()
        assert all(torch.equal(p, averages[name]) for name, p in model.named_parameters() if p.requires_grad)
        assert not torch.equal(model.state_dict()["0.weight"], last["0.weight"])
        assert torch.equal(model.state_dict()["3.weight"], last["3.weight"])
    assert all(torch.equal(tensor, last[name]) for name, tensor in model.state_dict().items())


def test_the_weights_come_back_after_an_error():
    model = new_model().half()
    ema = EMA(model, DECAY)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    ema.update(model)
    last = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyError), ema.swapped(model):
        raise KeyError
    assert all(torch.equal(tensor, last[name]) for name, tensor in model.state_dict().items())
    ema.update(model)  # and training can go on


def test_names_are_those_of_checkpoints_also_of_a_compiled_model():
    ema = EMA(nn.ModuleDict({"_orig_mod": new_model()}), DECAY)  # the name that torch.compile gives
    assert ema.state().keys() == EMA(new_model(), DECAY).state().keys()


def test_a_resumed_average_goes_on_bit_by_bit():
    model = new_model()
    ema = EMA(model, DECAY)
    train(model, ema, 3)
    resumed = copy.deepcopy(model)
    other = EMA(resumed, DECAY)
    other.load({name: tensor.clone() for name, tensor in ema.state().items()})
    train(model, ema, 3)
    train(resumed, other, 3)
    found = other.state()
    assert all(torch.equal(tensor, found[name]) for name, tensor in ema.state().items())


def test_averages_of_another_model_are_refused():
    ema = EMA(new_model(), DECAY)
    state = dict(ema.state())
    state["0.weight"] = torch.zeros(2, 2)
    with pytest.raises(TrainingError, match=r"0\.weight, \[2, 2\] in the checkpoint and \[7, 5\] here"):
        ema.load(state)
    with pytest.raises(TrainingError, match=r"num_updates, absent in the checkpoint"):
        ema.load({name: tensor for name, tensor in ema.state().items() if name != "num_updates"})


@pytest.fixture
def one_rank(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def sharded_model() -> nn.Module:
    model = new_model()
    fully_shard(model[0])
    fully_shard(model, reshard_after_forward=False)
    return model


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


# Two ranks, with shards of unequal size: test_training_adapters.py
@pytest.mark.usefixtures("one_rank")
def test_averages_of_a_sharded_model_are_sharded_and_those_of_a_whole_one():
    model, sharded = new_model(), sharded_model()
    ema, sharded_ema = EMA(model, DECAY), EMA(sharded, DECAY)
    train(model, ema, 3)
    train(sharded, sharded_ema, 3)
    averages, found = ema.state(), sharded_ema.state()
    assert averages.keys() == found.keys()
    assert all(isinstance(tensor, DTensor) for name, tensor in found.items() if name != "num_updates")
    assert all(torch.equal(whole(found[name]), tensor) for name, tensor in averages.items())


@pytest.mark.usefixtures("one_rank")
def test_a_sharded_model_that_was_just_evaluated_computes_with_the_averages_and_then_with_its_weights():
    model, sharded = new_model(), sharded_model()
    ema, sharded_ema = EMA(model, DECAY), EMA(sharded, DECAY)
    train(model, ema, 3)
    train(sharded, sharded_ema, 3)
    with torch.no_grad():
        last = sharded(inputs())  # leaves the outermost module's weights gathered
        with ema.swapped(model), sharded_ema.swapped(sharded):
            assert torch.equal(sharded(inputs()), model(inputs()))
        assert torch.equal(sharded(inputs()), last)
        assert torch.equal(model(inputs()), last)
    sharded_ema.update(sharded)  # from shards, though the outermost module's weights are gathered again
    ema.update(model)
    assert torch.equal(whole(sharded_ema.state()["2.weight"]), ema.state()["2.weight"])


@pytest.mark.usefixtures("one_rank")
def test_averages_load_from_whole_tensors_into_shards_and_back():
    replicated, sharded = DistributedDataParallel(new_model()), sharded_model()
    ema, sharded_ema = EMA(replicated, DECAY), EMA(sharded, DECAY)
    train(replicated, ema, 3)
    sharded_ema.load(ema.state())
    other = EMA(replicated, DECAY)
    other.load(sharded_ema.state())
    found = other.state()
    assert all(torch.equal(found[name], tensor) for name, tensor in ema.state().items())
    with ema.swapped(replicated):
        assert torch.equal(replicated.module[0].weight, ema.state()["0.weight"])
