"""What a run does beside its steps: validation, evaluation, averages of weights, trackers, profile.

Three runs serve all tests: a plain one, one with everything switched on, and the same interrupted and resumed.
"""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from cambrian_model.errors import TrainingError
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.processing.processor import CambrianProcessor
from cambrian_model.training import Progress, train
from cambrian_model.training.collate import collate
from tests.support.pictures import Pictures
from tests.support.small_run import (
    Interrupt,
    assert_same_run,
    assert_same_tensors,
    lines,
    losses,
    small_recipe,
    spoil_pixels,
    tensors,
)

WATCHED = (
    "stages.align.validation={data: [held, more], every: 2, max_samples: 7}",
    "stages.align.ema.decay=0.9",
    "evaluation={cvbench: {scenes: {count: 8, seed: 9}}, every: 3}",
    "trackers=[tensorboard]",
    "profile={start: 1, steps: 2}",
)
WEIGHT = "language_model.model.layers.0.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    held, more = Pictures(folder, 9, pictures=(1, 0), prefix="held"), Pictures(folder, 9, pictures=(2,), prefix="more")
    return {"scenes": Pictures(folder), "held": held, "more": more}


class Examiner:
    """An `evaluate` that notes what it was given, and asks for random numbers and gradients as it likes."""

    def __init__(self):
        self.asked, self.weights, self.was_trained = [], {}, []

    def __call__(self, model, processor, stage, step):
        self.asked.append((type(processor), stage, step))
        self.weights[step] = model.get_parameter(WEIGHT).detach().clone()
        self.was_trained.append(model.training)
        torch.rand(7)
        return {"accuracy": 1 / step, "guessed": 0.25}


@pytest.fixture(scope="module")
def plain(tmp_path_factory, datasets):
    return train(
        small_recipe(), datasets=datasets, output=tmp_path_factory.mktemp("plain") / "run", stages=["align"]
    ).run_dir


@pytest.fixture(scope="module")
def watched(tmp_path_factory, datasets):
    examiner, told = Examiner(), list[Progress]()
    result = train(
        small_recipe(*WATCHED),
        datasets=datasets,
        output=tmp_path_factory.mktemp("watched") / "run",
        stages=["align"],
        evaluate=examiner,
        progress=told.append,
    )
    return result.run_dir, examiner, told


def test_looking_changes_nothing(plain, watched):
    run, _, _ = watched
    assert losses(run) == losses(plain)
    for name in ("align-000002", "align-000004"):
        saved = tensors(run / "checkpoints" / name / "tensors")
        trained = {key: value for key, value in saved.items() if not key.startswith("ema/")}
        assert_same_tensors(trained, tensors(plain / "checkpoints" / name / "tensors"))
        assert len(trained) < len(saved)
        generators = [tensors(folder / "checkpoints" / name) for folder in (run, plain)]
        assert torch.equal(generators[0]["torch"], generators[1]["torch"])


def loss_one_by_one(folder, dataset, count):
    model = CambrianForConditionalGeneration.from_pretrained(folder).eval()
    processor = CambrianProcessor.from_pretrained(folder)
    total, supervised = 0.0, 0
    for i in range(count):
        sample = processor.encode(dataset[i]["messages"], dataset[i]["images"])
        batch = collate([[sample]], sample.num_tokens, 0, empty=None)
        with torch.no_grad():
            total += model(**batch.inputs, num_items_in_batch=1).loss.item()
        supervised += batch.supervised_tokens
    return total / supervised


def test_the_validation_loss_of_each_source_is_that_of_its_samples_one_by_one(watched, datasets):
    run, _, told = watched
    found = lines(run, "validation")
    assert [(line["stage"], line["step"], list(line["losses"])) for line in found] == [
        ("align", step, ["held", "more"]) for step in (2, 4, 6)
    ]
    for source in ("held", "more"):
        # Sums in another order, float32: the samples are alone here, and in packed rows there.
        expected = loss_one_by_one(run / "checkpoint", datasets[source], 7)
        assert found[-1]["losses"][source] == pytest.approx(expected, abs=1e-5)
    said = [(now.done, now.numbers) for now in told if now.phase == "validate"]
    assert said == [(line["step"], line["losses"]) for line in found]


def test_the_evaluation_is_asked_every_few_steps_about_the_averaged_weights(plain, watched):
    run, examiner, told = watched
    assert examiner.asked == [(CambrianProcessor, "align", 3), (CambrianProcessor, "align", 6)]
    assert examiner.was_trained == [False, False]
    assert [(line["step"], line["scores"]) for line in lines(run, "evaluation")] == [
        (3, {"accuracy": 1 / 3, "guessed": 0.25}),
        (6, {"accuracy": 1 / 6, "guessed": 0.25}),
    ]
    assert [p.done for p in told if p.phase == "evaluate"] == [3, 6]
    exported = tensors(run / "checkpoint")
    assert torch.equal(examiner.weights[6], exported[WEIGHT])
    assert not torch.equal(exported[WEIGHT], tensors(plain / "checkpoint")[WEIGHT])


def test_a_watched_run_continues_bit_for_bit(watched, datasets, tmp_path):
    run, _, _ = watched
    options = {"datasets": datasets, "output": tmp_path / "run", "stages": ["align"]}
    with pytest.raises(KeyboardInterrupt):
        train(small_recipe(*WATCHED), **options, evaluate=Examiner(), progress=Interrupt(5))
    train(small_recipe(*WATCHED), **options, evaluate=Examiner(), resume=True)

    assert_same_run(tmp_path / "run", run)


