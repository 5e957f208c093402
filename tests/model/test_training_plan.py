"""The plan of a run: against what training then does, and where little is known."""

import dataclasses

import numpy as np
import pytest

from cambrian_model.assemble import assemble, assemble_empty
from cambrian_model.errors import CheckpointError, ConfigError, RecipeError, TrainingError
from cambrian_model.training import load_recipe
from cambrian_model.training.flops import BatchShape, FlopModel
from cambrian_model.training.plan import Machine, RecipePlan, check_recipe, plan_recipe
from cambrian_model.training.trainable import select_trainable
from tests.support.pictures import Pictures
from tests.support.recipes import SCRATCH

SMALL = [
    "model.language_model.config.hidden_size=32",
    "model.language_model.config.intermediate_size=48",
    "model.language_model.config.num_hidden_layers=2",
    "model.connector.width=16",
    "model.connector.in_llm={start: 0, stride: 1, count: 1}",
    "stages.align.batch={rows: 4, micro_rows: 1, row_tokens: 128}",
    "stages.align.train=[connector, in_llm]",
    "stages.align.optim.groups={sva: {lr: 2.0e-4, warmup: 3}}",
    "stages.align.max_steps=7",
    "stages.finetune.batch={rows: 4, row_tokens: 128}",
    "stages.finetune.train=[connector, language_model]",
]
EXPECTED = "data.scenes.expected={samples: 1000, tokens: 44, images: 0.5}"
BY_EPOCHS = ["stages.align.epochs=2", "stages.align.max_steps=null"]


def recipe(*overrides):
    return load_recipe(SCRATCH, [*SMALL, *overrides])


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    return {"scenes": Pictures(tmp_path_factory.mktemp("pictures"))}


@pytest.fixture(scope="module")
def measured(datasets) -> RecipePlan:
    changed = recipe("stages.finetune.epochs=3", "stages.finetune.train=[vision_encoders, language_model]")
    return plan_recipe(changed, gpus=2, mfu=0.5, device="NVIDIA A100-SXM4-80GB", datasets=datasets)


@pytest.fixture(scope="module")
def expected() -> RecipePlan:
    return plan_recipe(recipe(EXPECTED, *BY_EPOCHS), gpus=1)


def test_parameters_are_counted_part_by_part_with_what_trains_them(measured):
    align = measured.stages[0]
    model, _ = assemble(recipe().model.spec())
    assert measured.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert sum(row.parameters for row in align.table) == measured.parameters
    trained = {row.part: (row.lr, row.warmup) for row in align.table if row.lr is not None}
    assert trained == {"projector": (3e-3, 0.05), "sva": (2e-4, 3), "in_llm": (3e-3, 0.05)}
    select_trainable(model, recipe().stages["align"])
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert align.trained_tensors == len(names)
    assert align.groups == 4  # two patterns, matrices and vectors apart


