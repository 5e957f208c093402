"""From a recipe's sources to conversations: every mistake in the data is found before training, with file and line."""

import json
from pathlib import Path

import pytest
from PIL import Image

from cambrian_cli import datasets
from cambrian_cli.errors import CommandError
from cambrian_data.errors import DataError
from cambrian_data.grounding.texts import DESCRIBE
from cambrian_data.images import load_image
from cambrian_model.training.recipe import GroundingSection, ScenesSection, SourceSection


def row(image: str = "a.png", name: str = "r1") -> dict:
    """One captioned picture in LLaVA's form."""
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A square."}]
    return {"id": name, "image": image, "conversations": turns}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (7, 5), "red").save(folder / "a.png")
    return folder


def read(records: Path, images: Path | None = None) -> list[dict]:
    return datasets.read("mine", SourceSection(records=str(records), images=str(images) if images else None))


def test_records_become_conversations_with_absolute_image_paths(write_jsonl, pictures):
    (sample,) = read(write_jsonl(row()), pictures)
    assert sample["id"] == "r1"
    assert sample["images"] == [str((pictures / "a.png").resolve())]
    assert datasets.question_and_reference(sample) == ("What is it?", "A square.")


def test_without_an_image_folder_paths_begin_beside_the_records(write_jsonl, pictures):
    (sample,) = read(write_jsonl(row("pictures/a.png")))
    assert Path(sample["images"][0]).is_file()


def test_chat_form_is_recognised_and_text_alone_is_fine(write_jsonl):
    messages = [{"role": role, "content": [{"type": "text", "text": role}]} for role in ("user", "assistant")]
    (sample,) = read(write_jsonl({"id": "t", "source": "s", "messages": messages, "images": []}))
    assert sample["messages"] == messages
    assert sample["images"] == []


def test_a_missing_image_names_the_line_of_its_record(write_jsonl, pictures):
    with pytest.raises(CommandError, match=r"records\.jsonl:2: .*b\.png.*no such file"):
        read(write_jsonl(row(), row("b.png")), pictures)


def test_a_truncated_image_is_an_error_not_another_picture(write_jsonl, pictures):
    Image.effect_noise((64, 64), 50).save(pictures / "cut.png")
    whole = (pictures / "cut.png").read_bytes()
    (pictures / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CommandError, match=r"records\.jsonl:1: .*cut\.png"):
        read(write_jsonl(row("cut.png")), pictures)


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "link.png"])
def test_image_paths_stay_in_their_folder(write_jsonl, pictures, path):
    Image.new("RGB", (2, 2)).save(pictures.parent / "secret.png")
    (pictures / "link.png").symlink_to(pictures.parent / "secret.png")
    with pytest.raises(CommandError, match=r"records\.jsonl:1: image path"):
        read(write_jsonl(row(path)), pictures)


def test_a_malformed_line_names_file_and_line(write_jsonl, pictures):
    with pytest.raises(DataError, match=r"records\.jsonl:2: "):
        read(write_jsonl(row(), '{"id": "cut off'), pictures)


def test_an_empty_file_is_an_error(write_jsonl):
    with pytest.raises(DataError, match="no records"):
        read(write_jsonl(""))


def test_a_source_left_open_says_what_to_set():
    with pytest.raises(CommandError, match=r"--set data\.mine\.records=FILE"):
        datasets.read("mine", SourceSection(records=None))


def test_scenes_are_made_once(cache):
    scenes = ScenesSection(count=3, seed=11, side=32)
    first = datasets.read("scenes", SourceSection(scenes=scenes))
    picture = Path(first[0]["images"][0])
    assert picture.is_relative_to(cache / "cambrian")
    written = picture.stat().st_mtime_ns
    assert datasets.read("scenes", SourceSection(scenes=scenes)) == first
    assert picture.stat().st_mtime_ns == written
    assert len(first) == 3


def read_grounding(**change) -> list[dict]:
    values = {"scenes": ScenesSection(count=3, seed=11, side=32), "grid_side": 4, "readings_per_picture": 1, **change}
    return datasets.read("places", SourceSection(grounding=GroundingSection(**values)))


def test_grounding_is_made_once_and_becomes_conversations_about_pictures_that_are_there(cache):
    first = read_grounding()
    assert [datasets.question_and_reference(sample)[0] == DESCRIBE for sample in first] == [True, False] * 3
    for sample in first:
        (image,) = sample["images"]
        assert Path(image).is_relative_to(cache / "cambrian" / "grounding")
        assert load_image(Path(image)).size == (32, 32)
        assert [message["role"] for message in sample["messages"]] == ["user", "assistant"]
        assert [part["type"] for part in sample["messages"][0]["content"]] == ["image", "text"]
        assert datasets.question_and_reference(sample)[1]
        assert "records.jsonl:" in sample["location"]
    picture = Path(first[0]["images"][0])
    written = picture.stat().st_mtime_ns
    assert read_grounding() == first
    assert picture.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    "change",
    [{"grid_side": 2}, {"readings_per_picture": 2}, {"seed": 1}, {"scenes": ScenesSection(count=3, seed=12, side=32)}],
)
def test_other_grounding_has_another_folder(change):
    first, other = read_grounding(), read_grounding(**change)
    assert Path(first[0]["images"][0]).parent != Path(other[0]["images"][0]).parent


@pytest.mark.parametrize("change", [{"count": 4}, {"seed": 12}, {"side": 48}])
def test_other_scenes_have_another_folder(change):
    scenes = {"count": 3, "seed": 11, "side": 32}
    assert datasets.cached_scenes(**scenes) != datasets.cached_scenes(**(scenes | change))


def test_a_killed_rendering_is_finished_by_the_next_run(cache):
    folder = datasets.cached_scenes(4, 13, 32)
    whole = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    manifest = json.loads((folder / "scenes.json").read_text())
    (folder / "scenes.json").unlink()
    (folder / "scenes.unfinished").write_text(
        f"seed 13, count 4, side 32, format version {manifest['format_version']}\n"
    )
    (folder / "captions.jsonl").unlink()
    datasets.cached_scenes(4, 13, 32)
    assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == whole


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_broken_scenes_in_the_cache_are_rendered_again(damage):
    folder = datasets.cached_scenes(3, 17, 32)
    picture = next((folder / "images").iterdir())
    whole = picture.read_bytes()
    if damage == "cut":
        picture.write_bytes(whole[:40])
    else:
        picture.unlink()
    assert datasets.cached_scenes(3, 17, 32) == folder
    assert picture.read_bytes() == whole


def test_samples_know_file_and_line(write_jsonl, pictures):
    first, second = read(write_jsonl(row(), row(name="r2")), pictures)
    assert first["location"].endswith("records.jsonl:1")
    assert second["location"].endswith("records.jsonl:2")
