"""`cambrian data leakage`: from the command line to tables and a page."""

import json

import numpy as np
import pytest
from PIL import Image


def save(path, seed, side=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    Image.fromarray(cells).resize((side, side), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def sets(tmp_path):
    """A benchmark of two pictures, and records about a small copy of one of them and a picture that is missing."""
    for seed in (1, 2):
        save(tmp_path / f"bench/{seed}.png", seed)
    save(tmp_path / "pictures/copy.jpg", 1, side=90)
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "Patches."}]
    rows = [{"id": name, "image": name, "conversations": turns} for name in ("copy.jpg", "lost.jpg")]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["--benchmark", tmp_path / "bench", "--training", tmp_path / "records.jsonl"]


def test_what_is_found_is_printed_and_written(cambrian, sets, tmp_path):
    outcome = cambrian("data", "leakage", *sets, "--images", tmp_path / "pictures", "--output", tmp_path / "out")
    assert outcome.status == 0
    assert "records, 2 pictures, unread questions; left out: 1 missing" in outcome.stdout
    assert "1 (50.00%)" in outcome.stdout
    assert f"1 pairs of pictures, 0 of questions: {tmp_path / 'out/index.html'}" in outcome.stdout
    names = ["hashes", "index.html", "leakage.json", "left_out.csv", "pairs.csv", "summary.csv", "text.csv"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names


def test_machines_get_the_numbers(cambrian, sets, tmp_path):
    more = ["--images", tmp_path / "pictures", "--output", tmp_path / "out", "--hash", "phash"]
    outcome = cambrian("data", "leakage", *sets, *more, "--threshold", 9, "--processes", 2, "--json")
    result = json.loads(outcome.stdout)
    assert result["output"] == str(tmp_path / "out")
    assert (result["request"]["hash"], result["request"]["hash_size"]) == ("phash", 8)
    assert result["overlaps"][0]["pictures"] == 2
    assert len(result["overlaps"][0]["found"]) == 10
    assert result["overlaps"][0]["found"][-1] == 1
    assert json.loads((tmp_path / "out/leakage.json").read_text()) == {
        key: value for key, value in result.items() if key != "output"
    }


def test_several_sets_are_given_by_repeating_the_option(cambrian, sets, tmp_path):
    more = ["--training", tmp_path / "bench", "--images", tmp_path / "pictures", "--output", tmp_path / "out", "--json"]
    result = json.loads(cambrian("data", "leakage", *sets, *more).stdout)
    assert [each["found"][-1] for each in result["overlaps"]] == [1, 2, 2]
    assert result["overlaps"][2]["training"] is None


def test_mistakes_are_told_in_one_paragraph(refused, sets, tmp_path):
    output = ["--output", tmp_path / "out"]
    assert "none of its 2 pictures can be read" in refused("data", "leakage", *sets, "--images", tmp_path, *output)
    assert 'unknown perceptual hash "md5"' in refused("data", "leakage", *sets, *output, "--hash", "md5")
    assert "there is no such file" in refused("data", "leakage", *sets, "--training", "nowhere", *output)
    assert "is given twice" in refused("data", "leakage", *sets, "--training", tmp_path / "records.jsonl", *output)
    save(tmp_path / "mixed/logo.png", 3)
    (tmp_path / "mixed/records.jsonl").write_bytes((tmp_path / "records.jsonl").read_bytes())
    refusal = refused("data", "leakage", *sets, "--training", tmp_path / "mixed", *output)
    assert "holds pictures (logo.png) and records (records.jsonl)" in refusal