def test_tensorboard_holds_the_numbers_of_the_metrics(watched):
    run, _, _ = watched
    (events,) = [file.parent for file in (run / "trackers").rglob("events*") if file.parent.name == "small"]
    read = EventAccumulator(str(events)).Reload()
    of_steps = [(event.step, event.value) for event in read.Scalars("align/loss")]
    of_held = [(event.step, event.value) for event in read.Scalars("align/validation/held")]
    assert of_steps == [(i + 1, pytest.approx(loss, rel=1e-6)) for i, loss in enumerate(losses(run))]  # as float32
    assert of_held == [
        (line["step"], pytest.approx(line["losses"]["held"], rel=1e-6)) for line in lines(run, "validation")
    ]
    assert [event.step for event in read.Scalars("align/evaluation/accuracy")] == [3, 6]
    (noted,) = (run / "trackers").rglob("hparams.yml")
    assert yaml.safe_load(noted.read_text())["seed"] == 0


def test_a_window_of_steps_is_profiled(watched):
    run, _, _ = watched
    (file,) = (run / "profile").iterdir()
    assert file.name == "align-rank0.json"
    events = json.loads(file.read_text())["traceEvents"]
    assert len({event["name"] for event in events if event["name"].startswith("ProfilerStep#")}) == 2
    assert "aten::mm" in {event["name"] for event in events}


def test_nothing_of_a_run_is_pickled(watched):
    run, _, _ = watched
    suffixes = {file.suffix for file in run.rglob("*") if file.is_file() and not file.name.startswith("events")}
    assert suffixes <= {".json", ".jsonl", ".safetensors", ".yaml", ".yml", ".png", ".jinja", ""}
    assert {file.name for file in run.rglob("*") if file.is_file() and not file.suffix} <= {"COMPLETE"}


@pytest.mark.skipif(importlib.util.find_spec("trackio") is not None, reason="the package is installed here")
def test_a_tracker_that_is_not_installed_is_named_before_anything_is_done(datasets, tmp_path):
    recipe = small_recipe("trackers=[tensorboard, trackio]")
    with pytest.raises(TrainingError, match=r"names trackio, which is not installed; .*\(pip install trackio\)"):
        train(recipe, datasets=datasets, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Gibberish(Pictures):
    """Pictures with answers that are the less likely, the better a model knows those of `Pictures`."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        sample["messages"][1]["content"] = [{"type": "text", "text": "Qzx jwk 93 vvq ~ %% Kyp ## 71 zzq wkx. " * 2}]
        return sample


def test_the_best_checkpoint_stays_beside_the_newest(datasets, tmp_path):
    every_step = ("stages.align.validation={data: held, every: 1}", "checkpoint={every: 1, keep: 1}")
    recipe = small_recipe(*every_step, "stages.align.optim.lr=3e-2")
    output, held = tmp_path / "run", Gibberish(tmp_path / "held", 4)
    train(recipe, datasets={**datasets, "held": held}, output=output, stages=["align"])

    metrics = {line["step"]: line["losses"]["held"] for line in lines(output, "validation")}
    best = min(range(1, 6), key=metrics.__getitem__)  # the last step has no checkpoint: it has the model
    assert best < 5
    record = json.loads((output / "checkpoints" / "best.json").read_text())["align"]
    assert record == {"checkpoint": f"align-{best:06d}", "metric": metrics[best]}
    kept = sorted(path.name for path in (output / "checkpoints").iterdir() if path.is_dir())
    assert kept == [f"align-{best:06d}", "align-000005"]


def test_validation_data_that_cannot_be_read_is_an_error_or_listed(datasets, tmp_path):
    held = Pictures(tmp_path / "held", 9, prefix="held")
    spoil_pixels(Path(held.folder) / "red.png")
    once = ("stages.align.validation={data: held, every: 1}", "stages.align.max_steps=2")
    with pytest.raises(TrainingError, match=r'sample "held-\d": .*red\.png'):
        train(small_recipe(*once), datasets={**datasets, "held": held}, output=tmp_path / "stops", stages=["align"])
    result = train(
        small_recipe(*once, "on_bad_sample=skip"),
        datasets={**datasets, "held": held},
        output=tmp_path / "goes on",
        stages=["align"],
    )
    listed = [json.loads(line) for line in (result.run_dir / "bad_samples.jsonl").read_text().splitlines()]
    assert sorted(line["name"] for line in listed) == ['sample "held-0"', 'sample "held-5"']
    assert result.bad == 2


def test_what_is_validated_on_in_one_stage_may_be_trained_on_in_another(datasets, tmp_path):
    recipe = small_recipe(
        "stages.align.validation={data: held, every: 5, max_samples: 2}",
        "stages.align.max_steps=1",
        "stages.finetune.data=held",
        "stages.finetune.validation={data: scenes, every: 5, max_samples: 3}",
        "stages.finetune.max_steps=null",
        "stages.finetune.epochs=1",
    )
    train(recipe, datasets=datasets, output=tmp_path / "run")

    assert sum(line["samples"] for line in lines(tmp_path / "run") if line["stage"] == "finetune") == 9
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["data"]["held"]["samples"] == 9
    assert facts["data"]["scenes"]["samples"] == 23
