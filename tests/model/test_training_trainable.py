import pytest
import torch

from cambrian_model.errors import RecipeError
from cambrian_model.training.optim import build_optimizer, lr_factor, set_learning_rates
from cambrian_model.training.parts import part_of
from cambrian_model.training.recipe.stage import OptimSection, StageSection
from cambrian_model.training.trainable import select_trainable
from tests.support.tiny_model import tiny_model

ALL = ("vision_encoders", "connector", "in_llm", "language_model")


def stage(train=ALL, **optim):
    optim = {"lr": 1e-3, "warmup": 0, "schedule": "constant", **optim}
    values = {"data": "x", "train": train, "optim": optim, "batch": {"row_tokens": 96}, "max_steps": 1}
    return StageSection.model_validate(values)


def test_every_group_has_its_own_rate_decay_and_warm_up():
    model = tiny_model()
    groups = {
        "projector": {"lr": 1e-2},
        "sva": {"lr": 1e-4, "weight_decay": 0.0, "warmup": 5},
        "language_model.*.mlp.*": {"weight_decay": 0.3},
    }
    chosen = stage(("connector", "language_model"), groups=groups, weight_decay=0.1)
    found: dict[str | None, list[tuple[float, float, float]]] = {}
    for group in select_trainable(model, chosen).groups:
        assert len({model.get_parameter(name).ndim >= 2 for name in group.names}) == 1
        found.setdefault(group.pattern, []).append((group.lr, group.weight_decay, group.warmup))

    assert found == {
        "projector": [(1e-2, 0.1, 0), (1e-2, 0.0, 0)],  # matrices, then vectors
        "sva": [(1e-4, 0.0, 5), (1e-4, 0.0, 5)],
        "language_model.*.mlp.*": [(1e-3, 0.3, 0)],
        None: [(1e-3, 0.1, 0), (1e-3, 0.0, 0)],
    }


def test_the_table_accounts_for_every_parameter():
    model = tiny_model()
    trainable = select_trainable(model, stage(("connector", "in_llm"), groups={"sva": {"lr": 1e-4}}))

    assert [(row.part, row.lr) for row in trainable.table] == [
        ("vision_encoders", None),
        ("projector", 1e-3),
        ("sva", 1e-4),
        ("in_llm", 1e-3),
        ("language_model", None),
    ]
    assert sum(row.parameters for row in trainable.table) == sum(p.numel() for p in model.parameters())
    assert set(trainable.names) == {name for name, p in model.named_parameters() if p.requires_grad}
    assert {part_of(name) for name in trainable.names} == {"projector", "sva", "in_llm"}


def test_a_glob_trains_exactly_what_it_matches():
    model = tiny_model()
    select_trainable(model, stage(("connector", "language_model.model.layers.2.*")))

    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {
        name
        for name, _ in model.named_parameters()
        if name.startswith("connector.") or name.startswith("language_model.model.layers.2.")
    }


def test_the_same_choice_is_made_on_a_model_without_weights():
    with torch.device("meta"):
        empty = tiny_model()
    chosen = stage(groups={"connector": {"lr": 1e-4}})

    assert select_trainable(empty, chosen) == select_trainable(tiny_model(), chosen)


@pytest.mark.parametrize(
    ("train", "groups", "message"),
    [
        (ALL, {"language_model.*.mpl.*": {}}, r'optim.groups: the pattern "language_model.\*.mpl.\*" matches no param'),
        (
            ("language_model.layers.*",),
            {},
            r'train: the pattern "language_model.layers.\*" matches no parameter; .* near',
        ),
        (ALL, {"connector": {}, "sva": {}}, r'connector.query is named twice, by "connector" and by "sva"'),
        (ALL, {"in_llm": {}, "*.sva.*": {}}, r'named twice, by "in_llm" and by "\*.sva.\*"'),
        (
            ("adapters",),
            {},
            r'"adapters" names nothing that is there; there are vision_encoders, projector, sva, in_llm',
        ),
    ],
)
def test_a_pattern_that_matches_nothing_or_twice_is_refused(train, groups, message):
    chosen = stage(("connector",)).model_copy(update={"train": train, "optim": stage(groups=groups).optim})
    with pytest.raises(RecipeError, match=message):
        select_trainable(tiny_model(), chosen)


def test_a_part_that_the_model_lacks_cannot_be_trained():
    connector = {"width": 32, "depth": 1, "num_heads": 4, "query_grid_sides": [4]}
    with pytest.raises(RecipeError, match=r'train: "in_llm" names nothing that is there; there are vision_encoders'):
        select_trainable(tiny_model(connector=connector), stage())


def test_the_optimizer_takes_every_trained_parameter_once_and_warms_groups_up_apart():
    model = tiny_model()
    chosen = stage(groups={"connector": {"lr": 1e-4, "warmup": 4}})
    trainable = select_trainable(model, chosen)
    optimizer = build_optimizer(model, trainable.groups, chosen.optim)
    taken = [name for group in optimizer.param_groups for name in group["param_names"]]

    assert sorted(taken) == sorted(name for name, _ in model.named_parameters())
    assert set(set_learning_rates(optimizer, chosen.optim, 0, 100)) == {1e-4 / 4, 1e-3}
    assert set(set_learning_rates(optimizer, chosen.optim, 3, 100)) == {1e-4, 1e-3}


@pytest.mark.parametrize(
    ("schedule", "middle", "last"),
    [("cosine", 0.5, 0.0), ("linear", 0.5, 0.0), ("constant", 1.0, 1.0), ("wsd", 1, 0.1)],
)
def test_rates_warm_up_and_then_follow_the_schedule(schedule, middle, last):
    optim = OptimSection(lr=1.0, schedule=schedule)
    factors = [lr_factor(optim, 0.1, step, 110) for step in range(110)]

    assert factors[:11] == pytest.approx([(i + 1) / 11 for i in range(11)])
    assert factors[11] == 1.0
    assert factors[11 + 50] == pytest.approx(middle, abs=0.01)
    assert factors[-1] == pytest.approx(last, abs=0.02)
    assert lr_factor(optim, 4, 1, 110) == 0.5


def test_wsd_is_stable_until_its_last_part_and_ends_near_zero():
    optim = OptimSection(lr=1.0, schedule="wsd", decay=20)
    factors = [lr_factor(optim, 0, step, 100) for step in range(100)]

    assert factors[:81] == [1.0] * 81
    assert factors[80:] == pytest.approx([1 - i / 20 for i in range(20)])
