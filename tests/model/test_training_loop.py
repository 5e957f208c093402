import math

import pytest
import torch

from cambrian_model.errors import RecipeError, TrainingError
from cambrian_model.processing.sample import Sample
from cambrian_model.training.batches import Place, StepData
from cambrian_model.training.loop import run_steps, start_accelerator
from cambrian_model.training.optim import build_optimizer, lr_factor
from cambrian_model.training.packing import collate
from cambrian_model.training.recipe import OptimSection, StageSection, load_recipe
from cambrian_model.training.stages import select_trainable
from tests.support.recipes import SCRATCH
from tests.support.tiny_model import VOCABULARY, tiny_model, tiny_sample

ALL = ("vision_encoders", "connector", "in_llm", "language_model")


def stage(train=ALL, **optim):
    optim = {"lr": 1e-3, "warmup": 0, "schedule": "constant", **optim}
    values = {"data": "x", "train": train, "optim": optim, "batch": {"row_tokens": 96}, "max_steps": 1}
    return StageSection.model_validate(values)


def samples(count):
    """Samples with none, one or two pictures, of which uneven numbers of tokens are supervised."""
    made = []
    for seed in range(count):
        raw = tiny_sample(seed, [(40, 30), (20, 60)][: seed % 3], text=4 + seed % 4)
        ids = raw["input_ids"][0]
        labels = torch.where((ids < VOCABULARY) & (torch.arange(len(ids)) >= len(ids) - 2 - seed), ids, -100)
        made.append(Sample(ids, labels, raw["pixel_values"], raw["image_sizes"]))
    return made


def step_data(rows, size):
    batches = [collate(rows[start : start + size], 96, 0) for start in range(0, len(rows), size)]
    return StepData(batches, [f"sample-{i}" for i in range(sum(map(len, rows)))], 0, Place(0, 1))


def take_steps(model, chosen, steps):
    accelerator = start_accelerator(load_recipe(SCRATCH, ["device=cpu"]))
    optimizer = build_optimizer(select_trainable(model, chosen).groups, chosen.optim)
    return list(run_steps(model, optimizer, iter(steps), accelerator, chosen.optim, 0, len(steps)))


def gradients(model, data):
    """The gradients of one step, kept by a learning rate too small to matter and no clearing afterwards."""
    found: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        parameter.register_hook(lambda g, name=name: found.__setitem__(name, found.get(name, 0) + g.clone()))
    (step,) = take_steps(model, stage(lr=1e-30, clip_norm=None), [data])
    return step.metrics, found


def assert_close(name, gradient, expected):
    """Sums in another order: float32 rounding at the scale of the largest gradients."""
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=2e-6, msg=lambda text: f"{name}: {text}")


def test_gradients_do_not_depend_on_how_a_step_is_cut_into_batches():
    rows = [[sample] for sample in samples(8)]
    metrics, whole = gradients(tiny_model(), step_data(rows, 8))
    cut_metrics, cut = gradients(tiny_model(), step_data(rows, 2))

    assert metrics["supervised_tokens"] == cut_metrics["supervised_tokens"]
    assert metrics["loss"] == pytest.approx(cut_metrics["loss"], abs=1e-6)
    assert metrics["grad_norm"] == pytest.approx(cut_metrics["grad_norm"], rel=1e-5)
    assert set(whole) == set(cut) == {name for name, _ in tiny_model().named_parameters()}
    for name, gradient in whole.items():
        assert_close(name, cut[name], gradient)


def test_gradients_do_not_depend_on_which_samples_share_a_row():
    eight = samples(8)
    metrics, apart = gradients(tiny_model(), step_data([[sample] for sample in eight], 8))
    packed_metrics, packed = gradients(tiny_model(), step_data([eight[:2], eight[2:4], eight[4:6], eight[6:]], 4))

    assert metrics["loss"] == pytest.approx(packed_metrics["loss"], abs=1e-5)
    for name, gradient in apart.items():
        assert_close(name, packed[name], gradient)


def test_the_loss_is_the_mean_over_the_supervised_tokens_of_the_whole_step():
    model, eight = tiny_model(), samples(8)
    total, count = 0.0, 0
    for sample in eight:
        batch = collate([[sample]], len(sample.input_ids), 0)
        total += model(**batch.inputs, num_items_in_batch=1).loss.item()
        count += batch.supervised_tokens
    (step,) = take_steps(model, stage(), [step_data([[sample] for sample in eight], 3)])

    assert step.metrics["supervised_tokens"] == count
    assert step.metrics["loss"] == pytest.approx(total / count, abs=1e-5)


