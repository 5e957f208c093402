"""Runs that differ from a plain one by an option of the recipe: precision, adapters, schedules, what is saved."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cambrian_model.errors import RecipeError, TrainingError
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.training import Progress, train
from cambrian_model.training.optim import lr_factor
from cambrian_model.training.recipe.stage import OptimSection
from tests.support.pictures import Pictures
from tests.support.small_run import Interrupt, assert_same_run, lines, losses, small_recipe, tensors

QUERY = "language_model.model.layers.1.self_attn.q_proj.weight"
TABLE = "language_model.model.embed_tokens.weight"


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    return {"scenes": Pictures(tmp_path_factory.mktemp("pictures"))}


@pytest.fixture(scope="module")
def plain(tmp_path_factory, datasets):
    output = tmp_path_factory.mktemp("plain") / "run"
    return train(small_recipe(), datasets=datasets, output=output, stages=["align"]).run_dir


def interrupted_and_resumed(output, datasets, *overrides):
    options = {"datasets": datasets, "output": output, "stages": ["align"]}
    with pytest.raises(KeyboardInterrupt):
        train(small_recipe(*overrides), **options, progress=Interrupt(5))
    return train(small_recipe(*overrides), **options, resume=True).run_dir


def test_a_run_with_full_checkpoints_continues_bit_for_bit(plain, datasets, tmp_path):
    run = interrupted_and_resumed(tmp_path / "run", datasets, "checkpoint.full=true")

    assert_same_run(run, plain)
    saved = tensors(run / "checkpoints" / "align-000004" / "tensors")
    referred_to = tensors(plain / "checkpoints" / "align-000004" / "tensors")
    frozen = {name for name in saved.keys() - referred_to.keys() if name.startswith("model/")}
    assert frozen
    assert all(name.startswith("model/vision_encoders.") for name in frozen)


LORA = ("stages.align.train=[connector, adapters]", "stages.align.adapters={rank: 3, alpha: 6, dropout: 0.1}")


def test_adapters_leave_a_plain_model_and_continue_bit_for_bit(datasets, plain, tmp_path):
    whole = train(small_recipe(*LORA), datasets=datasets, output=tmp_path / "whole", stages=["align"]).run_dir
    again = interrupted_and_resumed(tmp_path / "again", datasets, *LORA)

    assert_same_run(again, whole)
    exported, never_trained = tensors(whole / "checkpoint"), tensors(plain / "checkpoint")
    assert exported.keys() == never_trained.keys()
    saved = tensors(whole / "checkpoints" / "align-000004" / "tensors")
    weights = [name for name in saved if name.startswith("model/language_model.")]
    assert weights
    assert all("lora_" in name for name in weights)
    _, loading = CambrianForConditionalGeneration.from_pretrained(whole / "checkpoint", output_loading_info=True)
    assert not any(loading.values())


def test_adapters_change_the_layers_that_they_sit_on_and_nothing_else(datasets, tmp_path):
    few = (*LORA, "stages.align.adapters.targets=[q_proj]")
    short = [small_recipe(*few, f"stages.align.max_steps={steps}", "stages.align.optim.lr=1e-2") for steps in (1, 4)]
    one, four = (
        tensors(train(recipe, datasets=datasets, output=tmp_path / str(i), stages=["align"]).checkpoint)
        for i, recipe in enumerate(short)
    )
    changed = {name for name in one if not torch.equal(one[name], four[name])}

    assert {name for name in changed if name.startswith("language_model.")} == {
        f"language_model.model.layers.{i}.self_attn.q_proj.weight" for i in range(2)
    }
    assert {name.partition(".")[0] for name in changed} == {"language_model", "connector"}


def test_a_run_in_bf16_keeps_float32_and_stays_near(plain, datasets, tmp_path):
    result = train(small_recipe("precision=bf16"), datasets=datasets, output=tmp_path / "run", stages=["align"])
    assert losses(result.run_dir) != losses(plain)
    # bfloat16 has 8 bits: a thousandth of a loss of 7, and a few steps that go apart by it.
    assert losses(result.run_dir) == pytest.approx(losses(plain), rel=5e-3)
    assert {tensor.dtype for tensor in tensors(result.checkpoint).values()} == {torch.float32}


COMPILED = """
import sys
from pathlib import Path
from cambrian_model.training import train
from tests.support.pictures import Pictures
from tests.support.small_run import small_recipe
datasets = {"scenes": Pictures(Path(sys.argv[2]))}
train(small_recipe(*sys.argv[3:]), datasets=datasets, output=Path(sys.argv[1]), stages=["align"])
"""


@pytest.mark.slow
def test_a_compiled_run_has_the_same_losses(datasets, tmp_path):
    """In a process of its own, for a compiler cannot follow the checker of shapes of the test run."""
    # A compiled layer draws other numbers for dropout.
    overrides = ("model.language_model.config.attention_dropout=0", "stages.align.max_steps=3")
    command = [sys.executable, "-c", COMPILED, str(tmp_path / "compiled"), str(datasets["scenes"].folder)]
    subprocess.run([*command, *overrides, "compile=true"], cwd=Path(__file__).parents[2], check=True)
    plain = train(small_recipe(*overrides), datasets=datasets, output=tmp_path / "plain", stages=["align"])

    # Fused kernels round otherwise, over three steps of AdamW.
    assert losses(tmp_path / "compiled") == pytest.approx(losses(plain.run_dir), abs=1e-4)
    assert tensors(tmp_path / "compiled" / "checkpoint").keys() == tensors(plain.checkpoint).keys()


def test_rates_rise_stay_and_fall_and_gradients_may_be_as_large_as_they_are(datasets, tmp_path):
    optim = "{lr: 1e-2, warmup: 2, schedule: wsd, decay: 2, clip_norm: null, groups: {connector: {lr: 1e-3}}}"
    recipe = small_recipe(f"stages.align.optim={optim}", "stages.align.max_steps=7")
    run = train(recipe, datasets=datasets, output=tmp_path / "run", stages=["align"]).run_dir

    shares = [0.5, 1, 1, 1, 1, 1, 0.5]
    assert [line["lr"] for line in lines(run)] == pytest.approx([1e-2 * share for share in shares])
    assert [min(line["lrs"]) for line in lines(run)] == pytest.approx([1e-3 * share for share in shares])
    assert max(line["grad_norm"] for line in lines(run)) > 1


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, 0.853553, 0.5, 0.146447]),
        ("wsd", [0.5, 1, 1, 1, 1, 0.5]),
    ],
)
def test_schedules(schedule, expected):
    optim = OptimSection(lr=1, warmup=2, schedule=schedule, decay=2)
    assert [lr_factor(optim, optim.warmup, step, 6) for step in range(6)] == pytest.approx(expected, abs=1e-6)


def test_steps_that_are_not_finite_are_told_and_end_the_run(datasets, tmp_path):
    told: list[Progress] = []
    recipe = small_recipe("stages.align.optim.lr=1e30", "stages.align.optim.schedule=constant", "max_bad_steps=2")
    options = {"datasets": datasets, "output": tmp_path / "run", "stages": ["align"]}
    with pytest.raises(TrainingError, match=r"step 3: loss nan .* in 2 steps in a row .*samples picture-\d+"):
        train(recipe, **options, progress=told.append)

    found = lines(tmp_path / "run")
    assert [line["loss"] is None for line in found] == [False, True, True]
    assert [line["grad_norm"] is None for line in found] == [False, True, True]
    assert all(name.startswith("picture-") for name in found[1]["not_finite"])
    assert len(found[1]["not_finite"]) == found[1]["samples"]
    skips = [now for now in told if now.phase == "skip"]
    assert [now.done for now in skips] == [2, 3]
    assert found[1]["not_finite"][0] in skips[0].note
    # A checkpoint of step 2 counts the step that was skipped, so the next one is the second in a row again.
    with pytest.raises(TrainingError, match=r"step 3: loss nan .* in 2 steps in a row"):
        train(recipe, **options, resume=True)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.align.train=[connector, no.such.*]", r"no\.such\.\*.*matches no"),
        ("stages.align.optim.groups={connector: {lr: 1}, '*.weight': {lr: 2}}", "twice|both"),
    ],
)
def test_patterns_that_mean_nothing_or_two_things_are_refused_before_the_first_step(
    override, message, datasets, tmp_path
):
    with pytest.raises(RecipeError, match=message):
        train(small_recipe(override), datasets=datasets, output=tmp_path / "run", stages=["align"])
    assert not (tmp_path / "run").exists()
