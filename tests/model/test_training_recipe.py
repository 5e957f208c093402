import itertools

import pytest
import yaml
from transformers import AutoTokenizer

from cambrian_model.errors import RecipeError
from cambrian_model.recipes import tiny_tokenizer
from cambrian_model.training.recipe import Recipe, list_recipes, load_recipe
from cambrian_model.training.recipe.stage import BatchSection
from tests.support.recipes import SCRATCH


def test_every_recipe_of_the_package_loads_and_has_a_summary():
    recipes = dict(list_recipes())

    assert {"tiny", "photographs", "study", *(f"cambrian-{size}" for size in ("phi3-3b", "8b", "13b", "34b"))} <= set(
        recipes
    )
    assert all(recipes.values())
    assert all(load_recipe(name).name == name for name in recipes)


def test_a_resolved_recipe_reads_back_as_itself(tmp_path):
    recipe = load_recipe(
        SCRATCH,
        [
            "stages.align.optim.groups={connector: {lr: 1e-3}, language_model.*.mlp.*: {weight_decay: 0.5}}",
            "stages.align.data={scenes: 0.5}",
            "stages.finetune.follows=any",
            "seed=3",
        ],
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())

    assert load_recipe(path) == recipe


def test_overrides_reach_every_kind_of_value():
    recipe = load_recipe(
        SCRATCH,
        [
            "stages.align.optim.lr=2e-5",
            "stages.finetune.max_steps=7",
            "model.vision_encoders.1.grid_side=16",
            "model.language_model.config.num_hidden_layers=2",
            "stages.finetune.train=[connector]",
            "checkpoint.keep=5",
            "stages.finetune.optim.clip_norm=null",
        ],
    )

    assert recipe.stages["align"].optim.lr == 2e-5
    assert recipe.stages["finetune"].max_steps == 7
    assert recipe.model.vision_encoders[1].grid_side == 16
    assert recipe.model.spec()["language_model"]["config"]["num_hidden_layers"] == 2
    assert recipe.stages["finetune"].train == ("connector",)
    assert recipe.checkpoint.keep == 5
    assert recipe.stages["finetune"].optim.clip_norm is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.align.optim.lrr=1", r'unknown key "stages.align.optim.lrr"; did you mean "lr"'),
        ("stages.algin.max_steps=1", r'unknown key "stages.algin"; did you mean "align"'),
        ("chekpoint.every=1", r'unknown key "chekpoint"; did you mean "checkpoint"'),
        ("model.conector.width=8", r'unknown key "model.conector"; did you mean "connector"'),
        ("model.connector.in_llm.strid=1", r'"model.connector.in_llm.strid"; did you mean "stride"'),
        ("model.vision_encoders.0.grid=8", r'"model.vision_encoders.0.grid"; did you mean "grid_side"'),
        ("model.vision_encoders.2.grid_side=8", r"is a list; name an item by its number, 0 to 1"),
        ("data.scenes.scenes.cont=8", r'"data.scenes.scenes.cont"; did you mean "count"'),
        ("stages.align.optim.lr=-0.001", r"stages.align.optim.lr is -0.001: input should be greater than 0"),
        ("stages.align.batch.rows=0", r"stages.align.batch.rows is 0: input should be greater than or equal to 1"),
        ("stages.align.optim.lr=fast", r"stages.align.optim.lr is 'fast': input should be a valid number"),
        ("stages.align.max_steps=null", r"stages.align has no end; set max_steps or epochs"),
        ("stages.align.train=[conector]", r'stages.align.train names "conector"; did you mean "connector"'),
        ("stages.align.train=[connector, connector]", r"stages.align.train names a part twice"),
        ("stages.align.optim.groups.conector.lr=1", r'optim.groups names "conector"; did you mean "connector"'),
        (
            "stages.align.optim.groups={a.*: {lrr: 1}}",
            r'unknown key "stages.align.optim.groups.a.\*.lrr"; did you mean',
        ),
        ("stages.align.data={scenes: 0}", r"stages.align.data.scenes is 0: input should be greater than 0"),
        ("stages.align.data={scene: 1}", r'stages.align.data is "scene"; did you mean "scenes"'),
        ("stages.align.validation={data: scenes, every: 5}", r"stages.align validates on scenes, which it trains on"),
        ("stages.align.validation={data: scene, every: 5}", r'stages.align.validation.data is "scene"; did you mean'),
        ("stages.finetune.follows=algin", r'stages.finetune.follows is "algin"; did you mean "align"'),
        ("stages.align.adapters={rank: 4}", r'give both "adapters" in train and the section adapters'),
        ("stages.align.train=[adapters]", r'give both "adapters" in train and the section adapters'),
        ("stages.align.feature_cache=true", r"feature_cache: true, but trains vision_encoders"),
        ("parallel.strategy=zero", r"parallel.strategy is 'zero': input should be 'auto', 'ddp' or 'fsdp'"),
        ("stages.align.data=scene", r'stages.align.data is "scene"; did you mean "scenes"'),
        ("data.scenes.records=x.jsonl", r"data.scenes both records and scenes are given"),
        ("precision=fp8", r"precision is 'fp8': input should be 'fp32', 'bf16' or 'fp16'"),
        ("seed.more=1", r"seed.more: seed is 0 and has no keys"),
        ("max_steps", r"is not KEY=VALUE"),
        ("seed=[1", r'override "seed=\[1":1'),
    ],
)
def test_a_bad_override_names_key_and_value(override, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(SCRATCH, [override])


def test_a_learning_rate_for_a_frozen_part_is_refused():
    with pytest.raises(RecipeError, match=r"optim.groups names vision_encoders, which this stage does not train"):
        load_recipe("photographs", ["stages.align.optim.groups.vision_encoders.lr=1e-3"])


def test_a_stage_starts_from_the_one_before_unless_it_says_otherwise():
    assert load_recipe(SCRATCH).predecessor("align") is None
    assert load_recipe(SCRATCH).predecessor("finetune") == "align"
    assert load_recipe(SCRATCH, ["stages.finetune.follows=any"]).predecessor("finetune") is None


def test_null_takes_a_stage_and_a_source_away(tmp_path):
    path = write_recipe(tmp_path / "one.yaml", extends="study", name="one", stages={"align": None})
    recipe = load_recipe(path)

    assert list(recipe.stages) == ["finetune"]
    assert recipe.predecessor("finetune") is None


def test_a_step_has_the_same_rows_however_many_ranks_share_them():
    batch = BatchSection(rows=12, micro_rows=2, row_tokens=64)

    assert [batch.micro_batches(ranks) for ranks in (1, 2, 4, 5, 12)] == [6, 3, 2, 2, 1]
    assert BatchSection(rows=12, row_tokens=64).micro_batches(1) == 1


def test_the_published_recipes_state_the_published_values():
    large = load_recipe("cambrian-34b")
    assert {name: load_recipe(f"cambrian-{name}").stages["finetune"].optim.lr for name in ("8b", "13b", "34b")} == {
        "8b": 4e-5,
        "13b": 4e-5,
        "34b": 2e-5,
    }
    assert {group: values.lr for group, values in large.stages["align"].optim.groups.items()} == {
        "sva": 1e-4,
        "in_llm": 1e-4,
    }
    assert (large.stages["align"].optim.lr, large.stages["align"].optim.warmup) == (1e-3, 0.06)
    assert large.model.spec()["connector"]["in_llm"] == {"start": 0, "stride": 7, "count": 9}
    assert load_recipe("study-unfrozen").stages["finetune"].optim.groups["vision_encoders"].lr == 1e-5
    assert "vision_encoders" not in load_recipe("study").stages["finetune"].train


def test_an_unknown_recipe_suggests_the_nearest():
    with pytest.raises(RecipeError, match=r'unknown recipe "tinny"; did you mean "tiny"'):
        load_recipe("tinny")
    with pytest.raises(RecipeError, match=r"no such recipe file; give a file or a name: .*tiny"):
        load_recipe("missing/recipe.yaml")


def test_what_a_recipe_leaves_to_its_user_is_listed_until_it_is_set(tmp_path):
    assert load_recipe("photographs").unset() == ["data.train.records", "model.language_model.path"]
    given = [f"data.train.records={tmp_path}", f"model.language_model.path={tmp_path}"]
    assert load_recipe("photographs", given).unset() == []


def write_recipe(path, **values):
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_child_changes_what_it_names_and_keeps_the_rest(tmp_path):
    path = write_recipe(
        tmp_path / "child.yaml",
        extends=str(SCRATCH),
        name="child",
        stages={"align": {"max_steps": 3}, "extra": {**load_stage(SCRATCH, "finetune"), "max_steps": 1}},
    )
    recipe, parent = load_recipe(path), load_recipe(SCRATCH)

    assert list(recipe.stages) == ["align", "finetune", "extra"]
    assert recipe.stages["align"].max_steps == 3
    assert recipe.stages["align"].optim == parent.stages["align"].optim
    assert recipe.model == parent.model


def load_stage(recipe, stage):
    return load_recipe(recipe).model_dump(mode="json")["stages"][stage]


def test_recipes_that_extend_each_other_are_refused(tmp_path):
    first = write_recipe(tmp_path / "first.yaml", extends="./second.yaml", name="first")
    write_recipe(tmp_path / "second.yaml", extends="./first.yaml", name="second")

    with pytest.raises(RecipeError, match=r"circle: first -> second -> first"):
        load_recipe(first)


def test_paths_are_meant_from_the_file_that_names_them_and_overrides_from_the_working_directory(tmp_path, monkeypatch):
    for folder in ("recipes", "recipes/lm", "here/pictures"):
        (tmp_path / folder).mkdir(parents=True)
    path = write_recipe(
        tmp_path / "recipes/mine.yaml",
        extends="photographs",
        name="mine",
        data={"train": {"records": "records.jsonl"}},
        model={"language_model": {"path": "lm"}, "tokenizer": "owner/on-the-hub"},
    )
    monkeypatch.chdir(tmp_path / "here")
    recipe = load_recipe(path, ["data.train.images=pictures"])

    assert recipe.data["train"].records == str(tmp_path / "recipes/records.jsonl")
    assert recipe.data["train"].images == str(tmp_path / "here/pictures")
    assert recipe.model.language_model.path == str(tmp_path / "recipes/lm")
    assert recipe.model.tokenizer == "owner/on-the-hub"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b\n", r'mine.yaml:2: key "name" stands twice'),
        ("name: [a\n", r"mine.yaml:2: "),
        ("- name\n", r"holds list, expected a mapping"),
        ("name: a\n", r"mine.yaml: model is missing; data is missing; stages is missing"),
    ],
)
def test_a_file_that_is_no_recipe_says_why(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)

    with pytest.raises(RecipeError, match=message):
        load_recipe(tmp_path / "mine.yaml")


