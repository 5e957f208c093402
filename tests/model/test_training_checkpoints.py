import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import time
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from cambrian_model.errors import TrainingError
from cambrian_model.training import distributed, tensor_shards
from cambrian_model.training.batches import Place
from cambrian_model.training.checkpoints import Checkpoints
from cambrian_model.training.files import file_facts, is_complete, write_marker
from cambrian_model.training.manifest import Reference, fingerprint, refer_to_frozen
from cambrian_model.training.random_state import capture_random_state, restore_random_state, seed_everything
from cambrian_model.training.training_state import Progressed, TrainingState, optimizer_steps, tensors_of
from tests.support.gloo import RankError, run_ranks, start_process

DONE = Progressed("align", 3, Place(1, 2))
SEED = 11


def small_model(seed=0, frozen=0.5):
    """Trained layers with running statistics between them, one of which two ranks cannot share; a frozen layer."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2), nn.Linear(2, 1), nn.Linear(1, 7))
    for parameter in model[4].requires_grad_(False).parameters():
        nn.init.constant_(parameter, frozen)
    return model


def small_optimizer(model, reverse=False):
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW([{"params": [p]} for p in (trained[::-1] if reverse else trained)], lr=1e-2)


def small_state(seed=0, done=DONE, **values):
    model = small_model(seed)
    return TrainingState(model, small_optimizer(model), done, seed=SEED, **values)


def train_steps(state, count):
    losses = []
    for _ in range(count):
        inputs = torch.rand(7, 3) + np.random.rand() + random.gauss(0, 1)
        loss = state.model(inputs).square().mean()
        loss.backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def trained(**values):
    seed_everything(0, "align")
    state = small_state(**values)
    train_steps(state, 3)
    return state


def at(state, stage, step, place=DONE.place):
    return replace(state, progressed=Progressed(stage, step, place))


def whole_tensors(state):
    """Everything that is saved, whole, and the optimizer's steps."""
    tensors = {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in tensors_of(state, True).items()}
    return {name: t.detach().clone() for name, t in tensors.items()}, optimizer_steps(state)


def assert_same(found, expected):
    assert found[1] == expected[1]
    assert found[0].keys() == expected[0].keys()
    assert [name for name, tensor in expected[0].items() if not torch.equal(found[0][name], tensor)] == []


def test_a_loaded_checkpoint_continues_bit_for_bit_whatever_the_order_of_groups(tmp_path):
    state = trained()
    path = Checkpoints(tmp_path).save(state, wait=True)
    expected = train_steps(state, 3)

    other = small_model(9)
    resumed = TrainingState(other, small_optimizer(other, reverse=True), Progressed("align", 0, Place()))
    train_steps(resumed, 1)
    assert Checkpoints(tmp_path).load(path, resumed) == DONE
    assert train_steps(resumed, 3) == expected
    assert_same(whole_tensors(resumed), whole_tensors(state))


def test_a_checkpoint_is_safetensors_and_json_and_holds_no_frozen_weights(tmp_path):
    path = Checkpoints(tmp_path).save(trained(), wait=True)

    shard = "tensors/shard-00001-model-00001-of-00001.safetensors"
    files = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    assert files == {shard, "random-0.safetensors", "state.json", "COMPLETE"}
    tensors = load_file(path / shard)
    assert {"model/0.weight", "model/1.running_mean", "optimizer/exp_avg_sq/2.bias"} <= tensors.keys()
    assert not any("4." in name for name in tensors)
    assert {"torch", "python", "numpy"} <= load_file(path / "random-0.safetensors").keys()
    described = json.loads((path / "state.json").read_text())
    assert described["place"] == {"epoch": 1, "step": 2}
    assert set(described["optimizer_steps"].values()) == {3.0}


