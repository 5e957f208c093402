import pytest
import torch
from safetensors.torch import load_file

from cambrian_model import CambrianForConditionalGeneration
from cambrian_model.errors import TrainingError
from cambrian_model.training import export_checkpoint, load_recipe, train
from cambrian_model.training.manifest import check_manifest
from tests.model.test_training_distributed import SMALL
from tests.support.pictures import Pictures
from tests.support.recipes import SCRATCH

CONSTANT = "stages.align.optim={lr: 1e-3, warmup: 0, schedule: constant}"


def run(folder, steps, *overrides):
    data = {name: Pictures(folder.parent / "pictures") for name in ("scenes", "held_out")}
    recipe = load_recipe(SCRATCH, [*SMALL, CONSTANT, f"stages.align.max_steps={steps}", *overrides])
    return train(recipe, datasets=data, output=folder, stages=["align"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of five steps with checkpoints after two and four of them, and one that ended after four."""
    folder = tmp_path_factory.mktemp("runs")
    ema = "stages.align.ema={decay: 0.5}"
    run(folder / "five", 5, "checkpoint={every: 2, keep: 2}")
    run(folder / "four", 4)
    run(folder / "five_averaged", 5, "checkpoint={every: 2}", ema)
    run(folder / "four_averaged", 4, ema)
    return folder


@pytest.mark.parametrize("kind", ["", "_averaged"])
def test_the_model_of_a_checkpoint_is_that_of_a_run_which_ended_there(runs, kind, tmp_path):
    done = export_checkpoint(runs / f"five{kind}", tmp_path / "model")
    found, expected = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "model", runs / f"four{kind}" / "checkpoint")
    )

    assert (done.stage, done.step) == ("align", 4)
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    assert (manifest := check_manifest(tmp_path / "model")) is not None
    assert manifest.stage == "align"
    assert CambrianForConditionalGeneration.from_pretrained(tmp_path / "model").config.grid_side == 4


def test_what_cannot_be_exported_says_why(runs, tmp_path):
    with pytest.raises(TrainingError, match="is there already"):
        export_checkpoint(runs / "five", runs / "five")
    with pytest.raises(TrainingError, match="is no run folder"):
        export_checkpoint(tmp_path, tmp_path / "model")
    with pytest.raises(TrainingError, match=r'has no stage "algin"; did you mean "align"'):
        export_checkpoint(runs / "five", tmp_path / "model", stage="algin")
    with pytest.raises(TrainingError, match="holds no checkpoint with a validation loss"):
        export_checkpoint(runs / "five", tmp_path / "model", which="best")
    with pytest.raises(TrainingError, match=r"holds no checkpoint; .*checkpoint.every"):
        export_checkpoint(runs / "four", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_best_model_may_be_that_of_the_end_of_a_stage(tmp_path):
    """A run that learns all the time: its last step is the best, and has no checkpoint of its own."""
    validated = ["data={scenes: {scenes: {count: 9}}, held: {scenes: {count: 9, seed: 1}}}"]
    validated.append("stages.align.validation={data: held, every: 2, max_samples: 3}")
    folder = tmp_path / "run"
    data = {name: Pictures(tmp_path / "pictures") for name in ("scenes", "held")}
    recipe = load_recipe(SCRATCH, [*SMALL, CONSTANT, "stages.align.max_steps=4", "checkpoint.every=2", *validated])
    train(recipe, datasets=data, output=folder, stages=["align"])
    done = export_checkpoint(folder, tmp_path / "model", which="best")

    assert done.step == 4
    assert torch.equal(
        load_file(tmp_path / "model" / "model.safetensors")["connector.newline"],
        load_file(folder / "checkpoint" / "model.safetensors")["connector.newline"],
    )
