"""From a recipe's sources to conversations: every mistake in the data is found before training, with file and line."""

import codecs
import json
import pickle
from pathlib import Path

import pytest
from PIL import Image

from cambrian_cli import datasets
from cambrian_cli.errors import CommandError
from cambrian_cli.record_file import RecordFile
from cambrian_data.errors import DataError
from cambrian_data.grounding.texts import DESCRIBE
from cambrian_data.images import load_image
from cambrian_model.errors import TrainingError
from cambrian_model.image_tokens import num_image_tokens
from cambrian_model.processing.measure import Measure
from cambrian_model.training.bad_samples import UnreadableSampleError
from cambrian_model.training.index import DataIndex, index_dataset
from cambrian_model.training.recipe.data import GroundingSection, ScenesSection, SourceSection


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


def read(records: Path, images: Path | None = None, on_bad: datasets.OnBad = "error") -> RecordFile:
    found = datasets.read("mine", SourceSection(records=str(records), images=str(images) if images else None), on_bad)
    assert isinstance(found, RecordFile)
    return found


class Lengths:
    """Counts messages and image tokens."""

    def encode(self, messages, images):
        raise AssertionError("the index encodes nothing")

    def measure(self, messages, image_sizes):
        return Measure(len(messages) + sum(num_image_tokens(size, 4) for size in image_sizes), 0, 0)


def index(samples: RecordFile, on_bad: datasets.OnBad = "error", num_workers: int = 0) -> DataIndex:
    """The pass over the data in front of training."""
    return index_dataset("mine", samples, Lengths(), on_bad=on_bad, num_workers=num_workers)


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
    with pytest.raises(TrainingError, match=r"records\.jsonl:2: .*b\.png.*no such file.*--on-bad-sample skip"):
        index(read(write_jsonl(row(), row("b.png")), pictures))


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "link.png", "away/secret.png", "x/../../secret.png"])
def test_image_paths_stay_in_their_folder(write_jsonl, pictures, path):
    Image.new("RGB", (2, 2)).save(pictures.parent / "secret.png")
    (pictures / "link.png").symlink_to(pictures.parent / "secret.png")
    (pictures / "away").symlink_to(pictures.parent)
    with pytest.raises(UnreadableSampleError, match=r"records\.jsonl:1: image path"):
        read(write_jsonl(row(path)), pictures)[0]


def test_links_inside_the_folder_lead_to_the_picture(write_jsonl, pictures):
    (pictures / "link.png").symlink_to(pictures / "a.png")
    (pictures / "inside").symlink_to(pictures)
    first, second = read(write_jsonl(row("link.png"), row("inside/a.png")), pictures)
    assert first["images"] == second["images"] == [str((pictures / "a.png").resolve())]


def test_a_malformed_line_names_file_and_line(write_jsonl, pictures):
    with pytest.raises(TrainingError, match=r"records\.jsonl:2: malformed JSON"):
        index(read(write_jsonl(row(), '{"id": "cut off'), pictures))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bad_records_and_images_are_noted_where_the_user_says_so(write_jsonl, pictures, num_workers):
    other_form = {"id": "o", "messages": [], "images": []}
    file = write_jsonl('{"cut', row(), "", row("../a.png"), other_form, row("b.png"), {"id": "n", "conversations": []})
    found = index(read(file, pictures, "skip"), "skip", num_workers)
    assert [bad.number for bad in found.bad] == [0, 2, 3, 4, 5]
    assert [bad.name.rpartition(":")[2] for bad in found.bad] == ["1", "4", "5", "6", "7"]
    assert found.lengths.tolist() == [0, 2 + num_image_tokens((5, 7), 4), 0, 0, 0, 0]


def test_an_array_that_breaks_off_is_an_error_or_one_bad_sample(tmp_path, pictures):
    file = tmp_path / "records.json"
    file.write_text(json.dumps([row(), row(name="r2")])[:-20])
    with pytest.raises(DataError, match=r"records\.json:1: malformed JSON array"):
        read(file, pictures)
    samples = read(file, pictures, "skip")
    assert samples[0]["id"] == "r1"
    assert [bad.number for bad in index(samples, "skip").bad] == [1]


def test_the_rows_of_an_array_are_the_same_conversations(write_jsonl, tmp_path, pictures):
    rows = [row(), row(name="ü 👍") | {"further": [1, 2.5, None]}]
    lines = read(write_jsonl(*rows), pictures)
    (tmp_path / "records.json").write_text(json.dumps(rows, indent=1))
    array = read(tmp_path / "records.json", pictures)
    strip = lambda sample: {key: value for key, value in sample.items() if key != "location"}  # noqa: E731
    assert [strip(sample) for sample in array] == [strip(sample) for sample in lines]
    assert [sample["location"].rpartition(":")[2] for sample in array] == ["2", "16"]


def test_records_are_read_by_number_in_another_process_too(write_jsonl, pictures):
    samples = read(write_jsonl(row(), row(name="r2"), row(name="r3")), pictures)
    again = pickle.loads(pickle.dumps(samples))
    assert [again[i]["id"] for i in (2, 0, -2)] == ["r3", "r1", "r2"]
    with pytest.raises(IndexError, match="has 3 records; asked for number 3"):
        samples[3]


def test_a_byte_order_mark_blank_lines_and_a_last_line_without_end_are_fine(tmp_path, pictures):
    file = tmp_path / "records.jsonl"
    content = f"\r\n{json.dumps(row())}\r\n \n\n{json.dumps(row(name='r2'))}"
    file.write_bytes(codecs.BOM_UTF8 + content.encode())
    assert [(sample["id"], sample["location"]) for sample in read(file, pictures)] == [
        ("r1", f"{file}:2"),
        ("r2", f"{file}:5"),
    ]


def test_a_record_without_a_name_is_called_by_its_line(write_jsonl, pictures):
    nameless = {key: value for key, value in row().items() if key != "id"}
    assert read(write_jsonl(nameless), pictures)[0]["id"] == "records.jsonl:1"


def test_a_file_of_which_nothing_can_be_read_is_an_error(write_jsonl, pictures):
    with pytest.raises(DataError, match=r"records\.jsonl:1: malformed JSON"):
        read(write_jsonl("{", "{"), pictures)
    with pytest.raises(CommandError, match="none of its 2 records can be read"):
        read(write_jsonl("{", "{"), pictures, "skip")


def test_an_empty_file_is_an_error(write_jsonl):
    with pytest.raises(DataError, match="no records"):
        read(write_jsonl(""))


def test_a_source_left_open_says_what_to_set():
    with pytest.raises(CommandError, match=r"--set data\.mine\.records=FILE"):
        datasets.read("mine", SourceSection(records=None))


def test_scenes_are_made_once(cache):
    scenes = ScenesSection(count=3, seed=11, side=32)
    first = datasets.read("scenes", SourceSection(scenes=scenes))
    assert isinstance(first, list)
    picture = Path(first[0]["images"][0])
    assert picture.is_relative_to(cache / "cambrian")
    written = picture.stat().st_mtime_ns
    assert datasets.read("scenes", SourceSection(scenes=scenes)) == first
    assert picture.stat().st_mtime_ns == written
    assert len(first) == 3


def read_grounding(**change) -> list[dict]:
    values = {"scenes": ScenesSection(count=3, seed=11, side=32), "grid_side": 4, "readings_per_picture": 1, **change}
    found = datasets.read("places", SourceSection(grounding=GroundingSection(**values)))
    assert isinstance(found, list)
    return found


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