def test_averages_and_scalars_come_back(tmp_path):
    state = trained(ema={"0.weight": torch.full((5, 3), 0.5)}, scalars={"loss_scale": {"scale": 65536.0, "tracker": 7}})
    path = Checkpoints(tmp_path).save(state, wait=True)
    other = small_state(9, ema={"0.weight": torch.zeros(5, 3)}, scalars={"stale": 1})
    Checkpoints(tmp_path).load(path, other)

    assert torch.equal(other.ema["0.weight"], torch.full((5, 3), 0.5))
    assert other.scalars == {"loss_scale": {"scale": 65536.0, "tracker": 7}}
    with pytest.raises(TrainingError, match=r"it has ema/0\.weight as float32\[5, 3\], the run as nothing"):
        Checkpoints(tmp_path).load(path, small_state())
    with pytest.raises(TrainingError, match=r"scalars of a checkpoint must be JSON.*plain numbers"):
        Checkpoints(tmp_path).save(small_state(scalars={"scale": torch.ones(1)}))


def load_into_wrapped(folder, wrap):
    state = trained()
    path = Checkpoints(folder).save(state, wait=True)
    model = small_model(9)
    for i in (0, 1, 2):
        model[i] = wrap(model[i])
    assert any(name.startswith("0._") for name, _ in model.named_parameters())
    resumed = TrainingState(model, small_optimizer(model), DONE)
    Checkpoints(folder).load(path, resumed)
    assert_same(whole_tensors(resumed), whole_tensors(state))


def test_names_do_not_depend_on_activation_checkpointing(tmp_path):
    load_into_wrapped(tmp_path, checkpoint_wrapper)


@pytest.mark.slow  # for what it imports
def test_names_do_not_depend_on_compilation(tmp_path):
    load_into_wrapped(tmp_path, torch.compile)


def test_a_model_larger_than_a_file_is_spread_over_several(tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_shards, "FILE_BYTES", 100)
    state = trained()
    path = Checkpoints(tmp_path).save(state, wait=True)
    other = small_state(9)
    Checkpoints(tmp_path).load(path, other)

    assert len(list(path.glob("tensors/*.safetensors"))) > 3
    assert_same(whole_tensors(other), whole_tensors(state))


def test_the_state_may_change_as_soon_as_save_returns(tmp_path):
    model = nn.Linear(1000, 1000)  # 4 MB: to write them takes longer than to change them
    with torch.no_grad():
        model.weight.fill_(1)
    state = TrainingState(model, torch.optim.AdamW(model.parameters()), DONE)
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save(state)
    with torch.no_grad():
        model.weight.fill_(2)
    checkpoints.finish()

    checkpoints.load(path, state)
    assert torch.equal(model.weight, torch.ones(1000, 1000))


def poll_until_it_ends(checkpoints):
    """Returns at which look the save in the background had ended."""
    for look in range(2000):
        if not checkpoints.is_saving:
            return look
        checkpoints.poll()
        time.sleep(0.01)
    raise AssertionError("the save did not end")


def test_a_save_waits_for_the_one_before_and_poll_sees_it_end(tmp_path):
    checkpoints, state = Checkpoints(tmp_path, keep=3), trained()
    first = checkpoints.save(at(state, "align", 1))
    second = checkpoints.save(at(state, "align", 2))
    assert is_complete(first)
    poll_until_it_ends(checkpoints)
    assert checkpoints.latest("align") == second


def test_the_last_checkpoints_stay_and_the_newest_is_taken(tmp_path):
    checkpoints, state = Checkpoints(tmp_path, keep=2), trained()
    for step in (9, 10, 1000000):
        checkpoints.save(at(state, "align", step))
    checkpoints.save(at(state, "align_more", 1), wait=True)

    assert sorted(p.name for p in tmp_path.iterdir()) == ["align-000010", "align-1000000", "align_more-000001"]
    assert checkpoints.latest("align") == tmp_path / "align-1000000"
    assert checkpoints.latest("finetune") is None


@pytest.mark.parametrize("keep", [1, 3, 5, 9])
def test_as_many_checkpoints_stay_as_there_should(tmp_path, keep):
    checkpoints, state = Checkpoints(tmp_path, keep), trained()
    for step in range(1, 6):
        checkpoints.save(at(state, "align", step))
    checkpoints.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"align-00000{i}" for i in range(1, 6)][-keep:]