def test_exactly_the_named_parts_change():
    model = tiny_model()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    data = step_data([[sample] for sample in samples(4)], 4)
    take_steps(model, stage(train=("connector", "in_llm")), [data, data])

    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    named = {name for name in before if name.startswith("connector.") or ".sva." in name}
    behind_last_layer = {
        name for name in named if ".layers.2.sva." in name
    }  # changes image tokens that predict nothing
    assert changed == named - behind_last_layer
    assert all(p.grad is None for name, p in model.named_parameters() if name not in named)


def test_every_part_has_its_own_rate_and_only_matrices_decay():
    model = tiny_model()
    chosen = stage(train=("connector", "language_model"), part_lr={"connector": 1e-4}, weight_decay=0.1)
    trainable = select_trainable(model, chosen)

    assert {(g["part"], g["lr"]) for g in trainable.groups} == {("connector", 1e-4), ("language_model", 1e-3)}
    assert all((g["weight_decay"] == 0.1) == (p.ndim >= 2) for g in trainable.groups for _, p in g["params"])
    assert [(row.part, row.lr) for row in trainable.table] == [
        ("vision_encoders", None),
        ("connector", 1e-4),
        ("in_llm", None),
        ("language_model", 1e-3),
    ]
    assert sum(row.parameters for row in trainable.table) == sum(p.numel() for p in model.parameters())
    assert set(trainable.named) == {name for name, p in model.named_parameters() if p.requires_grad}


def test_a_part_that_the_model_lacks_cannot_be_trained():
    connector = {"width": 32, "depth": 1, "num_heads": 4, "query_grid_sides": [4]}
    with pytest.raises(RecipeError, match=r"trains in_llm, but this model has no such part"):
        select_trainable(tiny_model(connector=connector), stage())


def test_a_step_with_nothing_supervised_names_its_samples():
    raw = samples(1)[0]
    mute = Sample(raw.input_ids, torch.full_like(raw.labels, -100), raw.pixel_values, raw.image_sizes)
    with pytest.raises(TrainingError, match=r"step 1 has no supervised token: samples sample-0, sample-1"):
        take_steps(tiny_model(), stage(), [step_data([[mute], [mute]], 1)])


def test_a_loss_that_is_not_finite_names_its_samples_and_changes_nothing():
    model = tiny_model()
    torch.nn.init.constant_(model.connector.newline, math.nan)
    before = model.language_model.lm_head.weight.clone()

    with pytest.raises(TrainingError, match=r"step 1: loss nan .* samples sample-0, sample-1.*lower the learning rate"):
        take_steps(model, stage(), [step_data([[sample] for sample in samples(2)], 2)])
    assert torch.equal(model.language_model.lm_head.weight, before)


@pytest.mark.parametrize(
    ("schedule", "middle", "last"), [("cosine", 0.5, 0.0), ("linear", 0.5, 0.0), ("constant", 1.0, 1.0)]
)
def test_rates_warm_up_and_then_follow_the_schedule(schedule, middle, last):
    optim = OptimSection(lr=1.0, warmup=0.1, schedule=schedule)
    factors = [lr_factor(optim, step, 110) for step in range(110)]

    assert factors[:11] == pytest.approx([(i + 1) / 11 for i in range(11)])
    assert factors[11] == 1.0
    assert factors[11 + 50] == pytest.approx(middle, abs=0.01)
    assert factors[-1] == pytest.approx(last, abs=0.02)
    assert lr_factor(OptimSection(lr=1.0, warmup=4, schedule=schedule), 1, 110) == 0.5


def test_bf16_keeps_float32_weights_and_learns():
    model, data = tiny_model(), step_data([[sample] for sample in samples(4)], 4)
    accelerator = start_accelerator(load_recipe(SCRATCH, ["device=cpu", "precision=bf16"]))
    optimizer = build_optimizer(select_trainable(model, stage()).groups, stage().optim)
    losses = [
        s.metrics["loss"] for s in run_steps(model, optimizer, iter([data] * 4), accelerator, stage().optim, 0, 4)
    ]

    assert losses[-1] < losses[0]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert accelerator.mixed_precision == "bf16"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_says_what_to_set():
    with pytest.raises(TrainingError, match=r'asks for device "cuda", which this machine lacks; set device=auto'):
        start_accelerator(load_recipe(SCRATCH, ["device=cuda"]))