def test_exponents_without_a_point_are_numbers(tmp_path):
    path = write_recipe(tmp_path / "a.yaml", extends=str(SCRATCH), name="a")
    path.write_text(path.read_text() + "model: {language_model: {config: {rms_norm_eps: 1e-6}}}\n")

    assert load_recipe(path).model.spec()["language_model"]["config"]["rms_norm_eps"] == 1e-6


def test_recipes_are_immutable():
    recipe: Recipe = load_recipe(SCRATCH)
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 1


def with_data(source, **more):
    """The overrides that make `source` the data of both stages of the scratch recipe, beside `more`."""
    return [f"data={yaml.safe_dump({'scenes': source, **more}, default_flow_style=True, width=1e6)}"]


def grounding(**values):
    return {"grounding": {"scenes": {"count": 9, "seed": 5}, "grid_side": 4, **values}}


def test_a_grounding_source_reads_back_and_leaves_nothing_to_the_user(tmp_path):
    recipe = load_recipe(SCRATCH, with_data(grounding(readings_per_picture=0)))
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())

    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    assert recipe.unset() == []


@pytest.mark.parametrize(("cells", "model"), [(8, 4), (4, 2)])
def test_a_reading_of_another_grid_than_the_model_s_is_refused(cells, model):
    overrides = [*with_data({"scenes": {"count": 9}}, places=grounding(grid_side=cells)), f"model.grid_side={model}"]
    with pytest.raises(
        RecipeError, match=rf"data.places.grounding.grid_side is {cells}, but model.grid_side is {model}; .* alike"
    ):
        load_recipe(SCRATCH, overrides)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"readings_per_picture": 7}, r"readings_per_picture is 7: input should be less than or equal to 6"),
        ({"readings_per_picture": -1}, r"readings_per_picture is -1: input should be greater than or equal to 0"),
        ({"grid_side": 0}, r"grid_side is 0: input should be greater than or equal to 1"),
        ({"seed": -1}, r"seed is -1: input should be greater than or equal to 0"),
        ({"grid": 4}, r'unknown key "data.scenes.grounding.grid"; did you mean "grid_side"'),
    ],
)
def test_a_grounding_value_out_of_range_is_named(values, problem):
    with pytest.raises(RecipeError, match=problem):
        load_recipe(SCRATCH, with_data(grounding(**values)))


