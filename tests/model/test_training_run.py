import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cambrian_model.errors import RecipeError, TrainingError
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.processing.processor import CambrianProcessor
from cambrian_model.training import Progress, load_recipe, train
from cambrian_model.training.metrics import read_metrics
from tests.support.pictures import Pictures
from tests.support.recipes import SCRATCH

SMALL = [
    "model.language_model.config.hidden_size=32",
    "model.language_model.config.intermediate_size=48",
    "model.language_model.config.num_hidden_layers=2",
    "model.language_model.config.attention_dropout=0.1",
    "model.connector.width=16",
    "model.connector.in_llm={start: 0, stride: 1, count: 1}",
    "stages.align.batch={rows: 2, micro_rows: 1, row_tokens: 128}",
    "stages.finetune.batch={rows: 2, row_tokens: 128}",
    "stages.align.train=[connector, in_llm, vision_encoders]",
    "stages.align.max_steps=7",
    "stages.finetune.max_steps=6",
    "checkpoint.every=2",
    "device=cpu",
]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    return {"scenes": Pictures(tmp_path_factory.mktemp("pictures"))}


def small_recipe(*overrides):
    return load_recipe(SCRATCH, [*SMALL, *overrides])


@pytest.fixture(scope="module")
def finished(tmp_path_factory, datasets):
    """An undisturbed run."""
    return train(small_recipe(), datasets=datasets, output=tmp_path_factory.mktemp("runs") / "whole")


def losses(folder):
    return [
        (line["stage"], line["step"], line["loss"], line["grad_norm"])
        for line in read_metrics(folder / "metrics.jsonl")
    ]


def weights(folder):
    return load_file(folder / "checkpoint" / "model.safetensors")


def assert_same(a, b):
    assert losses(a) == losses(b)
    assert weights(a).keys() == weights(b).keys()
    assert all(torch.equal(tensor, weights(b)[name]) for name, tensor in weights(a).items())


def test_a_run_holds_all_that_is_needed_to_know_and_repeat_it(finished):
    run = finished.run_dir
    assert {path.name for path in run.iterdir()} == {
        *("recipe.yaml", "run.json", "metrics.jsonl", "curve.png", "result.json"),
        *("checkpoints", "stages", "checkpoint"),
    }
    facts = json.loads((run / "run.json").read_text())
    assert facts["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert facts["data"]["scenes"]["samples"] == 23
    assert {row["part"]: row["lr"] for row in facts["parts"]["align"]} == {
        **dict.fromkeys(["vision_encoders", "projector", "sva", "in_llm"], small_recipe().stages["align"].optim.lr),
        "language_model": None,
    }
    assert load_recipe(run / "recipe.yaml") == small_recipe()
    steps = [(line["stage"], line["step"]) for line in read_metrics(run / "metrics.jsonl")]
    assert steps == [("align", i + 1) for i in range(7)] + [("finetune", i + 1) for i in range(6)]
    assert not [path for path in run.rglob("*") if path.suffix in (".pt", ".bin", ".pkl", ".pth")]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        *("align-000004", "align-000006", "finetune-000002", "finetune-000004")
    ]


def test_the_result_says_what_each_stage_came_to(finished):
    assert list(finished.stages) == ["align", "finetune"]
    assert finished.stages["finetune"].steps == 6
    assert finished.stages["finetune"].last_loss < finished.stages["align"].first_loss
    assert finished.dropped == {"align": {}, "finetune": {}}
    assert finished.seconds > 0


def test_align_leaves_the_language_model_as_it_was(finished):
    before, after = (load_file(finished.run_dir / "stages" / s / "model.safetensors") for s in ("align", "finetune"))
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    fresh, _ = fresh_model()

    assert torch.equal(before[name], fresh.state_dict()[name])
    assert not torch.equal(before[name], after[name])


def fresh_model():
    from cambrian_model.assemble import assemble
    from cambrian_model.training.random_state import seed_everything

    seed_everything(small_recipe().seed, "align")
    return assemble(small_recipe().model.spec())


def test_the_checkpoint_reloads_and_answers(finished, datasets):
    model = CambrianForConditionalGeneration.from_pretrained(finished.checkpoint)
    processor = CambrianProcessor.from_pretrained(finished.checkpoint)
    picture = Image.open(datasets["scenes"][0]["images"][0])
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "Describe the picture."}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )

    assert model.generate(**inputs, max_new_tokens=3, do_sample=False).shape[1] > inputs["input_ids"].shape[1]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(finished, datasets, tmp_path):
    again = train(small_recipe(), datasets=datasets, output=tmp_path / "again")
    other = train(small_recipe("seed=1", "stages.align.max_steps=1"), datasets=datasets, output=tmp_path / "other")

    assert_same(finished.run_dir, again.run_dir)
    assert losses(other.run_dir)[0] != losses(finished.run_dir)[0]


