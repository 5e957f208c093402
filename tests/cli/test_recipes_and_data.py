"""`cambrian recipes` and `cambrian data`."""

import json

from cambrian_model.training import load_recipe


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
