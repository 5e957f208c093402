import json
import random
import resource
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from cambrian_model.errors import TrainingError
from cambrian_model.training.batches import Place
from cambrian_model.training.metrics import MetricsLog, cut_metrics, draw_curve, read_metrics, summarise
from cambrian_model.training.optim import build_optimizer
from cambrian_model.training.recipe import OptimSection
from cambrian_model.training.state import Checkpoints, Progressed, is_complete, seed_everything

DONE = Progressed("align", 3, Place(1, 2))


def small_model(seed=0):
    """Two trained layers with running statistics between them, and a frozen one."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2), nn.Linear(2, 2))
    model[3].requires_grad_(False)
    return model


def small_optimizer(model, reverse=False):
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [{"params": [pair], "lr": 1e-2, "weight_decay": 0.0} for pair in (named[::-1] if reverse else named)]
    return build_optimizer(groups, OptimSection(lr=1e-2))


def train_steps(model, optimizer, count):
    losses = []
    for _ in range(count):
        loss = model(torch.rand(7, 3) + np.random.rand() + random.gauss(0, 1)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def trained(seed=0):
    seed_everything(seed, "align")
    model = small_model()
    optimizer = small_optimizer(model)
    train_steps(model, optimizer, 3)
    return model, optimizer


def test_a_loaded_checkpoint_continues_bit_for_bit_whatever_the_order_of_groups(tmp_path):
    model, optimizer = trained()
    path = Checkpoints(tmp_path).save(DONE, model, optimizer)
    expected = train_steps(model, optimizer, 3)

    other = small_model(seed=9)
    other[3].load_state_dict(model[3].state_dict())
    other_optimizer = small_optimizer(other, reverse=True)
    assert Checkpoints(tmp_path).load(path, other, other_optimizer) == DONE
    assert train_steps(other, other_optimizer, 3) == expected
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_checkpoint_is_safetensors_and_json_and_holds_no_frozen_weights(tmp_path):
    from safetensors.torch import load_file

    path = Checkpoints(tmp_path).save(DONE, *trained())

    assert {file.name for file in path.iterdir()} == {
        *("model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json", "COMPLETE")
    }
    assert not any(name.startswith("3.") for name in load_file(path / "model.safetensors"))
    assert {"exp_avg/0.weight", "exp_avg_sq/0.weight", "step/0.weight"} <= load_file(
        path / "optimizer.safetensors"
    ).keys()
    assert json.loads((path / "state.json").read_text())["place"] == {"epoch": 1, "step": 2}


def test_the_last_checkpoints_stay_and_the_newest_is_taken(tmp_path):
    checkpoints, state = Checkpoints(tmp_path, keep=2), trained()
    for step in (9, 10, 1000000):
        checkpoints.save(Progressed("align", step, Place()), *state)
    checkpoints.save(Progressed("align_more", 1, Place()), *state)

    assert sorted(p.name for p in tmp_path.iterdir()) == ["align-000010", "align-1000000", "align_more-000001"]
    assert checkpoints.latest("align") == tmp_path / "align-1000000"
    assert checkpoints.latest("finetune") is None


@pytest.mark.parametrize("damage", ["no marker", "cut file", "missing file"])
def test_a_half_written_checkpoint_is_never_taken(tmp_path, damage):
    checkpoints, state = Checkpoints(tmp_path), trained()
    whole = checkpoints.save(DONE, *state)
    half = checkpoints.save(Progressed("align", 6, Place()), *state)
    if damage == "no marker":
        (half / "COMPLETE").unlink()
    elif damage == "cut file":
        content = (half / "optimizer.safetensors").read_bytes()
        (half / "optimizer.safetensors").write_bytes(content[:-1])
    else:
        (half / "random.safetensors").unlink()

    assert not is_complete(half)
    assert checkpoints.latest("align") == whole


def test_what_a_killed_run_left_unfinished_is_swept_and_overwritten(tmp_path):
    checkpoints, state = Checkpoints(tmp_path), trained()
    whole = checkpoints.save(DONE, *state)
    shutil.copytree(whole, tmp_path / ".unfinished-align-000006")
    assert checkpoints.latest("align") == whole
    checkpoints.save(Progressed("align", 6, Place()), *state)
    shutil.copytree(whole, tmp_path / ".unfinished-align-000009")
    checkpoints.sweep()

    assert sorted(p.name for p in tmp_path.iterdir()) == ["align-000003", "align-000006"]


@pytest.fixture
def no_space():
    """No file may grow beyond a few bytes, which is what a full disk looks like to the writer."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(size=10):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    yield fill
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_an_error_that_leaves_earlier_checkpoints_whole(tmp_path, no_space):
    checkpoints, state = Checkpoints(tmp_path, keep=1), trained()
    whole = checkpoints.save(DONE, *state)
    no_space()
    with pytest.raises(TrainingError, match=r"could not write checkpoint .*align-000006.*free disk space.*--resume"):
        checkpoints.save(Progressed("align", 6, Place()), *state)

    assert [path.name for path in tmp_path.iterdir()] == [whole.name]
    assert checkpoints.latest("align") == whole


def test_a_full_disk_stops_the_metrics_with_an_error(tmp_path, no_space):
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        no_space()
        with pytest.raises(TrainingError, match=r"could not write .*metrics\.jsonl"):
            log.write({"stage": "align", "step": 1, "loss": 0.5})


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    path = Checkpoints(tmp_path).save(DONE, *trained())
    other = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2), nn.Linear(2, 2))
    with pytest.raises(TrainingError, match=r"belongs to another model or stage: 2 names differ, the first is 3\.bias"):
        Checkpoints(tmp_path).load(path, other, small_optimizer(other))


def line(stage, step, loss=1.0):
    return {"stage": stage, "step": step, "loss": loss, "lr": 1e-3 / step, "tokens": 10, "seconds": 0.5}


def write_lines(path, lines, tail=""):
    path.write_text("".join(json.dumps(x) + "\n" for x in lines) + tail)


def test_metrics_are_cut_back_to_the_checkpoint_so_that_every_step_stands_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_lines(
        path, [line("align", 1), line("align", 2), line("finetune", 1), line("finetune", 2)], tail='{"stage": "fi'
    )
    kept = cut_metrics(path, ["align"], "finetune", 1)

    assert [(x["stage"], x["step"]) for x in kept] == [("align", 1), ("align", 2), ("finetune", 1)]
    assert read_metrics(path) == kept


def test_a_summary_and_a_picture_come_from_the_metrics(tmp_path):
    lines = [line("align", s, 4.0 / s) for s in range(1, 9)] + [line("finetune", s, 1.0 / s) for s in range(1, 5)]
    summary = summarise(lines)
    draw_curve(lines, tmp_path / "curve.png", "tiny")

    assert list(summary) == ["align", "finetune"]
    assert (summary["align"].first_loss, summary["align"].last_loss, summary["align"].steps) == (4.0, 0.5, 8)
    assert summary["finetune"].tokens == 40
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