def test_stages_run_apart_give_what_they_give_together(finished, datasets, tmp_path):
    align = train(small_recipe(), datasets=datasets, output=tmp_path / "a", stages=["align"])
    finetune = train(
        small_recipe(), datasets=datasets, output=tmp_path / "f", stages=["finetune"], start_from=align.checkpoint
    )

    assert losses(align.run_dir) + losses(finetune.run_dir) == losses(finished.run_dir)
    assert all(torch.equal(t, weights(finished.run_dir)[n]) for n, t in weights(finetune.run_dir).items())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_change_nothing(finished, datasets, tmp_path):
    with_workers = train(small_recipe("num_workers=2"), datasets=datasets, output=tmp_path / "workers")

    assert_same(finished.run_dir, with_workers.run_dir)


def test_resuming_a_finished_run_returns_its_result_at_once(finished, datasets):
    told: list[Progress] = []
    again = train(small_recipe(), datasets=datasets, output=finished.run_dir, resume=True, progress=told.append)

    assert again == finished
    assert told == []


def test_resuming_an_empty_or_missing_folder_starts_anew(datasets, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / ".unfinished-recipe.yaml").write_text("name: ti")  # killed within its first write
    short = small_recipe("stages.align.max_steps=1")
    for name in ("missing", "empty", "half"):
        result = train(short, datasets=datasets, output=tmp_path / name, resume=True, stages=["align"])
        assert result.stages["align"].steps == 1


def test_progress_is_told_for_data_steps_and_exports(datasets, tmp_path):
    told: list[Progress] = []
    short = small_recipe("stages.align.max_steps=2", "log_every=2")
    train(short, datasets=datasets, output=tmp_path / "run", stages=["align"], progress=told.append)

    assert [(p.phase, p.stage, p.done, p.total) for p in told] == [
        ("index", "scenes", 23, 23),  # told once a block of samples is measured
        ("train", "align", 2, 2),
        ("export", "align", 0, 1),
        ("export", "align", 1, 1),
    ]
    assert set(told[1].numbers) == {"loss", "lr", "tokens/s", "data wait %", "GB"}


def test_a_folder_that_holds_another_run_is_refused(finished, datasets, tmp_path):
    recipe = small_recipe("name=other", "stages.align.max_steps=3", "stages.finetune.optim.lr=1")
    with pytest.raises(TrainingError, match=r'holds a run of recipe "scratch"; .* --resume, .*"other" .* --output'):
        train(recipe, datasets=datasets, output=finished.run_dir)
    with pytest.raises(
        TrainingError,
        match=r"other values: name was 'scratch', now 'other'; stages.align.max_steps was 7, now 3; "
        r"stages.finetune.optim.lr was 0.0\d+, now 1.0",
    ):
        train(recipe, datasets=datasets, output=finished.run_dir, resume=True)
    with pytest.raises(TrainingError, match=r"holds a run with stages \['align', 'finetune'\], not \['align'\]"):
        train(small_recipe(), datasets=datasets, output=finished.run_dir, resume=True, stages=["align"])

    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(TrainingError, match=r"is no run folder: it holds holiday\.jpg"):
        train(recipe, datasets=datasets, output=tmp_path, resume=True)
    with pytest.raises(TrainingError, match=r"holiday\.jpg cannot be the output folder"):
        train(recipe, datasets=datasets, output=tmp_path / "holiday.jpg")


def test_what_cannot_be_trained_is_refused_before_anything_is_written(datasets, tmp_path):
    output = tmp_path / "run"
    with pytest.raises(RecipeError, match=r'has no stage "algin"; did you mean "align"'):
        train(small_recipe(), datasets=datasets, output=output, stages=["algin"])
    with pytest.raises(TrainingError, match=r'stage "align" needs data "scenes", but only \[\] was passed'):
        train(small_recipe(), datasets={}, output=output)
    with pytest.raises(RecipeError, match=r"leaves data.train.records, model.language_model.path to you; add --set"):
        train(load_recipe("photographs"), datasets=datasets, output=output)
    assert not output.exists()


def test_bad_data_names_the_sample(datasets, tmp_path):
    with pytest.raises(TrainingError, match=r'^data "scenes" is empty; training needs at least one record$'):
        train(small_recipe(), datasets={"scenes": []}, output=tmp_path / "empty")
    with pytest.raises(TrainingError, match=r"none of 23 samples fits into a row of 8 tokens"):
        train(
            small_recipe("stages.align.batch={rows: 2, row_tokens: 8, too_long: drop}"),
            datasets=datasets,
            output=tmp_path / "long",
        )
    broken = Pictures(tmp_path / "broken")
    picture = tmp_path / "broken" / "red.png"
    picture.write_bytes(picture.read_bytes()[:60])  # the header is whole, the pixels are not
    with pytest.raises(TrainingError, match=r'sample "picture-\d+": .*red\.png.*; mend or remove it, or .*skip$'):
        train(small_recipe(), datasets={"scenes": broken}, output=tmp_path / "truncated")


