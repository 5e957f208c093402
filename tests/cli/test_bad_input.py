"""What users get wrong: each mistake ends with status 2 and one paragraph that names it, and leaves no run behind."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.support.recipes import SCRATCH


@pytest.fixture(autouse=True)
def _no_run_is_left(tmp_path):
    yield
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "tinny"], 'did you mean "tiny"'),
        (["recipes", "show", "tinny"], 'did you mean "tiny"'),
        (["train", "no/such/file.yaml"], "no/such/file.yaml"),
        (["train", "--set", "stages.align.max_stpes=1"], 'did you mean "max_steps"'),
        (["train", "--set", "stages.algin.max_steps=1"], 'did you mean "align"'),
        (["train", "--set", "stages.align.optim.lr=-0.001"], "stages.align.optim.lr"),
        (["train", "--set", "stages.align.max_steps"], "KEY=VALUE"),
        (["train", "photographs"], "data.train.records"),
    ],
)
def test_recipes(refused, arguments, expected):
    assert expected in refused(*arguments)


def records(tmp_path: Path, *lines: str) -> list[str]:
    """The arguments that train on a records file with these lines."""
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ["train", str(SCRATCH), "--set", "data.scenes.scenes=null", "--set", f"data.scenes.records={path}"]


def row(image: str) -> str:
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A square."}]
    return json.dumps({"id": "r", "image": image, "conversations": turns})


@pytest.fixture
def picture(tmp_path: Path) -> str:
    Image.effect_noise((48, 32), 60).save(tmp_path / "whole.png")
    return "whole.png"


def test_malformed_lines(refused, tmp_path, picture):
    assert "mine.jsonl:2: " in refused(*records(tmp_path, row(picture), '{"id": "cut'))


def test_missing_images(refused, tmp_path, picture):
    message = refused(*records(tmp_path, row(picture), row("gone.png")))
    assert "mine.jsonl:2: " in message
    assert "gone.png" in message


def test_truncated_images(refused, tmp_path, picture):
    whole = (tmp_path / picture).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    message = refused(*records(tmp_path, row("cut.png")))
    assert "mine.jsonl:1: " in message
    assert "cut.png" in message


def test_image_paths_that_leave_their_folder(refused, tmp_path, picture):
    (tmp_path / "inside").mkdir()
    arguments = records(tmp_path, row(f"../{picture}"))
    message = refused(*arguments, "--set", f"data.scenes.images={tmp_path / 'inside'}")
    assert "mine.jsonl:1: " in message
    assert "leaves its folder" in message


def test_output_folders_in_use(refused, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").touch()
    assert "letters is in use" in refused("train", "--output", tmp_path / "letters")
    assert "a.txt is in use" in refused("train", "--output", tmp_path / "letters" / "a.txt")
    assert (tmp_path / "letters" / "a.txt").exists()


@pytest.fixture
def other_model(tmp_path: Path) -> Path:
    """A checkpoint folder of another kind of model."""
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def test_ask_needs_a_checkpoint_of_ours(refused, tmp_path, other_model, picture):
    assert '"llama"' in refused("ask", other_model, "What?", "--image", picture)
    assert "config.json" in refused("ask", tmp_path, "What?", "--image", picture)
    assert "nowhere" in refused("ask", tmp_path / "nowhere", "What?", "--image", picture)


def test_finetune_needs_a_checkpoint_of_ours(refused, tmp_path, other_model):
    assert '"llama"' in refused("finetune", SCRATCH, "--from", other_model)
    assert "config.json" in refused("finetune", SCRATCH, "--from", tmp_path)
    assert "nowhere" in refused("finetune", SCRATCH, "--from", "some/nowhere")


def test_ask_looks_at_its_pictures_first(refused, tmp_path, picture):
    whole = (tmp_path / picture).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert "gone.png" in refused("ask", "any", "What?", "--image", picture, "--image", "gone.png")
    assert "cut.png" in refused("ask", "any", "What?", "--image", "cut.png")


def test_scenes_are_not_written_over_something_else(refused, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").touch()
    assert "not empty" in refused("data", "scenes", "--output", tmp_path / "letters", "--count", 2)
    assert "65536" in refused("data", "scenes", "--output", tmp_path / "new", "--count", 2, "--side", 65536)