def test_data_at_hand_is_measured_and_packed(measured, datasets):
    data = measured.stages[1].data
    assert data.origin == "measured"
    assert data.samples == len(datasets["scenes"])
    assert data.tokens == round(data.fill * data.rows * 128)
    assert data.images == data.unique_images > 0
    assert data.token_share == {"scenes": 1.0}
    assert measured.stages[1].steps == min(200, 3 * -(-data.rows // 4))
    assert measured.stages[0].steps == 7


def test_the_first_sample_is_shown_as_the_model_gets_it(measured):
    shown = measured.stages[0].first_sample
    assert shown.startswith('sample "')
    assert "<image x 20>" in shown  # 4 rows of 4 cells, each with its newline
    assert "[[" in shown
    assert "]]" in shown


def test_time_follows_from_operations_peak_and_utilisation(measured):
    stage = measured.stages[0]
    assert stage.days * 86_400 == pytest.approx(stage.steps * stage.flops_per_step / (2 * 19.5e12 * 0.5))
    assert measured.days == pytest.approx(sum(stage.days for stage in measured.stages))
    assert (
        stage.hardware_flops_per_step
        > stage.flops_per_step
        == pytest.approx(sum(forward + backward for forward, backward in stage.flops_by_part.values()))
    )
    assert stage.micro_batches == 2
    assert stage.tokens_per_step == 4 * 128
    assert 0 < stage.memory.total < measured.machine.num_bytes


def test_operations_of_a_step_are_those_of_its_average_content(measured, datasets):
    stage = measured.stages[0]
    model = assemble_empty(recipe().model.spec())
    select_trainable(model, recipe().stages["align"])
    data, share = stage.data, 4 / stage.data.rows
    shape = BatchShape(
        round(data.tokens * share),
        round(data.pairs * share),
        round(data.text_tokens * share),
        round(data.images * share),
        round(data.images * share) * 16,
    )
    assert stage.flops_per_step == FlopModel.of(model).model_flops(shape)


def test_data_elsewhere_is_what_the_recipe_expects(expected):
    stage = expected.stages[0]
    length = 44 + 0.5 * 20
    assert stage.data.origin == "expected"
    assert stage.data.tokens == pytest.approx(1000 * length)
    assert stage.data.rows == pytest.approx(1000 * length / (0.97 * 128))
    assert stage.steps == 2 * np.ceil(stage.data.rows / 4)
    assert stage.data.images == 500
    assert stage.first_sample is None
    assert any("what the recipe expects" in note for note in stage.notes)


def test_what_nobody_knows_is_left_out_and_said(datasets):
    planned = plan_recipe(recipe("model.tokenizer=nobody/nothing", *BY_EPOCHS), gpus=1, device="cpu", datasets=datasets)
    stage = planned.stages[0]
    assert (stage.data.origin, stage.steps, stage.days, planned.days) == ("unknown", None, None, None)
    assert any("max_steps" in note for note in stage.notes)
    assert any("peak_tflops" in note for note in planned.notes)
    assert any("nobody/nothing: its tokenizer is not at hand" in note for note in planned.notes)
    assert stage.first_sample is None
    assert stage.flops_by_part["language model"][0] > 0
    assert stage.memory.total > 0


def test_saved_features_are_told_with_their_size(measured):
    cache, data = measured.stages[0].cache, measured.stages[0].data
    per_image = 4 * (4 * 4 * 64 + 8 * 8 * 32) + 2 * 40  # features in float32, and the facts of each encoder's row
    assert (cache.num_images, cache.bytes_per_image) == (data.unique_images, per_image)
    assert cache.break_even_epochs is not None
    assert measured.stages[1].cache is None  # its encoders are trained


def test_adapters_and_cached_features_belong_to_their_stage_alone(expected):
    cached = plan_recipe(
        recipe(
            EXPECTED,
            "stages.align.train=[connector, adapters]",
            "stages.align.optim.groups={}",
            "stages.align.adapters={rank: 4}",
            "stages.align.feature_cache=true",
        ),
        gpus=1,
    )
    rows = [{row.part: row.parameters for row in stage.table} for stage in cached.stages]
    assert rows[0]["adapters"] > 0
    assert "adapters" not in rows[1]
    encoders = [[p for p in stage.flops_by_part if p.startswith("vision encoder")] for stage in cached.stages]
    assert [len(of_stage) for of_stage in encoders] == [0, 2]
    assert cached.stages[0].cache == expected.stages[0].cache


def test_the_devices_share_as_the_run_will_decide():
    model = assemble_empty(recipe().model.spec())  # 1.2 MB of weights, all trained, take 5 MB with their state
    chosen = {
        (strategy, gpus, size): Machine(gpus, "some", None, size, 0.4).strategy(
            recipe(f"parallel.strategy={strategy}"), model
        )
        for strategy, gpus, size in (("auto", 2, 80e9), ("auto", 2, 5e6), ("auto", 1, 5e6), ("fsdp", 2, None))
    }
    assert list(chosen.values()) == ["ddp", "fsdp", "ddp", "fsdp"]
    with pytest.raises(TrainingError, match=r"parallel\.replicas is 2, but 3 devices"):
        plan_recipe(recipe("parallel.strategy=fsdp", "parallel.replicas=2"), gpus=3)


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("stages.align.train=[connector, '*.nothing']", RecipeError, "matches no parameter"),
        ("stages.align.optim.groups={sva: {lr: 1}, 'connector.groups*': {lr: 2}}", RecipeError, "named twice"),
        ("model.language_model.config=null", ConfigError, "no language model"),
        ("model.language_model={path: nobody/nothing}", CheckpointError, "its configuration is not at hand"),
    ],
)
def test_a_wrong_recipe_is_refused(override, error, message):
    with pytest.raises(error, match=message):
        plan_recipe(recipe(override), gpus=1)


def test_a_recipe_is_checked_without_data_weights_or_a_machine():
    check_recipe(recipe())
    check_recipe(load_recipe("photographs"))  # whose language model is left to the user
    with pytest.raises(RecipeError, match="matches no parameter"):
        check_recipe(recipe("stages.align.train=['*.nothing']", "stages.align.optim.groups={}"))


@pytest.mark.slow
def test_a_model_of_34_billion_parameters_is_planned_in_little_memory():
    import resource

    planned = plan_recipe(load_recipe("cambrian-34b"), gpus=64)
    assert 36e9 < planned.parameters < 39e9
    assert [stage.strategy for stage in planned.stages] == ["fsdp", "fsdp"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 3e6  # KiB; other tests of this process included
    assert dataclasses.asdict(planned)