def test_the_best_checkpoint_of_a_stage_stays_too(tmp_path):
    checkpoints, state = Checkpoints(tmp_path, keep=1), trained()
    for step, metric in enumerate([0.9, 0.3, float("nan"), 0.5, None], start=1):
        checkpoints.save(at(state, "align", step), metric=metric, wait=True)
    checkpoints.save(at(state, "finetune", 1), metric=2.0, wait=True)

    assert checkpoints.best("align") == tmp_path / "align-000002"
    assert checkpoints.latest("align") == tmp_path / "align-000005"
    assert sorted(p.name for p in tmp_path.glob("align-*")) == ["align-000002", "align-000005"]
    assert json.loads((tmp_path / "best.json").read_text()) == {
        "align": {"checkpoint": "align-000002", "metric": 0.3},
        "finetune": {"checkpoint": "finetune-000001", "metric": 2.0},
    }


def damage(path, how):
    marker, random_file = path / "COMPLETE", path / "random-0.safetensors"
    shard = next(path.glob("tensors/*"))
    content = shard.read_bytes()
    match how:
        case "no marker":
            marker.unlink()
        case "cut marker":
            marker.write_text(marker.read_text()[:-5])
        case "cut file":
            shard.write_bytes(content[:-1])
        case "missing file":
            random_file.unlink()
        case "flipped bit":
            shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize("how", ["no marker", "cut marker", "cut file", "missing file"])
def test_a_half_written_checkpoint_is_never_taken(tmp_path, how):
    checkpoints, state = Checkpoints(tmp_path), trained()
    whole = checkpoints.save(state, wait=True)
    half = checkpoints.save(at(state, "align", 6), wait=True)
    damage(half, how)

    assert not is_complete(half)
    assert checkpoints.latest("align") == whole
    with pytest.raises(
        TrainingError, match=r"align-000006 is damaged: .*delete it, then --resume takes the one before"
    ):
        checkpoints.load(half, state)


def test_a_damaged_shard_is_refused(tmp_path):
    checkpoints, state = Checkpoints(tmp_path), trained()
    path = checkpoints.save(state, wait=True)
    damage(path, "flipped bit")
    with pytest.raises(TrainingError, match=r"damaged: tensors/shard-.* has another content than was written; delete"):
        checkpoints.load(path, state)


def test_damaged_checkpoints_do_not_count_among_those_that_stay(tmp_path):
    checkpoints, state = Checkpoints(tmp_path, keep=2), trained()
    resumed = checkpoints.save(at(state, "align", 1), wait=True)
    damage(checkpoints.save(at(state, "align", 2), wait=True), "cut file")
    checkpoints.save(at(state, "align", 3), wait=True)

    assert sorted(p.name for p in tmp_path.iterdir()) == [resumed.name, "align-000003"]


def test_what_a_killed_run_left_unfinished_is_swept_and_overwritten(tmp_path):
    checkpoints, state = Checkpoints(tmp_path), trained()
    whole = checkpoints.save(state, wait=True)
    for name in (".unfinished-align-000006", ".unfinished-align-000009", ".unfinished-align-000003-removed"):
        shutil.copytree(whole, tmp_path / name)
        (tmp_path / name / "state.json").unlink()
    (tmp_path / ".unfinished-best.json").write_text("{")
    assert checkpoints.latest("align") == whole
    checkpoints.save(at(state, "align", 6), wait=True)
    checkpoints.sweep()

    assert sorted(p.name for p in tmp_path.iterdir()) == ["align-000003", "align-000006"]


def test_a_checkpoint_that_was_killed_between_its_marker_and_its_name_is_named(tmp_path):
    checkpoints, state = Checkpoints(tmp_path), trained()
    whole = checkpoints.save(state, wait=True)
    shutil.copytree(whole, tmp_path / ".unfinished-align-000003-removed")
    whole.rename(tmp_path / ".unfinished-align-000003")
    checkpoints.sweep()

    assert [p.name for p in tmp_path.iterdir()] == ["align-000003"]
    assert checkpoints.latest("align") == whole


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path):
    checkpoints, state = Checkpoints(tmp_path), trained()
    checkpoints.save(state, wait=True)
    train_steps(state, 1)
    path = checkpoints.save(state, wait=True)

    assert [p.name for p in tmp_path.iterdir()] == ["align-000003"]
    expected = whole_tensors(state)
    train_steps(state, 1)
    checkpoints.load(path, state)
    assert_same(whole_tensors(state), expected)


