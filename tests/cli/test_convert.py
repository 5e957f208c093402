"""`cambrian convert` and `cambrian inspect`: arguments, output for people and for machines, exit statuses."""

import json
from pathlib import Path

import pytest

from tests.support.released_checkpoint import ENCODERS, read_state, write_released, write_state


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_released(tmp_path_factory.mktemp("convert") / "released")


def test_there_and_back(cambrian, source, tmp_path):
    outcome = cambrian("convert", source, tmp_path / "ours", "--precomputed-encoders", ENCODERS, "--json")
    assert outcome.status == 0, outcome
    made = json.loads(outcome.stdout)
    assert (made["kind"], made["folder"]) == ("native checkpoint", str(tmp_path / "ours"))
    assert made["num_tensors"] == len(read_state(source))
    assert list(made["hashes"]) == ["model.safetensors"]
    assert "note: chat template: vicuna_v1" in outcome.stderr
    outcome = cambrian("convert", tmp_path / "ours", tmp_path / "back", "--to", "released")
    assert outcome.status == 0, outcome
    assert "released checkpoint: " in outcome.stdout
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert (tmp_path / "back" / "config.json").read_bytes() == (source / "config.json").read_bytes()


def test_a_checkpoint_that_is_not_whole_exits_with_2_and_names_what_is_missing(refused, source, tmp_path):
    state = read_state(source)
    del state["model.vision_query"]
    damaged = Path(tmp_path / "damaged")
    damaged.mkdir()
    (damaged / "config.json").write_bytes((source / "config.json").read_bytes())
    write_state(damaged, state)
    message = refused("convert", damaged, tmp_path / "ours", "--precomputed-encoders", ENCODERS)
    assert "1 missing (model.vision_query)" in message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--precomputed-encoders", "24,forty"), 'is "24,forty"; expected widths such as 1152,1024,1536,5760'),
        (("--encoder", "siglip"), 'is "siglip"; expected NAME=FOLDER'),
        (("--to", "nativ"), 'unknown format "nativ"; did you mean "native"?'),
    ],
)
def test_arguments_that_mean_nothing_are_refused(arguments, expected, refused, source, tmp_path):
    assert expected in refused("convert", source, tmp_path / "ours", *arguments)


def test_inspect_prints_a_table_and_json(cambrian, source):
    outcome = cambrian("inspect", source)
    assert outcome.status == 0, outcome
    assert outcome.stdout.startswith(f"{source}: released checkpoint")
    assert "after decoder layers 0, 2" in outcome.stdout
    found = json.loads(cambrian("inspect", source, "--json").stdout)
    assert [part["name"] for part in found["parts"]][-1] == "language_model"


def test_inspect_of_nothing_is_refused(refused, tmp_path):
    assert "no such file or folder" in refused("inspect", tmp_path / "nowhere")
