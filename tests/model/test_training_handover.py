"""From one stage to the next: by path and hash, never by accident from something else."""

import json
import shutil

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from cambrian_model.errors import TrainingError
from cambrian_model.training import Progress, train
from tests.support.pictures import Pictures
from tests.support.small_run import Interrupt, lines, small_recipe

SHORT = ("stages.align.max_steps=1", "stages.finetune.max_steps=2", "checkpoint.every=1")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    return {"scenes": Pictures(tmp_path_factory.mktemp("pictures"))}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, datasets):
    """A run that ended within its second stage."""
    output = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(KeyboardInterrupt):
        train(small_recipe(*SHORT), datasets=datasets, output=output, progress=Interrupt(2, "finetune"))
    return output


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory, datasets, stopped):
    """The model folder that finetuning exported, started from that of align."""
    output = tmp_path_factory.mktemp("finetuned") / "run"
    options = {"stages": ["finetune"], "start_from": stopped / "stages" / "align"}
    return train(small_recipe(*SHORT), datasets=datasets, output=output, **options).checkpoint


def change_a_weight(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()  # it has other names, which keep what they are
    path.write_bytes(content)


def test_a_model_says_which_stage_made_it_from_what(stopped, finetuned):
    align = json.loads((stopped / "stages" / "align" / "training.json").read_text())
    finetune = json.loads((finetuned / "training.json").read_text())

    assert (align["recipe"], align["stage"], align["input"]) == ("small", "align", None)
    assert (finetune["stage"], finetune["input"]["path"]) == ("finetune", str(stopped / "stages" / "align"))
    assert list(align["weights"]) == ["model.safetensors"]


def test_a_stage_that_starts_from_another_stages_model_is_refused_unless_it_takes_any(datasets, finetuned, tmp_path):
    options = {"datasets": datasets, "stages": ["finetune"], "start_from": finetuned}
    with pytest.raises(
        TrainingError,
        match=r'stage "finetune" starts from the model of stage "align", but .* is that of stage "finetune" '
        r'\(recipe "small"\); .* stages\.finetune\.follows=any',
    ):
        train(small_recipe(*SHORT), output=tmp_path / "refused", **options)
    assert not (tmp_path / "refused").exists()

    taken = train(small_recipe(*SHORT, "stages.finetune.follows=any"), output=tmp_path / "taken", **options)
    assert taken.stages["finetune"].steps == 2


def test_a_model_that_changed_since_it_was_exported_is_refused(datasets, stopped, tmp_path):
    folder = tmp_path / "align"
    shutil.copytree(stopped / "stages" / "align", folder)
    change_a_weight(folder)
    options = {"datasets": datasets, "stages": ["finetune"], "start_from": folder}
    with pytest.raises(TrainingError, match=r'model\.safetensors is not what stage "align" exported: .*SHA-256'):
        train(small_recipe(*SHORT), output=tmp_path / "refused", **options)

    (folder / "training.json").unlink()  # as the message says: to take the model as it is
    assert train(small_recipe(*SHORT), output=tmp_path / "taken", **options).stages["finetune"].steps == 2


def test_a_run_whose_earlier_stage_changed_does_not_continue(datasets, stopped, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    before = lines(run)
    change_a_weight(run / "stages" / "align")

    with pytest.raises(TrainingError, match=r'stages/align/model\.safetensors is not what stage "align" exported'):
        train(small_recipe(*SHORT), datasets=datasets, output=run, resume=True)
    assert lines(run) == before


def test_a_run_is_resumed_where_it_stopped(datasets, stopped, finetuned, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    told: list[Progress] = []
    recipe = small_recipe(*SHORT, "trackers=[tensorboard]")
    train(recipe, datasets=datasets, output=run, resume=True, progress=told.append)

    assert [(now.stage, now.done) for now in told if now.phase == "train"] == [("finetune", 2)]
    assert [line for line in lines(run) if line["stage"] == "finetune"] == lines(finetuned.parent)
    read = EventAccumulator(str(run / "trackers" / "small")).Reload()
    assert [event.step for event in read.Scalars("finetune/loss")] == [3]  # counted over all stages


def test_what_does_not_change_the_result_may_differ_on_resume(datasets, stopped, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    other = ("log_every=2", "checkpoint.every=0", "on_bad_sample=skip", "max_bad_steps=5", "num_workers=0")
    train(small_recipe(*SHORT, *other), datasets=datasets, output=run, resume=True)

    assert [(line["stage"], line["step"]) for line in lines(run)] == [("align", 1), ("finetune", 1), ("finetune", 2)]


def test_what_changes_the_result_may_not_and_is_named(datasets, stopped):
    recipe = small_recipe(*SHORT, "seed=1", "stages.finetune.optim.lr=0.5", "log_every=2")
    with pytest.raises(
        TrainingError,
        match=r"other values: seed was 0, now 1; stages\.finetune\.optim\.lr was 0\.003, now 0\.5; resume with",
    ):
        train(recipe, datasets=datasets, output=stopped, resume=True)
