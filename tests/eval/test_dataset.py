"""Finding and reading a split, in a hub snapshot or a user's folder."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cambrian_eval import DataError
from cambrian_eval.dataset import find_split, has_split, read_split, unique
from cambrian_eval.hub import HubDataset, locate
from cambrian_eval.picture import Album, Picture
from cambrian_eval.prompts import ask, options
from cambrian_eval.rows import Row, read_rows
from cambrian_eval.types import Question
from tests.eval.benchmark_folder import png
from tests.eval.task_folders import LAYOUTS, picture, write_split

ROWS = [{"id": number, "question": f"What is {number}?", "image": picture(number // 2)} for number in range(6)]
FIELDS = ("id", "question", "image")


def ids(folder, split="test", **options):
    return [row.values["id"] for row in read_split(folder, split, FIELDS, **options)]


def touch(path: Path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# Finding.


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("config", ["", "DocVQA"])
def test_split_is_found_in_the_form_that_the_folder_has(tmp_path, layout, config):
    write_split(tmp_path, "test", ROWS, config=config, layout=layout)
    assert ids(tmp_path, config=config) == list(range(6))
    assert has_split(tmp_path, "test", config)
    assert not has_split(tmp_path, "val", config)


@pytest.mark.parametrize(
    ("place", "config"),
    [
        ("test.jsonl", ""),
        ("DocVQA/test.jsonl", "DocVQA"),
        ("DocVQA_test.jsonl", "DocVQA"),
        ("test/metadata.jsonl", ""),
        ("metadata.jsonl", ""),
        ("DocVQA/test/metadata.jsonl", "DocVQA"),
        ("DocVQA/metadata.jsonl", "DocVQA"),
    ],
)
def test_one_file_may_lie_in_any_of_the_documented_places(tmp_path, place, config):
    touch(tmp_path / place, '{"id": 7}\n')
    assert find_split(tmp_path, "test", config) == [tmp_path / place]
    assert [row.values for row in read_split(tmp_path, "test", ("id",), config=config)] == [{"id": 7}]


def test_parquet_file_without_shards_is_found_too(tmp_path):
    pq.write_table(pa.table({"id": [1, 2]}), tmp_path / "test.parquet")
    assert [row.values["id"] for row in read_split(tmp_path, "test", ("id",))] == [1, 2]


def test_shards_are_read_in_order_as_one_split(tmp_path):
    write_split(tmp_path, "test", ROWS, num_shards=3)
    assert [path.name for path in find_split(tmp_path, "test")] == [f"test-0000{n}-of-00003.parquet" for n in range(3)]
    rows = list(read_split(tmp_path, "test", FIELDS))
    assert [row.values["id"] for row in rows] == list(range(6))
    assert rows[-1].place == "test-00002-of-00003.parquet:2"


def test_missing_shard_is_an_error_and_not_a_smaller_benchmark(tmp_path):
    write_split(tmp_path, "test", ROWS, num_shards=3)
    (tmp_path / "data/test-00001-of-00003.parquet").unlink()
    with pytest.raises(DataError, match=r"found the shards .*expected each of 3 exactly once"):
        find_split(tmp_path, "test")


def test_shards_of_two_versions_are_an_error(tmp_path):
    write_split(tmp_path, "test", ROWS, num_shards=3)
    write_split(tmp_path, "test", ROWS, num_shards=1)
    with pytest.raises(DataError, match="expected each of 1 exactly once"):
        find_split(tmp_path, "test")


def test_split_whose_name_begins_alike_is_another_split(tmp_path):
    write_split(tmp_path, "testmini", ROWS)
    assert has_split(tmp_path, "testmini")
    with pytest.raises(DataError, match=r"found split 'testmini' .*; needed split 'test'"):
        find_split(tmp_path, "test")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("config", ["", "DocVQA"])
def test_wrong_split_names_the_ones_found_and_the_one_needed(tmp_path, layout, config):
    write_split(tmp_path, "train", ROWS, config=config, layout=layout)
    write_split(tmp_path, "val", ROWS, config=config, layout=layout)
    with pytest.raises(DataError, match=r"found split 'train' \(.*\), 'val' \(.*\); needed split 'test'"):
        ids(tmp_path, config=config)


def test_data_of_another_part_is_not_taken(tmp_path):
    write_split(tmp_path, "test", ROWS)
    write_split(tmp_path, "test", ROWS, config="DocVQA")
    with pytest.raises(DataError, match=r"without questions of 'InfographicVQA'; found DocVQA, data; needed split"):
        ids(tmp_path, config="InfographicVQA")


def test_folder_without_tables_says_what_is_there_and_what_is_needed(tmp_path):
    touch(tmp_path / "notes.txt")
    with pytest.raises(DataError, match=r"found notes.txt; needed split 'test': data/test-\*.parquet, test.parquet"):
        ids(tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_split_without_rows_is_an_error(tmp_path, layout):
    write_split(tmp_path, "test", ROWS, layout=layout)
    for path in tmp_path.rglob("*"):
        if path.suffix == ".jsonl":
            path.write_text("\n")
        elif path.suffix == ".parquet":
            pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(DataError, match="a file without questions; found 0 rows"):
        ids(tmp_path)


# Fields.


@pytest.mark.parametrize("layout", LAYOUTS)
def test_missing_field_is_named_with_what_is_there(tmp_path, layout):
    write_split(tmp_path, "test", [{"id": 1, "image": picture(1)}], layout=layout)
    with pytest.raises(
        DataError, match=r"missing field 'question'; found: id, (image|file_name); needed: id, question"
    ):
        ids(tmp_path)


def test_imagefolder_without_file_names_is_an_error(tmp_path):
    touch(tmp_path / "test/metadata.jsonl", '{"id": 1, "question": "What?"}\n')
    with pytest.raises(DataError, match=r"metadata.jsonl:1: missing field 'file_name'"):
        ids(tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_the_named_fields_are_read_and_an_absent_optional_one_is_none(tmp_path, layout):
    write_split(tmp_path, "test", ROWS, layout=layout)
    rows = list(read_split(tmp_path, "test", ("id",), optional=("hint",)))
    assert [row.values for row in rows] == [{"id": number, "hint": None} for number in range(6)]


def test_repeated_id_is_an_error(tmp_path):
    question = Question("7", "What?", (), ("a",), (), "", "", "")
    assert unique(tmp_path, [question]) == [question]
    with pytest.raises(DataError, match="question id 7 occurs twice"):
        unique(tmp_path, [question, question])


def row(**values):
    return Row("test.jsonl:3", values, Album(Path()))


@pytest.mark.parametrize(
    ("method", "value", "expected"),
    [
        ("text", "a b", "a b"),
        ("optional_text", None, ""),
        ("optional_text", " ", ""),
        ("optional_text", "hint", "hint"),
        ("key", 12, "12"),
        ("key", " n5 ", "n5"),
        ("optional_number", None, None),
        ("optional_number", "", None),
        ("optional_number", "2", 2.0),
        ("texts", ["a", ""], ("a", "")),
        ("texts", '["a", "b"]', ("a", "b")),
        ("optional_texts", None, ()),
        ("optional_texts", ["", "a"], ("", "a")),
        ("optional_texts", ["", " "], ()),
        ("choices", ["3", 4, 'it\'s "x"', "三"], ("3", "4", 'it\'s "x"', "三")),
    ],
)
def test_field_is_read_as_its_kind(method, value, expected):
    assert getattr(row(field=value), method)("field") == expected


@pytest.mark.parametrize(
    ("method", "value"),
    [
        ("text", None),
        ("text", " "),
        ("text", 3),
        ("optional_text", 3),
        ("key", True),
        ("key", 1.0),
        ("key", ""),
        ("optional_number", "many"),
        ("optional_number", True),
        ("optional_number", float("nan")),
        ("texts", "a"),
        ("texts", "[a"),
        ("texts", ["a", None]),
        ("choices", ["a"]),
        ("choices", ["a"] * 27),
        ("choices", ["a", None]),
        ("pictures", []),
        ("pictures", [None]),
    ],
)
def test_field_of_another_kind_is_an_error_with_its_place(method, value):
    with pytest.raises(DataError, match=r"test.jsonl:3: found"):
        getattr(row(field=value), method)("field")


def test_letter_must_be_one_of_the_choices():
    assert row(answer="(B)").letter("answer", ("a", "b")) == "B"
    with pytest.raises(DataError, match=r"found answer 'C', expected a letter from \(A\) to \(B\)"):
        row(answer="C").letter("answer", ("a", "b"))


def test_one_of_ignores_case_and_names_what_is_allowed():
    assert row(answer="Yes ").one_of("answer", ("yes", "no")) == "yes"
    with pytest.raises(DataError, match="found answer 'y', expected one of yes, no"):
        row(answer="y").one_of("answer", ("yes", "no"))


def test_long_wrong_value_is_shortened_in_the_message():
    with pytest.raises(DataError) as caught:
        row(choices="x" * 100_000).choices("choices")
    assert len(str(caught.value)) < 400


# CSV.


def test_csv_is_read_with_quoted_commas_and_lists_as_json(tmp_path):
    file = io.StringIO()
    table = csv.writer(file)
    table.writerows([["id", "question", "choices"], ["1", 'Left, or "right"?', json.dumps(["left", "right"])]])
    path = touch(tmp_path / "metadata.csv", "\ufeff" + file.getvalue())
    found = next(read_rows(path, ("id", "question", "choices")))
    assert (found.text("question"), found.choices("choices")) == ('Left, or "right"?', ("left", "right"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,question\n1,a,b\n", "metadata.csv:2: found another number of cells"),
        ("id,question\n1\n", "metadata.csv:2: found another number of cells"),
        ("id\n1\n", "metadata.csv: missing field 'question'; found: id"),
        ("", "metadata.csv: missing field 'id', 'question'"),
        ('id,question\n1,"open\n', "metadata.csv: cannot be read as CSV"),
    ],
)
def test_csv_that_is_not_a_table_is_an_error(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        list(read_rows(touch(tmp_path / "metadata.csv", text), ("id", "question")))


def test_csv_in_another_encoding_is_an_error(tmp_path):
    (tmp_path / "metadata.csv").write_bytes("id\n\u00e9\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"metadata.csv: cannot be read as CSV"):
        list(read_rows(tmp_path / "metadata.csv", ("id",)))


# Pictures.


@pytest.mark.parametrize("layout", LAYOUTS)
def test_equal_pictures_are_held_once(tmp_path, layout):
    write_split(tmp_path, "test", ROWS, layout=layout)
    shown = [one.picture("image") for one in read_split(tmp_path, "test", FIELDS)]
    assert [one.read() for one in shown] == [png(number // 2) for number in range(6)]
    if layout == "parquet":
        assert len({id(one.data) for one in shown}) == 3
    else:
        assert len({id(one) for one in shown}) == 3
        assert all(one.data is None for one in shown)


def test_several_pictures_keep_their_order(tmp_path):
    for layout in ("parquet", "jsonl"):
        write_split(tmp_path / layout, "test", [{"id": 1, "images": [picture(5), picture(3)]}], layout=layout)
        found = next(read_split(tmp_path / layout, "test", ("id", "images"))).pictures("images")
        assert [one.read() for one in found] == [png(5), png(3)]


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/secret.png", "a/../../secret.png", "C:\\secret.png", "a\0b", ""]
)
def test_picture_outside_of_the_folder_is_refused(tmp_path, name):
    (tmp_path / "secret.png").write_bytes(png(1))
    touch(tmp_path / "data/test.jsonl", json.dumps({"image": name}) + "\n")
    with pytest.raises(DataError, match="expected bytes or a path inside the data's folder"):
        next(read_split(tmp_path / "data", "test", ("image",))).picture("image")


def test_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "secret.png").write_bytes(png(1))
    touch(tmp_path / "data/test.jsonl", '{"image": "inside.png"}\n')
    (tmp_path / "data/inside.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match=r"picture inside.png is a link to .*secret.png, outside of"):
        next(read_split(tmp_path / "data", "test", ("image",))).picture("image")


def test_link_of_a_hub_snapshot_into_its_blobs_is_followed(tmp_path):
    repo = tmp_path / "datasets--x--y"
    touch(repo / "snapshots/0123/test.jsonl", '{"image": "inside.png"}\n')
    touch(repo / "blobs/abc").write_bytes(png(1))
    (repo / "snapshots/0123/inside.png").symlink_to("../../blobs/abc")
    found = next(read_split(repo / "snapshots/0123", "test", ("image",))).picture("image")
    assert found.read() == png(1)


def test_missing_picture_is_named(tmp_path):
    touch(tmp_path / "test.jsonl", '{"image": "absent.png"}\n')
    with pytest.raises(DataError, match=r"test.jsonl:1: picture absent.png is missing"):
        next(read_split(tmp_path, "test", ("image",))).picture("image")


def test_picture_whose_name_is_too_long_for_any_file_is_missing_and_named_in_short(tmp_path):
    touch(tmp_path / "test.jsonl", json.dumps({"image": "a" * 5000}) + "\n")
    with pytest.raises(DataError, match=r"test.jsonl:1: picture a{200}\.\.\. is missing"):
        next(read_split(tmp_path, "test", ("image",))).picture("image")


def test_picture_may_be_bytes_alone(tmp_path):
    pq.write_table(pa.table({"image": pa.array([png(4)], type=pa.binary())}), tmp_path / "test.parquet")
    assert next(read_split(tmp_path, "test", ("image",))).picture("image").read() == png(4)


def test_picture_is_upright_as_its_orientation_says():
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (7, 5)).save(file, format="JPEG", exif=exif)
    assert Picture.from_bytes("turned.jpg", file.getvalue()).open().size == (5, 7)


def test_a_picture_whose_exif_is_of_a_wrong_type_is_named(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x011A] = 72.0
    Image.new("RGB", (7, 5)).save(tmp_path / "a.jpg", format="JPEG", exif=exif)
    entry = b"\x01\x1a\x00\x05"  # the tag of the resolution, and its type: a rational
    content = (tmp_path / "a.jpg").read_bytes()
    assert content.count(entry) == 1
    with pytest.raises(DataError, match=r"a\.jpg: cannot be decoded"):
        Picture.from_bytes("a.jpg", content.replace(entry, b"\x01\x1a\x00\x07")).open()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_picture_of_any_mode_opens_in_rgb(mode):
    file = io.BytesIO()
    Image.new(mode, (7, 5)).save(file, format="PNG")
    assert Picture.from_bytes("x.png", file.getvalue()).open().mode == "RGB"


def test_picture_of_too_many_pixels_is_refused():
    file = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(file, format="PNG")
    with pytest.raises(DataError, match=r"bomb.png: more than 89478485 pixels"):
        Picture.from_bytes("bomb.png", file.getvalue()).open()


# Prompts.


def test_prompt_has_pictures_first_and_the_instruction_on_its_own_line():
    shown = (Picture.from_bytes("a", b"1"), Picture.from_bytes("b", b"2"))
    question = Question("7", "What?", ("x", "y"), ("A",), shown, "", "", "")
    prompt = ask(question, "Be brief.", 16)
    assert prompt.content == (*shown, "What?\nBe brief.")
    assert (prompt.instruction, prompt.choices, prompt.max_new_tokens) == ("Be brief.", ("x", "y"), 16)
    assert ask(question, "", 16).text == "What?"
    assert ask(question, "Be brief.", 16, text="What?\nA. x").text == "What?\nA. x\nBe brief."


def test_options_are_lettered_one_a_line_whatever_they_hold():
    choices = ["it's", 'a "quote"', "选项", "same", "same"]
    assert options(choices) == 'A. it\'s\nB. a "quote"\nC. 选项\nD. same\nE. same'
    assert options(choices[:2], "(A) x") == '(A) it\'s\n(B) a "quote"'


# The hub.

HUB = HubDataset("x/y", ("data/{split}-*.parquet",))


def test_folder_that_is_not_there_names_the_files_of_the_split(tmp_path):
    with pytest.raises(DataError, match=r"found nothing, expected a folder with data/val-\*.parquet"):
        locate(HUB, tmp_path / "absent", None, "val")


def offline(home: Path, call: str) -> str:
    code = f"""
from cambrian_eval import DataError
from cambrian_eval.hub import HubDataset, locate
try:
    print(locate(HubDataset("x/y", ("data/{{split}}-*.parquet",)), None, {call}))
except DataError as error:
    print("DataError", error)
"""
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home)}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout


def test_cached_split_is_found_offline_and_one_that_was_not_downloaded_is_named(tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub/datasets--x--y"
    write_split(repo / "snapshots" / commit, "val", ROWS)
    touch(repo / "refs/main", commit)
    assert commit in offline(tmp_path, 'None, "val"')
    said = offline(tmp_path, 'None, "test"')
    assert said.startswith("DataError x/y at revision main is not in the local cache, and HF_HUB_OFFLINE forbids")
    assert "data/test-*.parquet" in said
