"""`cambrian recipes` and `cambrian data`."""

import json
import math

import pytest

from cambrian_model.training import list_recipes, load_recipe
from tests.support.recipes import SCRATCH

ONE_STAGE = ["--set", "data.scenes.scenes={count: 6, seed: 3, side: 32}"]


def test_recipes_are_listed_with_a_summary(cambrian):
    outcome = cambrian("recipes", "list")
    assert outcome.status == 0
    assert "tiny" in outcome.stdout
    found = json.loads(cambrian("recipes", "list", "--json").stdout)["recipes"]
    assert "tiny" in [recipe["name"] for recipe in found]
    assert all(recipe["summary"] for recipe in found)


def test_a_shown_recipe_is_resolved_and_can_be_trained_as_it_is(cambrian, tmp_path):
    outcome = cambrian("recipes", "show", "tiny", "--set", "stages.align.max_steps=7")
    assert outcome.status == 0
    (tmp_path / "mine.yaml").write_text(outcome.stdout)
    assert load_recipe(tmp_path / "mine.yaml") == load_recipe("tiny", ["stages.align.max_steps=7"])


def test_a_plan_tells_what_a_run_will_be(cambrian):
    arguments = ("recipes", "plan", SCRATCH, "--gpus", 2, "--gpu-name", "A100", "--mfu", 0.5, *ONE_STAGE)
    planned = cambrian(*arguments, "--json")
    assert planned.status == 0
    result = json.loads(planned.stdout)
    align = result["stages"]["align"]
    assert (result["recipe"], result["machine"]["gpus"], result["machine"]["mfu"]) == ("scratch", 2, 0.5)
    assert sum(part["parameters"] for part in align["parts"]) == result["parameters"]
    assert align["data"]["origin"] == "measured"
    assert align["data"]["samples"] == 6
    assert align["steps"] == 40
    assert align["memory_total"] > align["memory"]["AdamW"] > 0
    assert math.isclose(result["days"], sum(stage["days"] for stage in result["stages"].values()))
    shown = planned.stderr
    for told in ("scratch on 2 x A100 (80 GB, 20 TFLOP/s) at 50% MFU", "AdamW", "[[", "<image x", "optimizer groups"):
        assert told in shown


def test_a_plan_without_data_says_what_it_leaves_out(cambrian):
    planned = cambrian("recipes", "plan", SCRATCH, "--gpus", 1, "--gpu-name", "abacus", "--no-data")
    assert planned.status == 0
    assert 'no peak of "abacus" in fp32 is known' in planned.stdout
    assert "data scenes is not at hand" in planned.stdout
    assert "unknown time in all" in planned.stdout


def test_recipes_are_valid_or_refused_with_the_mistake(cambrian, refused, tmp_path):
    assert json.loads(cambrian("recipes", "validate", SCRATCH, "photographs", "--json").stdout)["recipes"] == [
        {"name": str(SCRATCH), "left_to_you": []},
        {"name": "photographs", "left_to_you": ["data.train.records", "model.language_model.path"]},
    ]
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(f"extends: {SCRATCH}\nstages: {{align: {{train: ['*.nothing']}}}}\n")
    message = refused("recipes", "validate", SCRATCH, wrong)
    assert message.startswith(f"error: 1 of 2 recipes are wrong: {wrong}: train: the pattern")
    assert "typo" in refused("recipes", "validate", SCRATCH, "--set", "model.typo=1")


@pytest.mark.slow
def test_every_recipe_that_ships_is_valid(cambrian):
    outcome = cambrian("recipes", "validate", "--json")
    assert outcome.status == 0
    found = json.loads(outcome.stdout)["recipes"]
    assert [recipe["name"] for recipe in found] == [name for name, _ in list_recipes()]


def test_scenes_are_written_and_described(cambrian, tmp_path):
    outcome = cambrian(
        "data", "scenes", "--output", tmp_path / "scenes", "--count", 3, "--seed", 5, "--side", 32, "--json"
    )
    assert outcome.status == 0
    result = json.loads(outcome.stdout)
    assert (result["count"], result["seed"], result["side"]) == (3, 5, 32)
    assert len(list((tmp_path / "scenes" / "images").iterdir())) == 3
    for name in ("instances.json", "cuboids.json", "captions.jsonl"):
        assert (tmp_path / "scenes" / name).is_file()