ORIGINS = {
    "records": "mine.jsonl",
    "scenes": {"count": 9},
    **grounding(),
    "questions": {"cvbench": {"scenes": {"count": 9}}},
}


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(ORIGINS, 2)))
def test_a_source_has_one_origin(one, other):
    with pytest.raises(RecipeError, match=rf"data.scenes both {one} and {other} are given; set all but one to null"):
        load_recipe(SCRATCH, with_data({name: ORIGINS[name] for name in (one, other)}))
    assert load_recipe(SCRATCH, with_data({one: ORIGINS[one], other: None})).data


def test_a_source_without_an_origin_says_which_there_are():
    with pytest.raises(RecipeError, match=r"give records \(and images\), stream, scenes, grounding, or questions"):
        load_recipe(SCRATCH, with_data({"images": "pictures"}))


def test_training_seeds_are_those_of_everything_made_from_scenes():
    more = {"places": grounding(), "asked": {"questions": {"cvbench": {"scenes": {"count": 9, "seed": 7}}}}}
    data = with_data({"scenes": {"count": 9, "seed": 2}}, mine={"records": None}, **more)
    held_out = "evaluation={{cvbench: {{scenes: {{count: 9, seed: {}}}}}}}"

    assert load_recipe(SCRATCH, data).training_seeds() == {"data.scenes": 2, "data.places": 5, "data.asked": 7}
    assert load_recipe(SCRATCH, [*data, held_out.format(6)]).evaluation is not None
    with pytest.raises(RecipeError, match=r"evaluation.cvbench.scenes.seed is 5, and so is that of data.places"):
        load_recipe(SCRATCH, [*data, held_out.format(5)])


def test_the_tiny_tokenizer_is_what_its_script_makes_and_spells_everything(tmp_path):
    tiny_tokenizer.write_tokenizer(tmp_path)
    committed = load_recipe("tiny").model.tokenizer
    tokenizer = AutoTokenizer.from_pretrained(committed)
    odd = "ein Häuschen, 東京, and \x00"

    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == tokenizer.get_vocab()
    assert tokenizer.decode(tokenizer(odd)["input_ids"]) == odd
    assert tokenizer.tokenize("There are two red pyramids on the lower left.") == [
        *("There", "Ġare", "Ġtwo", " red", " pyramids", "Ġon", "Ġthe", "Ġlower", " left", ".")
    ]
    assert tokenizer.tokenize(" I see the ball in the red box at x13 y1 z17. The answer is (A).") == [
        *(" I see the", " ball", " in the red box", " at x13", " y1", " z17", ". The answer is (", "A", ").")
    ]