def test_data_that_changed_between_start_and_resume_is_refused(datasets, tmp_path):
    recipe = small_recipe("stages.align.max_steps=1")
    train(recipe, datasets=datasets, output=tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    for name in ("align", "finetune"):
        (tmp_path / "run" / "stages" / name).rename(tmp_path / name)

    with pytest.raises(TrainingError, match=r'data "scenes" has changed .*\(23 samples then, 22 now\)'):
        train(recipe, datasets={"scenes": Pictures(tmp_path / "p", 22)}, output=tmp_path / "run", resume=True)


class Vanishing(Pictures):
    """Pictures that can be indexed and not be read again."""

    asked = 0

    def __getitem__(self, index):
        self.asked += 1
        if self.asked > self.count:
            raise TrainingError("the pictures are gone")
        return super().__getitem__(index)


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_without_a_step_is_replaced_by_the_corrected_one(datasets, tmp_path, resume):
    output = tmp_path / "run"
    with pytest.raises(TrainingError, match="gone"):
        train(small_recipe(), datasets={"scenes": Vanishing(tmp_path / "p")}, output=output, stages=["align"])
    assert load_recipe(output / "recipe.yaml") == small_recipe()
    corrected = small_recipe("stages.align.max_steps=1", "seed=3")
    train(corrected, datasets=datasets, output=output, stages=["align"], resume=resume)
    assert load_recipe(output / "recipe.yaml") == corrected
    assert json.loads((output / "run.json").read_text())["seed"] == 3


def test_a_checkpoint_of_another_model_is_refused(finished, datasets, tmp_path):
    changes = {
        "grid_side=2": "model.grid_side is 2 in the recipe, but 4",
        "connector.in_llm.count=2": "model.connector.in_llm is .*'count': 2.* but .*'count': 1",
        "vision_encoders.1.name=timm:test_vit": "encoders.1.name is timm:test_vit .* but timm:test_convnext",
        "language_model.config.num_hidden_layers=3": "num_hidden_layers is 3 in the recipe, but 2 in the checkpoint",
    }
    for change, expected in changes.items():
        recipe = small_recipe(f"model.{change}")
        with pytest.raises(TrainingError, match=expected):
            train(
                recipe, datasets=datasets, output=tmp_path / "run", stages=["finetune"], start_from=finished.checkpoint
            )
    assert not (tmp_path / "run").exists()


def test_what_a_kill_left_is_swept_and_the_curve_drawn(finished, datasets, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished.run_dir, run)
    for name in ("result.json", "curve.png", "run.json"):
        (run / name).unlink()
    (run / ".unfinished-checkpoint").mkdir()
    (run / "stages" / ".unfinished-finetune").mkdir()
    (run / ".unfinished-curve.png").touch()
    again = train(small_recipe(), datasets=datasets, output=run, resume=True)

    assert again.stages == finished.stages
    assert again.dropped == {}
    assert (run / "curve.png").stat().st_size > 0
    assert not list(run.rglob(".unfinished-*"))


def test_a_sample_with_nothing_to_learn_is_found_before_training(datasets, tmp_path):
    sample = {**datasets["scenes"][0], "location": "mine.jsonl:7"}
    silent = {**sample, "messages": sample["messages"][:1]}
    with pytest.raises(TrainingError, match=r"mine\.jsonl:7: .*nothing to learn from"):
        train(small_recipe(), datasets={"scenes": [datasets["scenes"][1], silent]}, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


RUN = """
import sys
from pathlib import Path
import tests.conftest
from tests.model.test_training_run import small_recipe
from tests.support.pictures import Pictures
from cambrian_model.training import train
train(small_recipe(), datasets={"scenes": Pictures(Path(sys.argv[2]))}, output=Path(sys.argv[1]), resume=True)
"""


@pytest.mark.parametrize(("seed", "kills"), [(0, 2), pytest.param(1, 10, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_continues_bit_for_bit(finished, datasets, tmp_path, seed, kills):
    """Kills at random counts of finished steps, and a random moment after: between, within and while saving."""
    dice, output = random.Random(seed), tmp_path / "killed"
    command = [sys.executable, "-c", RUN, str(output), str(datasets["scenes"].folder)]
    for kill_at in sorted(dice.sample(range(1, 13), kills)):
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        while process.poll() is None and lines_in(output / "metrics.jsonl") < kill_at:
            time.sleep(0.002)
        time.sleep(dice.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True)

    assert_same(finished.run_dir, output)


def lines_in(path):
    return path.read_bytes().count(b"\n") if path.is_file() else 0