@pytest.fixture
def no_space():
    """No file may grow beyond a few bytes, which is what a full disk looks like to the writer."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(size=10):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    yield fill
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("size", [10, 3000, 16000])  # the first file, a shard, the marker's neighbours do not fit
def test_a_full_disk_is_an_error_that_leaves_earlier_checkpoints_whole(tmp_path, no_space, size):
    checkpoints, state = Checkpoints(tmp_path, keep=1), trained(ema={"x": torch.zeros(5000)})
    whole = checkpoints.save(state, wait=True)
    no_space(size)
    checkpoints.save(at(state, "align", 6))
    with pytest.raises(TrainingError, match=r"could not write checkpoint .*align-000006.*free disk space.*--resume"):
        poll_until_it_ends(checkpoints)

    assert [path.name for path in tmp_path.iterdir()] == [whole.name]
    assert checkpoints.latest("align") == whole
    checkpoints.finish()


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    path = Checkpoints(tmp_path).save(trained(), wait=True)
    unfrozen, wide, half = small_state(), small_state(), small_state()
    unfrozen.model.requires_grad_(True)
    wide.model[2].weight = nn.Parameter(torch.zeros(6, 2))
    half.model[0].bfloat16()

    for other, message in (
        (unfrozen, r"it has model/4\.bias as nothing, the run as float32\[7\]; continue with the recipe"),
        (wide, r"it has model/2\.weight as float32\[2, 5\], the run as float32\[6, 2\]"),
        (half, r"it has model/0\.bias as float32\[5\], the run as bfloat16\[5\]"),
    ):
        state = TrainingState(other.model, small_optimizer(other.model), DONE)
        with pytest.raises(TrainingError, match=message):
            Checkpoints(tmp_path).load(path, state)
    fewer = small_state()
    fewer.optimizer.param_groups.pop()
    with pytest.raises(TrainingError, match=r"optimizer/exp_avg/3\.bias as float32\[1\], the run as nothing"):
        Checkpoints(tmp_path).load(path, fewer)


def test_a_checkpoint_of_another_version_is_refused(tmp_path):
    checkpoints, state = Checkpoints(tmp_path), trained()
    path = checkpoints.save(state, wait=True)
    described = (path / "state.json").read_text()
    (path / "state.json").write_text(described.replace('"format": 2', '"format": 3'))
    write_marker(path, {"state.json": file_facts(path / "state.json")})
    with pytest.raises(TrainingError, match="has format 3, expected 2; continue with the version that wrote it"):
        checkpoints.load(path, state)


def test_frozen_parts_must_be_what_they_were(tmp_path):
    frozen = refer_to_frozen(small_model(), "weights/encoder")
    assert frozen is not None
    path = Checkpoints(tmp_path).save(trained(frozen=frozen), wait=True)
    changed = small_state(frozen=refer_to_frozen(small_model(frozen=0.25), "elsewhere"))
    message = rf"frozen parts .* found hash \w+ from elsewhere, expected hash {frozen.hash} from weights/encoder; put"
    with pytest.raises(TrainingError, match=message):
        Checkpoints(tmp_path).load(path, changed)
    same = small_state(frozen=Reference("elsewhere", frozen.hash))
    assert Checkpoints(tmp_path).load(path, same) == DONE


def test_a_full_checkpoint_holds_the_frozen_parts_themselves(tmp_path):
    state = trained(frozen=Reference("weights", "1"))
    path = Checkpoints(tmp_path, full=True).save(state, wait=True)
    model = small_model(9, frozen=0.25)
    other = TrainingState(model, small_optimizer(model), DONE)
    Checkpoints(tmp_path).load(path, other)

    assert_same(whole_tensors(other), whole_tensors(state))


def on_ranks(kind, seed=0):
    """A state that all ranks have whole (ddp), sharded (fsdp), or sharded in each half of them (hsdp)."""
    model = small_model(seed)
    if kind == "ddp":
        wrapped = DistributedDataParallel(model)
        return TrainingState(wrapped, small_optimizer(wrapped), DONE, seed=SEED)
    ranks = dist.get_world_size()
    shape, names = ((ranks,), ("shard",)) if kind == "fsdp" else ((2, ranks // 2), ("replicate", "shard"))
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
    for layer in (model[0], model[2], model[3]):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh, ignored_params=set(model[4].parameters()))
    return TrainingState(model, small_optimizer(model), DONE, seed=SEED)


class Seen(NamedTuple):
    """What a rank tells: tensors and steps, what its generators gave, its next losses, and classes it unpickled."""

    tensors: Any
    losses: list[float]
    drawn: list[float]
    unpickled: list[Any]


def watch_pickle():
    """Returns a list that every class is added to which anything unpickles in this process from now on."""
    unpickled = []
    sys.addaudithook(lambda event, values: unpickled.append(values) if event == "pickle.find_class" else None)
    return unpickled


def save_and_go_on(folder, kind):
    state, unpickled = on_ranks(kind), watch_pickle()
    seed_everything(0, distributed.rank())
    train_steps(state, 3)
    tensors = whole_tensors(state)
    checkpoints = Checkpoints(folder)
    checkpoints.save(state)
    losses = train_steps(state, 3)
    checkpoints.finish()
    return Seen(tensors, losses, torch.rand(2).tolist(), unpickled)


def newest_of(checkpoints):
    newest = checkpoints.latest("align")
    assert newest
    return newest


def load_and_go_on(folder, kind):
    state, unpickled = on_ranks(kind, seed=9), watch_pickle()
    checkpoints = Checkpoints(folder)
    assert checkpoints.load(newest_of(checkpoints), state) == DONE
    tensors = whole_tensors(state)
    return Seen(tensors, train_steps(state, 3), torch.rand(2).tolist(), unpickled)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """Checkpoints of two ranks with a sharded model, and what both have seen."""
    folder = tmp_path_factory.mktemp("sharded")
    return folder, run_ranks(save_and_go_on, 2, folder, "fsdp")


@pytest.fixture(scope="module")
def replicated(tmp_path_factory):
    """Checkpoints of two ranks that both have the whole model, and what both have seen."""
    folder = tmp_path_factory.mktemp("replicated")
    return folder, run_ranks(save_and_go_on, 2, folder, "ddp")


@pytest.mark.parametrize(("kind", "num_files"), [("fsdp", 2), ("ddp", 1)])
def test_as_many_ranks_continue_bit_for_bit(request, kind, num_files):
    folder, saved = request.getfixturevalue({"fsdp": "sharded", "ddp": "replicated"}[kind])
    resumed = run_ranks(load_and_go_on, 2, folder, kind)

    assert len(list(folder.glob("align-000003/tensors/*"))) == num_files
    assert saved[0].drawn != saved[1].drawn
    for before, after in zip(saved, resumed, strict=True):
        assert_same(after.tensors, saved[0].tensors)  # which has running statistics of its own, those that count
        assert (after.losses, after.drawn) == (before.losses, before.drawn)
        assert before.unpickled == after.unpickled == []


def check_read(written, kind, num_ranks):
    folder, saved = written
    for rank in run_ranks(load_and_go_on, num_ranks, folder, kind):
        assert_same(rank.tensors, saved[0].tensors)


def test_one_process_reads_what_two_saved(sharded):
    folder, saved = sharded
    alone = small_state(9)
    Checkpoints(folder).load(folder / "align-000003", alone)
    assert_same(whole_tensors(alone), saved[0].tensors)


def test_four_ranks_read_what_two_saved_each_its_part(sharded):
    check_read(sharded, "fsdp", 4)


@pytest.mark.slow
def test_a_sharded_model_may_continue_whole_and_a_whole_one_sharded(sharded, replicated):
    check_read(sharded, "ddp", 2)
    check_read(replicated, "fsdp", 2)
    check_read(replicated, "hsdp", 4)


@pytest.mark.slow
def test_of_several_sharded_copies_one_is_saved(tmp_path):
    saved = run_ranks(save_and_go_on, 4, tmp_path, "hsdp")
    assert len(list(tmp_path.glob("align-000003/tensors/*"))) == 2
    check_read((tmp_path, saved), "hsdp", 4)
    check_read((tmp_path, saved), "fsdp", 2)


def test_generators_of_another_number_of_ranks_are_seeded_by_the_run_the_step_and_the_rank(tmp_path):
    path = Checkpoints(tmp_path).save(trained(), wait=True)
    before = torch.rand(2).tolist()
    Checkpoints(tmp_path).load(path, small_state(9))
    assert torch.rand(2).tolist() == before
    first, again = (run_ranks(load_and_draw, 2, path) for _ in range(2))

    assert first == again
    assert len({tuple(drawn) for drawn in [*first, before]}) == 3


def load_and_draw(path):
    Checkpoints(path.parent).load(path, small_state(9))
    return [torch.rand(1).item(), np.random.rand(), random.random()]


def fill_the_disk_of_rank_1(folder):
    """Returns what was raised, at which look, and what is left."""
    state = on_ranks("fsdp")
    train_steps(state, 1)
    checkpoints = Checkpoints(folder)
    checkpoints.save(state, wait=True)
    if distributed.rank() == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
    checkpoints.save(at(state, "align", 6))
    for look in range(2000):
        try:
            checkpoints.poll()
        except TrainingError as error:
            return str(error), look, [path.name for path in folder.iterdir()]
        time.sleep(0.01)
    return None


def test_a_full_disk_on_one_rank_is_the_same_error_on_all_in_the_same_step(tmp_path):
    first, second = run_ranks(fill_the_disk_of_rank_1, 2, tmp_path)

    assert first == second
    assert re.search(r"align-000006 on rank 1: .*too large.*; earlier checkpoints are untouched: free disk", first[0])
    assert first[2] == ["align-000003"]
    assert Checkpoints(tmp_path).latest("align") == tmp_path / "align-000003"


def damage_on_two_ranks(folder):
    """Both ranks read half of the files, and hear of what the other found."""
    with pytest.raises(TrainingError) as caught:
        Checkpoints(folder).load(folder / "align-000003", on_ranks("fsdp"))
    return str(caught.value)


def test_a_damaged_file_that_one_rank_finds_is_the_same_error_on_all(tmp_path):
    damage(Checkpoints(tmp_path).save(trained(), wait=True), "flipped bit")
    first, second = run_ranks(damage_on_two_ranks, 2, tmp_path)

    assert first == second
    assert "another content than was written" in first


def load_each_its_own(folder):
    with pytest.raises(TrainingError) as caught:
        Checkpoints(folder).load(folder / f"align-00000{distributed.rank()}", small_state())
    return str(caught.value)


def test_ranks_that_see_different_folders_do_not_go_on(tmp_path):
    checkpoints, state = Checkpoints(tmp_path), trained()
    for step in (0, 1):
        checkpoints.save(at(state, "align", step), wait=True)
    for message in run_ranks(load_each_its_own, 2, tmp_path):
        assert "different checkpoints" in message
        assert "align-000000, align-000001; let all machines see the same folder" in message


def end_rank_1_while_it_saves(folder):
    checkpoints = Checkpoints(folder)
    checkpoints.save(small_state(), wait=True)
    if distributed.rank() == 1:
        os._exit(7)
    checkpoints.save(at(small_state(), "align", 6))
    try:
        checkpoints.finish()
    except TrainingError as error:
        (folder / "error.txt").write_text(str(error))


def test_a_rank_that_ends_is_an_error_on_the_others(tmp_path):
    with pytest.raises(RankError, match="rank 1 ended with exit code 7"):
        run_ranks(end_rank_1_while_it_saves, 2, tmp_path)

    assert "another rank has ended, or no longer answers" in (tmp_path / "error.txt").read_text()
    assert Checkpoints(tmp_path).latest("align") == tmp_path / "align-000003"


def step_of(state, step):
    """Takes the one training step that leads to `step`."""
    train_steps(state, 1)
    return at(state, "align", step, Place(0, step))


def hashed(state):
    """Everything that a checkpoint brings back, as one hash."""
    tensors, steps = whole_tensors(state)
    numbers = torch.tensor([*steps.values(), np.random.rand(), random.random(), torch.rand(1).item()])
    return fingerprint(tensors | {"numbers": numbers})


def begin_or_resume(folder):
    """Returns checkpoints and a state as a run would have them that is started again in its folder."""
    seed_everything(0)
    checkpoints, state = Checkpoints(folder), small_state(done=Progressed("align", 0, Place()))
    checkpoints.sweep()
    if newest := checkpoints.latest("align"):
        return checkpoints, replace(state, progressed=checkpoints.load(newest, state))
    return checkpoints, state


def save_forever(folder):
    checkpoints, state = begin_or_resume(folder)
    while True:
        state = step_of(state, state.progressed.step + 1)
        checkpoints.poll()
        checkpoints.save(state)


class Reached:
    """The states that an undisturbed run reaches, hashed, by step."""

    def __init__(self, folder):
        self._checkpoints, self._state = begin_or_resume(folder)
        self._random = capture_random_state()
        self._hashes = {}

    def __getitem__(self, step):
        restore_random_state(self._random)
        while self._state.progressed.step < step:
            self._state = step_of(self._state, self._state.progressed.step + 1)
            self._random = capture_random_state()
            self._hashes[self._state.progressed.step] = hashed(self._state)
            restore_random_state(self._random)
        return self._hashes[step]


def kill_while_saving(folder, times):
    """Kills a run that saves without pause at random moments, and looks each time at what it left."""
    reached, moments, step = Reached(folder / "undisturbed"), random.Random(5), 0
    left = []
    for _ in range(times):
        process = start_process(save_forever, folder)
        deadline = time.monotonic() + 60
        while (newest := Checkpoints(folder).latest("align")) is None or int(newest.name[-6:]) < step + 2:
            assert process.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        process.join()
        left += [path.name for path in folder.glob(".unfinished-*")]
        _, state = begin_or_resume(folder)
        assert state.progressed.step >= step + 2
        step = state.progressed.step
        assert state.progressed.place == Place(0, step)
        assert hashed(state) == reached[step]
    assert left, "no save was ever hit: the test has shown nothing"


def test_a_run_that_is_killed_while_it_saves_loads_a_state_that_was_really_reached(tmp_path):
    kill_while_saving(tmp_path, 10)


@pytest.mark.slow
def test_a_run_that_is_killed_many_times_while_it_saves_loads_a_state_that_was_really_reached(tmp_path):
    kill_while_saving(tmp_path, 200)


def follow(state, step):
    """Takes the step that leads to `step` with gradients that do not depend on ranks: one process reaches the same."""
    for group in state.optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.full_like(parameter, 1 / step)
    state.optimizer.step()
    return at(state, "align", step, Place(0, step))


def save_until_killed(folder, seconds):
    """Saves without pause on several ranks, of which each is ended by a signal of its own, wherever it is then."""
    checkpoints, state = Checkpoints(folder), replace(on_ranks("fsdp", 3), progressed=Progressed("align", 0, Place()))
    if newest := checkpoints.latest("align"):
        state = replace(state, progressed=checkpoints.load(newest, state))
    for step in range(state.progressed.step + 1, 10**6):
        state = follow(state, step)
        checkpoints.save(state, wait=step == 1)
        if signal.getitimer(signal.ITIMER_REAL)[0] == 0:
            signal.setitimer(signal.ITIMER_REAL, seconds[distributed.rank()])


@pytest.mark.slow
def test_ranks_that_are_killed_while_they_save_load_a_state_that_was_really_reached(tmp_path):
    moments, steps, left = random.Random(7), [0], []
    for _ in range(30):
        moment = moments.uniform(0.01, 0.4)
        with pytest.raises(RankError, match=r"rank \d ended with exit code -14"):
            run_ranks(save_until_killed, 2, tmp_path, (moment, moment + moments.uniform(0, 0.02)))
        left += list(tmp_path.glob(".unfinished-*"))
        checkpoints, state, expected = Checkpoints(tmp_path), small_state(9), small_state(3)
        checkpoints.sweep()
        steps.append(checkpoints.load(newest_of(checkpoints), state).step)
        for step in range(1, steps[-1] + 1):
            expected = follow(expected, step)
        assert_same(whole_tensors(state), whole_tensors(expected))
    assert left, "no save was ever hit: the test has shown nothing"
    assert steps == sorted(steps)
    assert steps[-1] > steps[1]
