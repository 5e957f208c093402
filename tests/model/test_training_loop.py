import math

import pytest
import torch

from cambrian_model.errors import TrainingError
from cambrian_model.processing.sample import Sample
from cambrian_model.training.batches import Place, StepData
from cambrian_model.training.collate import collate
from cambrian_model.training.distributed import start_accelerator
from cambrian_model.training.ema import EMA
from cambrian_model.training.guard import Guard
from cambrian_model.training.loop import Engine, run_steps
from cambrian_model.training.optim import build_optimizer
from cambrian_model.training.recipe import load_recipe
from cambrian_model.training.recipe.stage import StageSection
from cambrian_model.training.trainable import select_trainable
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


def engine(model, chosen, *overrides, max_bad_steps=1, ema=None):
    accelerator = start_accelerator(load_recipe(SCRATCH, ["device=cpu", *overrides]))
    optimizer = build_optimizer(model, select_trainable(model, chosen).groups, chosen.optim)
    return Engine(model, optimizer, accelerator, chosen.optim, Guard(max_bad_steps), render, ema)


def render(data):
    return f"{data.ids[0]} as text"


def take_steps(model, chosen, steps, **options):
    return list(run_steps(engine(model, chosen, **options), iter(steps), 0, len(steps)))


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


def test_a_step_with_nothing_supervised_names_its_samples():
    raw = samples(1)[0]
    mute = Sample(raw.input_ids, torch.full_like(raw.labels, -100), raw.pixel_values, raw.image_sizes)
    with pytest.raises(TrainingError, match=r"step 1 has no supervised token; .* The first of them: sample-0 as text"):
        take_steps(tiny_model(), stage(), [step_data([[mute], [mute]], 1)])


def spoiled(model):
    torch.nn.init.constant_(model.connector.newline, math.nan)
    return model


def test_a_loss_that_is_not_finite_names_its_samples_and_changes_nothing():
    model = spoiled(tiny_model())
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}

    with pytest.raises(TrainingError, match=r"step 1: loss nan .* samples sample-0, sample-1.*lower the learning rate"):
        take_steps(model, stage(), [step_data([[sample] for sample in samples(2)], 2)])
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters() if name != "connector.newline")


def test_a_step_that_is_not_finite_is_skipped_and_training_goes_on():
    model, data = tiny_model(), step_data([[sample] for sample in samples(3)], 3)
    newline = model.connector.newline.detach().clone()
    chosen = engine(spoiled(model), stage(), max_bad_steps=3)
    found = []
    for step in run_steps(chosen, iter([data] * 4), 0, 4):
        found.append(step.metrics)
        if step.number == 2:
            model.connector.newline.data.copy_(newline)

    assert [line["loss"] is None for line in found] == [True, True, False, False]
    assert found[0]["not_finite"] == data.ids
    assert found[3]["loss"] < found[2]["loss"]
    assert chosen.guard.in_a_row == 0


def test_skipped_steps_in_a_row_end_the_run():
    data = step_data([[sample] for sample in samples(2)], 2)
    with pytest.raises(TrainingError, match=r"step 3: .* and so in 3 steps in a row \(max_bad_steps\)"):
        take_steps(spoiled(tiny_model()), stage(), [data] * 5, max_bad_steps=3)


def test_gradients_are_clipped_over_their_norm_together():
    model, data = tiny_model(), step_data([[sample] for sample in samples(4)], 4)
    found: dict[str, torch.Tensor] = {}
    chosen = engine(model, stage(clip_norm=1e-3))
    chosen.optimizer.register_step_pre_hook(
        lambda *_: found.update({name: p.grad.clone() for name, p in model.named_parameters()})
    )
    (step,) = run_steps(chosen, iter([data]), 0, 1)
    norm = torch.stack([gradient.norm() for gradient in found.values()]).norm()

    assert step.metrics["grad_norm"] > 1e-3
    assert norm.item() == pytest.approx(1e-3, rel=1e-4)  # torch divides by the norm and 1e-6


def test_an_average_of_the_weights_lags_behind_them():
    model, data = tiny_model(), step_data([[sample] for sample in samples(4)], 4)
    before = model.connector.newline.detach().clone()
    ema = EMA(model, decay=0.9)
    take_steps(model, stage(), [data] * 3, ema=ema)
    after = model.connector.newline.detach().clone()
    with ema.swapped(model):
        averaged = model.connector.newline.detach().clone()

    assert 0 < (averaged - before).norm() < (after - before).norm()
    assert torch.equal(model.connector.newline, after)


def test_bf16_keeps_float32_weights_and_learns():
    model, data = tiny_model(), step_data([[sample] for sample in samples(4)], 4)
    chosen = engine(model, stage(), "precision=bf16")
    losses = [step.metrics["loss"] for step in run_steps(chosen, iter([data] * 4), 0, 4)]

    assert losses[-1] < losses[0]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert chosen.accelerator.mixed_precision == "bf16"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_says_what_to_set():
    with pytest.raises(TrainingError, match=r'asks for device "cuda", which this machine lacks \(it has cpu\); add'):
        start_accelerator(load_recipe(SCRATCH, ["device=cuda"]))


def test_a_precision_that_the_device_lacks_says_which_it_has():
    with pytest.raises(TrainingError, match=r'precision is fp16, which device "cpu" cannot compute in; .* bf16, fp32'):
        start_accelerator(load_recipe(SCRATCH, ["device=cpu", "precision=fp16"]))
