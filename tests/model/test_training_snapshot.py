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
