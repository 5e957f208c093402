"""Several gloo processes against one. The tolerances: sums of gradients in another order, float32, over a few steps of
AdamW, which divides small gradients by their own size."""

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cambrian_model.training import load_recipe, train
from cambrian_model.training.metrics import read_metrics, step_lines
from tests.support.gloo import RankError, run_ranks
from tests.support.pictures import Pictures
from tests.support.recipes import SCRATCH

SMALL = [
    "model.language_model.config.hidden_size=32",
    "model.language_model.config.intermediate_size=48",
    "model.language_model.config.num_hidden_layers=2",
    "model.connector.width=16",
    "model.connector.in_llm={start: 0, stride: 1, count: 1}",
    "stages.align.batch={rows: 3, micro_rows: 1, row_tokens: 64}",
    "stages.align.optim={lr: 1e-3, weight_decay: 0.01, warmup: 0, schedule: linear}",
    "stages.align.max_steps=5",
    "device=cpu",
]
FROZEN = "stages.align.train=[connector, in_llm, language_model]"
COUNTED = ("tokens", "supervised_tokens", "images", "samples", "epoch")


def run(output, pictures, overrides, resume=False):
    torch.set_num_threads(1)
    recipe = load_recipe(SCRATCH, [*SMALL, *overrides])
    train(recipe, datasets={"scenes": Pictures(pictures)}, output=Path(output), stages=["align"], resume=resume)


def steps(output):
    return step_lines(read_metrics(Path(output) / "metrics.jsonl"))


def weights(output):
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted((Path(output) / "checkpoint").glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def assert_same_run(found, expected, loss=1e-5, weight=2e-5):
    assert [[line[key] for key in COUNTED] for line in steps(found)] == [
        [line[key] for key in COUNTED] for line in steps(expected)
    ]
    assert [line["loss"] for line in steps(found)] == pytest.approx(
        [line["loss"] for line in steps(expected)], abs=loss
    )
    norms = [line["grad_norm"] for line in steps(expected)]
    assert [line["grad_norm"] for line in steps(found)] == pytest.approx(norms, rel=1e-3)
    ours, theirs = weights(found), weights(expected)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=weight, msg=partial("{}: {}".format, name))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    Pictures(folder)
    return str(folder)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, pictures):
    """Runs of one process, by what they train."""
    folder = tmp_path_factory.mktemp("alone")
    runs = {"all": [], "frozen": [FROZEN]}
    for name, overrides in runs.items():
        run(folder / name, pictures, overrides)
    return folder


def test_some_rank_has_no_picture_in_some_step(alone):
    """What the comparisons below rest on: rows of one sample each, of which some have no picture."""
    rows = [line["samples"] for line in steps(alone / "all")]
    assert min(line["images"] for line in steps(alone / "all")) < max(rows)


@pytest.mark.parametrize(
    ("trained", "overrides"),
    [
        ("all", ["parallel.strategy=ddp"]),
        ("all", ["parallel.strategy=fsdp"]),
        ("all", ["parallel.strategy=fsdp", "activation_checkpointing=[language_model, vision_encoders]"]),
        ("all", ["parallel.strategy=ddp", "activation_checkpointing=[language_model, vision_encoders]"]),
        ("frozen", ["parallel.strategy=ddp"]),
        ("frozen", ["parallel.strategy=fsdp"]),
        ("frozen", ["parallel.strategy=fsdp", "parallel.frozen_encoders=shard"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(x.partition("=")[2] for x in value),
)
def test_two_processes_equal_one(trained, overrides, alone, pictures, tmp_path):
    overrides = [*overrides, *([FROZEN] if trained == "frozen" else [])]
    run_ranks(run, 2, str(tmp_path / "two"), pictures, overrides)

    assert_same_run(tmp_path / "two", alone / trained)


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2])
def test_four_processes_equal_one_sharded_and_in_replicas(replicas, alone, pictures, tmp_path):
    overrides = ["parallel.strategy=fsdp", f"parallel.replicas={replicas}"]
    run_ranks(run, 4, str(tmp_path / "four"), pictures, overrides)

    assert_same_run(tmp_path / "four", alone / "all")


def stop_after(output, pictures, overrides, step):
    """Trains until a checkpoint after `step`, as a run that is killed then."""
    torch.set_num_threads(1)
    recipe = load_recipe(SCRATCH, [*SMALL, *overrides])

    def interrupt(progress):
        if progress.phase == "train" and progress.done == step + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            recipe, datasets={"scenes": Pictures(pictures)}, output=Path(output), stages=["align"], progress=interrupt
        )


@pytest.fixture(scope="module")
def halves(tmp_path_factory, pictures):
    """An undisturbed run of two processes, and one that ended after its third step, saved at its second."""
    folder = tmp_path_factory.mktemp("halves")
    overrides = ["parallel.strategy=fsdp", "checkpoint={every: 2}"]
    run_ranks(run, 2, str(folder / "whole"), pictures, overrides)
    run_ranks(stop_after, 2, str(folder / "half"), pictures, overrides, 2)
    assert (folder / "half" / "checkpoints" / "align-000002" / "COMPLETE").is_file()
    return folder


def resumed(halves, tmp_path, ranks, pictures):
    import shutil

    shutil.copytree(halves / "half", tmp_path / "half")
    overrides = ["parallel.strategy=fsdp", "checkpoint={every: 2}"]
    if ranks == 1:
        run(tmp_path / "half", pictures, overrides, resume=True)
    else:
        run_ranks(run, ranks, str(tmp_path / "half"), pictures, overrides, True)
    return tmp_path / "half"


def test_saved_on_two_resumed_on_two_is_bit_identical(halves, pictures, tmp_path):
    again = resumed(halves, tmp_path, 2, pictures)

    assert [line["loss"] for line in steps(again)] == [line["loss"] for line in steps(halves / "whole")]
    assert all(torch.equal(tensor, weights(again)[name]) for name, tensor in weights(halves / "whole").items())


@pytest.mark.parametrize("ranks", [1, 4])
def test_saved_on_two_resumed_on_another_number_has_the_same_data_and_losses(ranks, halves, pictures, tmp_path):
    assert_same_run(resumed(halves, tmp_path, ranks, pictures), halves / "whole")


def test_what_one_rank_cannot_read_stops_all_of_them(pictures, tmp_path):
    with pytest.raises(RankError, match="rank 1") as failure:
        run_ranks(run_with_a_broken_picture, 2, str(tmp_path / "run"), str(tmp_path / "pictures"))
    assert "rank 0" in str(failure.value)
    assert "broken" in str(failure.value)


def run_with_a_broken_picture(output, folder):
    data = Pictures(folder)
    file = Path(folder) / "red.png"
    file.write_bytes(file.read_bytes()[:60])  # its header is whole
    run(output, folder, [])
    return len(data)


def test_replicas_that_do_not_divide_the_ranks_are_refused(pictures, tmp_path):
    with pytest.raises(RankError, match=r"parallel.replicas is 2, but 3 processes cannot be divided"):
        run_ranks(run, 3, str(tmp_path), pictures, ["parallel.strategy=fsdp", "parallel.replicas=2"])
