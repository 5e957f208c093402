"""A benchmark from annotation files: rules by name, what is refused and counted, the hub's layout, and bad input."""

import csv
import doctest
import json
import subprocess
import sys
from collections import Counter
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from cambrian_data.boxes import Box
from cambrian_data.cvbench import (
    CountRules,
    RelationRules,
    Rules,
    SeenRules,
    SpaceRules,
    Task,
    benchmark,
    kinship,
    write_scene_benchmark,
)
from cambrian_data.cvbench.annotations import Cuboid, Instance, Picture
from cambrian_data.cvbench.balance import choose, left_over
from cambrian_data.cvbench.benchmark import write_benchmark
from cambrian_data.cvbench.build import candidates_2d, pool
from cambrian_data.cvbench.inputs import Form, Input, fingerprint
from cambrian_data.cvbench.kinship import are_akin
from cambrian_data.cvbench.lots import lot, shuffled
from cambrian_data.cvbench.makers import count_candidates, depth_candidates, relation_candidates
from cambrian_data.cvbench.names import is_background, is_countable, plural, verb
from cambrian_data.cvbench.names import one as with_article
from cambrian_data.cvbench.pictures import View, annotated_view
from cambrian_data.cvbench.rejections import FIXED
from cambrian_data.cvbench.rulebook import changed, entries, parse, read, shown
from cambrian_data.cvbench.rules import stated
from cambrian_data.cvbench.sources import coco
from cambrian_data.cvbench.sources.ade20k_names import first_in_table
from cambrian_data.cvbench.tables import COLUMNS
from cambrian_data.errors import DataError, ImageError
from cambrian_data.images import load_image
from cambrian_data.scenes import write_scenes
from cambrian_eval.tasks.cvbench import read_questions
from tests.support.folders import contents, read_rows

SMALL = Rules()
"""For pictures of 64 pixels, whose things are smaller than any that is asked about in a photograph."""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=60, seed=5)
    return folder


@pytest.fixture(scope="module")
def inputs(scenes, tmp_path_factory):
    """The scenes' annotations under the names of published files, with the folder of their pictures."""
    folder = tmp_path_factory.mktemp("annotations")
    files = {
        folder / "instances_val2017.json": scenes / "instances.json",
        folder / "Omni3D_SUNRGBD_val.json": scenes / "cuboids.json",
    }
    for copy, original in files.items():
        copy.write_bytes(original.read_bytes())
    flat, solid = files
    return [Input(Form.COCO, flat, scenes / "images"), Input(Form.OMNI3D, solid, scenes / "images")]


@pytest.fixture(scope="module")
def built(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    return folder, write_benchmark(inputs, folder, count_per_task=40, seed=1, rules=SMALL)


# --- the hub's layout


def test_rows_are_those_of_the_hub(built):
    folder, summary = built
    found = read_rows(folder)
    assert [row["idx"] for row in found] == list(range(160))
    assert {(row["task"], row["source"], row["source_dataset"]) for row in found} == {
        ("Count", "COCO", "COCO 2017 Validation Set"),
        ("Relation", "COCO", "COCO 2017 Validation Set"),
        ("Depth", "Omni3D", "Omni3D SUNRGBD"),
        ("Distance", "Omni3D", "Omni3D SUNRGBD"),
    }
    assert found[39]["filename"] == "img/2D/count/coco_39.png"
    assert found[80]["filename"] == "img/3D/depth/omni3d_sunrgbd_0.png"
    for row in found:
        assert [*row] == [name for name in COLUMNS if name != "image"]
        assert all(isinstance(choice, str) for choice in row["choices"])
        assert row["answer"] in ("(A)", "(B)", "(C)", "(D)")
        assert (row["target_class"] is not None) == (row["task"] == "Count")
        assert (row["target_size"] is not None) == (
            row["task"] == "Count" and row["choices"]["ABCD".index(row["answer"][1])] != "0"
        )
        assert (row["bbox"] is not None) == (row["type"] == "3D")
    assert summary.num_questions == summary.num_pictures == 160
    assert not [path for path in folder.rglob("*") if path.suffix in (".tmp", ".unfinished")]


def test_parquet_holds_the_same_rows_and_the_pictures_themselves(built):
    folder, _ = built
    by_index = {row["idx"]: row for row in read_rows(folder)}
    for part in ("2d", "3d"):
        with pq.ParquetFile(folder / f"test_{part}.parquet") as file:
            assert file.schema_arrow.names == [*COLUMNS]
            assert file.num_row_groups == 2  # 64 rows and 16: never all pictures at once
            for row in file.read().to_pylist():
                image = row.pop("image")
                assert row == by_index[row["idx"]]
                assert image["bytes"] == (folder / row["filename"]).read_bytes()
                assert image["path"] == Path(row["filename"]).name
                assert image["bytes"].startswith(b"\x89PNG")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="the datasets library is not installed")
    datasets.disable_progress_bars()
    return lambda folder, name=None: datasets.load_dataset(
        str(folder), name, split="test", cache_dir=str(tmp_path / "cache")
    )


def test_the_datasets_library_loads_both_parts_and_decodes_pictures(built, offline):
    folder, _ = built
    expected = read_rows(folder)
    for name, wanted in (("2D", expected[:80]), ("3D", expected[80:]), (None, expected)):
        loaded = offline(folder, name)
        assert loaded.column_names == [*COLUMNS]
        assert [row["idx"] for row in loaded.remove_columns("image")] == [row["idx"] for row in wanted]
        first = loaded[0]
        assert first["image"].convert("RGB").size == (64, 64)
        assert first["choices"] == wanted[0]["choices"]
        assert first["bbox"] == wanted[0]["bbox"]


def test_lmms_evals_task_finds_what_it_reads(built, offline):
    """Its functions take these fields: picture, prompt, choices to name the letters, answer, and what it groups by."""
    folder, _ = built
    for doc in offline(folder).select([0, 50, 100, 150]):
        assert doc["image"].convert("RGB").size == (64, 64)
        letters = ", ".join(["A", "B", "C", "D", "E"][: len(doc["choices"])])
        assert doc["prompt"].count("\n") == len(letters.split(", "))
        assert doc["answer"].strip("()") in letters
        assert all(isinstance(doc[name], str) for name in ("type", "task", "source"))
        assert isinstance(doc["idx"], int)


def test_our_evaluation_reads_it(built):
    folder, _ = built
    read_back = read_questions(folder, parts=("2D", "3D"))
    expected = read_rows(folder)
    assert [question.text for question in read_back] == [row["prompt"] for row in expected]
    assert [question.answers[0] for question in read_back] == [row["answer"][1] for row in expected]
    assert {question.source for question in read_back} == {"COCO", "Omni3D"}


def test_geometry_says_what_the_answers_follow_from(built, inputs):
    folder, _ = built
    lines = [json.loads(line) for line in (folder / "geometry.jsonl").read_text().splitlines()]
    by_name = {picture.file_name: picture for picture in coco.read(inputs[0].path).pictures}
    for line, row in zip(lines, read_rows(folder), strict=True):
        assert (line["idx"], line["file"], line["source_filename"]) == (
            row["idx"],
            row["filename"],
            row["source_filename"],
        )
        assert (line["width"], line["height"]) == (64, 64)
        answer = row["choices"]["ABCD".index(row["answer"][1])]
        subjects = line["subjects"]
        if row["task"] == "Count":
            assert len(subjects) == int(answer)
            assert len(subjects) + len(line["others"]) == len(by_name[row["source_filename"]].things)
            assert row["target_class"] not in {other["category"] for other in line["others"]}
        elif row["task"] == "Relation":
            assert [one["colour"] for one in subjects] == [
                colour if f"{colour} box" in row["question"] else None for colour in ("red", "blue")
            ]
            assert line["K"] is None
        else:
            assert [one["colour"] for one in subjects] == ["red", "blue", "green"][: len(subjects)]
            assert [one["box"] for one in subjects] == row["bbox"]
            origin = np.mean(subjects[0]["vertices"], axis=0) if row["task"] == "Distance" else np.zeros(3)
            told = subjects[-2:]
            for one in told:
                reach = np.linalg.norm(np.array(one["vertices"]) - origin, axis=1)
                assert one["distance"] == pytest.approx([reach.min(), reach.max()])
            near, far = sorted(told, key=lambda one: one["distance"])
            assert near["category"] == answer
            assert near["distance"][1] < far["distance"][0]
            assert np.array(line["K"]).shape == (3, 3)
    assert all(lines[n]["subjects"][0]["distance"] is None for n in range(120, 160))


def test_scenes_give_the_same_questions_as_their_own_benchmark(scenes, tmp_path):
    write_scene_benchmark(scenes, tmp_path / "own", count_per_task=20, seed=3)
    write_benchmark([Input(Form.SCENES, scenes)], tmp_path / "built", count_per_task=20, seed=3)
    own, made = contents(tmp_path / "own"), contents(tmp_path / "built")
    del own["cvbench.json"]
    assert {name: made[name] for name in own} == own


def test_manifest_and_card_say_what_was_asked_and_refused(built):
    folder, summary = built
    manifest = json.loads((folder / "cvbench.json").read_text())
    assert manifest["summary"] == msgspec.to_builtins(summary)
    assert manifest["request"]["rules"] == {"photographs": stated(SMALL)}
    assert manifest["request"]["seed"] == 1
    card = (folder / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert [(one["config_name"], one["data_files"][0]["path"]) for one in head["configs"]] == [
        ("default", "test*.parquet"),
        ("2D", "test_2d.parquet"),
        ("3D", "test_3d.parquet"),
    ]
    for one in summary.tasks:
        assert f"| {one.task} | {one.source} | {one.questions} | 40 | {one.pictures} | {one.candidates} |" in card
        for key, number in one.rejections.items():
            what, rule = key.split(": ")
            assert f"| {one.task} | {one.source} | {what} | {rule} | {number} |" in card
    for entry in entries(SMALL):
        assert f"| `{entry.name}` |" in card


# --- same seed, same bytes; made once


def test_the_bytes_do_not_depend_on_the_process(inputs, built, tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from cambrian_data.cvbench.benchmark import write_benchmark\n"
        "from cambrian_data.cvbench.inputs import Form, Input\n"
        "from cambrian_data.cvbench.rules import Rules\n"
        "flat, solid, images, output = map(Path, sys.argv[1:])\n"
        "inputs = [Input(Form.COCO, flat, images), Input(Form.OMNI3D, solid, images)]\n"
        "write_benchmark(inputs, output, count_per_task=40, seed=1, rules=Rules())\n"
    )
    paths = [inputs[0].path, inputs[1].path, inputs[0].images]
    for hash_seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", code, *map(str, paths), str(tmp_path / hash_seed)],
            check=True,
            env={"PYTHONHASHSEED": hash_seed},
            timeout=120,
        )
        assert contents(tmp_path / hash_seed) == contents(built[0])


def test_another_seed_asks_something_else(inputs, built, tmp_path):
    other = write_benchmark(inputs, tmp_path, count_per_task=40, seed=2, rules=SMALL)
    assert other.content_hash != built[1].content_hash


def test_a_finished_benchmark_is_not_touched_and_another_is_refused(inputs, built):
    folder, summary = built
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write_benchmark(inputs, folder, count_per_task=40, seed=1, rules=SMALL) == summary
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with pytest.raises(DataError, match=r"holds other questions: count_per_task 40, not 8; choose another folder"):
        write_benchmark(inputs, folder, count_per_task=8, seed=1, rules=SMALL)
    with pytest.raises(DataError, match=r"holds other questions: rules "):
        write_benchmark(inputs, folder, count_per_task=40, seed=1, rules=changed(SMALL, [("relation.margin", 0.3)]))
    with pytest.raises(DataError, match=r"holds other questions: inputs "):
        write_benchmark(inputs[:1], folder, count_per_task=40, seed=1, rules=SMALL)


def test_an_interrupted_build_starts_anew(inputs, built, tmp_path):
    class InterruptionError(Exception):
        pass

    def interrupt(what, done, number):
        if what == "questions" and done == 99:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        write_benchmark(inputs, tmp_path, count_per_task=40, seed=1, rules=SMALL, progress=interrupt)
    assert not (tmp_path / "cvbench.json").exists()
    assert not (tmp_path / "test_2d.parquet").exists()  # a table has its name only when it is whole
    write_benchmark(inputs, tmp_path, count_per_task=40, seed=1, rules=SMALL)
    assert contents(tmp_path) == contents(built[0])


def test_what_is_lost_from_a_finished_benchmark_is_noticed(inputs, tmp_path):
    write_benchmark(inputs, tmp_path, count_per_task=4, rules=SMALL)
    (tmp_path / "test_3d.parquet").unlink()
    with pytest.raises(DataError, match=r"test_3d.parquet is missing from finished questions"):
        write_benchmark(inputs, tmp_path, count_per_task=4, rules=SMALL)


# --- several sources


def test_sources_of_a_task_share_its_questions(inputs, scenes, tmp_path):
    summary = write_benchmark([*inputs, Input(Form.SCENES, scenes)], tmp_path, count_per_task=21, rules=SMALL)
    assert [(one.task, one.source, one.wanted, one.questions) for one in summary.tasks] == [
        ("Count", "COCO", 11, 11),
        ("Count", "Scenes2D", 10, 10),
        ("Relation", "COCO", 11, 11),
        ("Relation", "Scenes2D", 10, 10),
        ("Depth", "Omni3D", 11, 11),
        ("Depth", "Scenes3D", 10, 10),
        ("Distance", "Omni3D", 11, 11),
        ("Distance", "Scenes3D", 10, 10),
    ]
    found = read_rows(tmp_path)
    assert [row["idx"] for row in found] == list(range(84))
    assert len({row["filename"] for row in found}) == 84
    assert set(json.loads((tmp_path / "cvbench.json").read_text())["request"]["rules"]) == {"photographs", "scenes"}


def test_the_order_of_inputs_does_not_matter(inputs, built):
    assert write_benchmark(inputs[::-1], built[0], count_per_task=40, seed=1, rules=SMALL) == built[1]


def test_annotations_are_known_by_their_content_wherever_they_lie(assets, tmp_path):
    copy = tmp_path / "scenes"
    copy.mkdir()
    for file in (assets / "ade20k").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    inputs = [Input(Form.ADE20K, assets / "ade20k"), Input(Form.ADE20K, copy)]
    assert len({fingerprint(one) for one in inputs}) == 1
    one_scene = Input(Form.ADE20K, copy / "ADE_train_00016964.json")
    before = [fingerprint(inputs[1]), fingerprint(one_scene)]
    seg = copy / "ADE_train_00016964_seg.png"
    seg.write_bytes(seg.read_bytes() + b" ")
    after = [fingerprint(inputs[1]), fingerprint(one_scene)]
    assert not set(before) & set(after)


def test_masks_have_no_share_in_counts(assets, tmp_path):
    mask = np.zeros((146, 220), dtype=np.uint8)
    mask[90:130, 20:80], mask[20:60, 120:180] = 20, 8  # numbers of the table: chair, bed
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in (1, 2):
        Image.fromarray(mask).convert("RGB").save(tmp_path / "images" / f"{number}.jpg")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    table = assets / "ade20k" / "object150_info.csv"
    given = [
        Input(Form.ADE20K_MASKS, tmp_path / "masks", tmp_path / "images", table),
        Input(Form.COCO, assets / "coco" / "instances.json", assets / "coco" / "images"),
    ]
    summary = write_benchmark(given, tmp_path / "out", count_per_task=4)
    assert [(one.task, one.source, one.wanted, one.questions) for one in summary.tasks] == [
        ("Count", "COCO", 4, 4),
        ("Relation", "ADE20K", 2, 2),
        ("Relation", "COCO", 2, 2),
    ]
    for row in read_rows(tmp_path / "out"):
        if row["source"] == "ADE20K":
            assert "the chair (annotated by the " in row["question"]
            assert "the bed (annotated by the " in row["question"]


def test_a_part_without_annotations_is_not_written(inputs, tmp_path, offline):
    summary = write_benchmark(inputs[:1], tmp_path / "flat", count_per_task=8, rules=SMALL)
    assert summary.parts == ["2D"]
    assert sorted(path.name for path in (tmp_path / "flat").iterdir()) == [
        *("README.md", "cvbench.json", "geometry.jsonl", "img", "test_2d.jsonl", "test_2d.parquet"),
    ]
    assert len(offline(tmp_path / "flat")) == len(offline(tmp_path / "flat", "2D")) == 16
    assert len(read_questions(tmp_path / "flat", parts=("2D",))) == 16


def test_a_picture_that_two_files_annotate_is_refused(inputs, tmp_path):
    (tmp_path / "again.json").write_bytes(inputs[0].path.read_bytes())
    again = Input(Form.COCO, tmp_path / "again.json", inputs[0].images)
    with pytest.raises(DataError, match=r'picture "000000.png" is annotated in .*again.json and in .*val2017.json'):
        write_benchmark([inputs[0], again], tmp_path / "out", count_per_task=4, rules=SMALL)


def test_real_annotations_of_all_sources_give_a_benchmark(assets, tmp_path):
    given = [
        Input(Form.COCO, assets / "coco" / "instances.json", assets / "coco" / "images"),
        Input(Form.ADE20K, assets / "ade20k"),
        *(
            Input(Form.OMNI3D, assets / "omni3d" / f"Omni3D_{name}_sample.json", assets / "omni3d" / "images")
            for name in ("KITTI", "nuScenes", "SUNRGBD")
        ),
    ]
    summary = write_benchmark(given, tmp_path, count_per_task=4)
    asked = {(str(one.task), one.source): one.questions for one in summary.tasks}
    assert asked["Count", "COCO"] == 4  # ADE20K is not counted, and has no share
    assert asked["Relation", "COCO"] == 2
    assert min(asked["Relation", "ADE20K"], asked["Depth", "Omni3D"], asked["Distance", "Omni3D"]) >= 2
    found = read_rows(tmp_path)
    assert {row["source"] for row in found} == {"COCO", "ADE20K", "Omni3D"}
    for row in found:
        assert load_image(tmp_path / row["filename"]).size[0] > 200
        assert not is_background(row["target_class"] or "thing")
    assert {one.name: bool(one.left_out) for one in summary.files}["Omni3D_KITTI_sample.json"]


def test_ade20k_is_counted_only_by_who_believes_that_all_was_outlined(assets, tmp_path):
    given = Input(Form.ADE20K, assets / "ade20k")
    careful = write_benchmark([given], tmp_path / "careful", count_per_task=2)
    assert {one.task for one in careful.tasks} == {"Relation"}
    trusting = write_benchmark([given._replace(exhaustive=True)], tmp_path / "trusting", count_per_task=2)
    assert {one.task: one.candidates > 0 for one in trusting.tasks} == {"Count": True, "Relation": True}
    with pytest.raises(DataError, match="holds other questions"):
        write_benchmark([given], tmp_path / "trusting", count_per_task=2)


def test_two_processes_do_not_make_one_folder(inputs, tmp_path):
    lock = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], 0), fcntl.LOCK_EX); print(flush=True); input()"
    command = [sys.executable, "-c", lock, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(DataError, match=r"another process writes to .*; wait until it ends"):
            write_benchmark(inputs, tmp_path, count_per_task=4, rules=SMALL)
        other.communicate(b"\n")
    write_benchmark(inputs, tmp_path, count_per_task=4, rules=SMALL)


def test_a_folder_where_a_file_is_wanted_is_called_one(inputs, tmp_path):
    with pytest.raises(DataError, match="this is a folder; expected a COCO-format instances file"):
        write_benchmark([inputs[0]._replace(path=tmp_path)], tmp_path / "out", count_per_task=4)


@pytest.mark.parametrize(
    ("name", "several", "says"),
    [
        ("plates", "plates", "are"),
        ("traffic lights", "traffic lights", "are"),
        ("sheets of paper", "sheets of paper", "are"),
        ("people", "people", "are"),
        ("lens", "lenses", "is"),
        ("canvas", "canvases", "is"),
        ("hero", "heroes", "is"),
    ],
)
def test_names_that_are_plurals_already_stay_so(name, several, says):
    assert (plural(name), verb(name)) == (several, says)
    assert are_akin(name, several)


# --- what is refused, by rule


def instance(number, kind, box, **more):
    return Instance(number, kind, Box(*box), Box(*box).area, **more)


def counted(picture, categories=("cat", "dog"), **rules):
    rejected: Counter[str] = Counter()
    found = [*count_candidates(picture, categories, CountRules(**{"absent_per_picture": 0, **rules}), rejected)]
    return {candidate.category[0]: candidate.answer for candidate in found}, dict(rejected)


CAT, DOG = instance(1, "cat", (10, 10, 40, 40)), instance(2, "dog", (50, 50, 80, 80))


def test_every_candidate_is_asked_or_refused_by_a_rule(built):
    for one in built[1].tasks:
        left = {key: n for key, n in one.rejections.items() if key.startswith("candidate: ")}
        assert one.candidates == one.questions + sum(left.values())
        assert set(left) <= {"candidate: fact", "candidate: per_picture", "candidate: enough"}


def test_counts_are_refused_by_rule():
    crowd = Picture("a", 90, 90, (CAT, instance(3, "cat", (0, 0, 20, 20), is_crowd=True), DOG))
    assert counted(crowd) == ({"dog": "1"}, {"category: crowd": 1})
    tiny = Picture("a", 90, 90, (CAT, instance(3, "cat", (0, 0, 1, 1)), DOG))
    assert counted(tiny) == ({"dog": "1"}, {"category: min_area": 1})
    many = Picture("a", 90, 90, (CAT, replace(CAT, id=5), DOG))
    assert counted(many, max_count=1) == ({"dog": "1"}, {"category: max_count": 1})
    books = Picture("a", 90, 90, (instance(1, "books", (10, 10, 40, 40)), DOG))
    assert counted(books) == ({"dog": "1"}, {"category: countable": 1})
    assert counted(Picture("a", 90, 90, (CAT, DOG), complete=frozenset({"dog"}))) == (
        {"dog": "1"},
        {"category: complete": 1},
    )


def test_what_may_be_taken_for_something_else_is_not_counted():
    things = (instance(1, "chair", (10, 10, 40, 40)), instance(2, "armchair", (50, 50, 80, 80)))
    found, rejected = counted(
        Picture("a", 90, 90, things), ("chair", "armchair", "swivel chair", "dog"), absent_per_picture=9
    )
    assert found == {"dog": "0"}
    assert rejected == {"category: kin": 2, "absent category: kin": 1}


def test_absence_is_asked_only_of_what_the_picture_is_annotated_for():
    picture = Picture("a", 90, 90, (CAT,), complete=frozenset({"cat", "cow"}))
    found, rejected = counted(picture, ("cat", "cow", "dog", "water"), absent_per_picture=9)
    assert found == {"cat": "1", "cow": "0"}
    assert rejected == {"absent category: complete": 1, "absent category: countable": 1}


def test_people_at_the_edge_are_not_counted_but_other_things_are():
    things = (instance(1, "person", (0, 10, 40, 40)), instance(2, "dog", (50, 50, 90, 90)))
    picture = Picture("a", 90, 90, things)
    assert counted(picture, seen=SeenRules(min_area=0.001, people_inside=1)) == (
        {"dog": "1"},
        {"category: people_inside": 1},
    )
    assert counted(picture) == ({"dog": "1", "person": "1"}, {})


def related(picture, **rules):
    rejected: Counter[str] = Counter()
    found = [*relation_candidates(picture, RelationRules(**rules), rejected)]
    return {(one.category, one.answer): one.boxed for one in found}, dict(rejected)


def test_relations_are_refused_by_rule_and_pairs_once_for_an_axis():
    sky = instance(3, "sky", (0, 0, 90, 30))
    beside = instance(4, "cow", (12, 60, 42, 88))  # below the cat, and not plainly beside it
    found, rejected = related(Picture("a", 90, 90, (CAT, sky, beside)))
    assert found == {(("cat", "cow"), "above"): (False, False), (("cow", "cat"), "below"): (False, False)}
    assert rejected == {"thing: background": 1, "pair: margin": 1}
    wide = instance(4, "cow", (25, 60, 88, 88))  # its middle is far to the right, but half of the cat is below it
    assert related(Picture("a", 90, 90, (CAT, wide)))[1] == {"pair: max_overlap": 1}
    crowd = instance(4, "cow", (12, 60, 42, 88), is_crowd=True)
    assert related(Picture("a", 90, 90, (CAT, crowd))) == ({}, {"thing: crowd": 1})


def test_a_box_is_drawn_where_a_name_does_not_tell_a_thing_apart():
    chair, armchair = instance(1, "chair", (10, 10, 40, 40)), instance(2, "armchair", (50, 50, 80, 80))
    beside_kin, _ = related(Picture("a", 90, 90, (chair, armchair)))
    assert set(beside_kin.values()) == {(True, True)}
    unsure, _ = related(Picture("a", 90, 90, (CAT, DOG), complete=frozenset({"cat"})))
    assert unsure[("cat", "dog"), "left"] == (False, True)
    assert related(Picture("a", 90, 90, (chair, armchair)), draw_boxes=False) == ({}, {"thing: draw_boxes": 2})


def cuboid(number, kind, box, near, **more):
    corners = tuple((x, y, near + z) for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0))
    return Cuboid(number, kind, Box(*box), corners, **more)


def test_what_something_nearer_covers_is_not_asked_about():
    truck, man, cone = (
        cuboid(1, "truck", (0, 0, 60, 60), 4),
        cuboid(2, "man", (20, 20, 40, 40), 8),
        cuboid(3, "cone", (65, 20, 85, 40), 20),
    )
    picture = Picture("a", 90, 90, (truck, man, cone))

    def asked(things, **rules):
        rejected: Counter[str] = Counter()
        found = depth_candidates(replace(picture, things=things), SpaceRules(max_overlap=1, **rules), rejected)
        return {candidate.category for candidate in found}, dict(rejected)

    both_ways = {("truck", "cone"), ("cone", "truck")}
    assert asked((truck, man, cone), max_covered=0.5) == (
        both_ways,
        {"thing: max_covered": 1, "pair: margin": 0, "pair: max_overlap": 0},
    )
    assert len(asked((truck, man, cone))[0]) == 6
    seen = replace(man, visibility=0.9)  # somebody has measured it
    assert len(asked((truck, seen, cone), max_covered=0.5)[0]) == 6
    behind = cuboid(2, "man", (20, 20, 40, 40), 2)  # before the truck
    assert len(asked((truck, behind, cone), max_covered=0.5)[0]) == 6


def test_a_category_is_capped(inputs):
    found = candidates_2d(coco.read(inputs[0].path), SMALL)[Task.COUNT]
    chosen = choose(found, None, 2, 0, 7)
    categories = Counter(one.candidate.category[0] for one in chosen)
    assert max(categories.values()) == 7
    assert max(Counter(one.candidate.category[0] for one in choose(found, None, 2, 0)).values()) > 7
    rejected = left_over(found, chosen, None, 2, 7)
    assert rejected["candidate: per_category"] > 0
    assert sum(rejected.values()) == len(found) - len(chosen)


def test_a_pool_holds_candidates_of_one_picture_by_lot(inputs):
    (picture, *_) = [p for p in coco.read(inputs[0].path).pictures if len(p.things) > 4]
    found = [*relation_candidates(picture, RelationRules())]
    rejected: Counter[str] = Counter()
    drawn = pool(found, 5, rejected)
    assert len(drawn) == 5
    assert [one for one in found if one in drawn] != found[:5]
    assert rejected == {"candidate: pool_per_picture": len(found) - 5}
    assert pool(found, None, rejected) is found


def test_what_all_lots_share_is_hashed_once_and_changes_none():
    items = [*range(50), "a", ("b", 1.5)]
    assert shuffled(items, 7, "key", "x'y") == sorted(items, key=lambda item: lot(7, "key", "x'y", item))


# --- rules by name


def test_every_rule_has_a_reason_and_bounds_that_hold_its_defaults():
    for rules in (Rules(), Rules.photographs()):
        for entry in entries(rules):
            assert len(entry.reason) > 20, entry.name
            assert entry.value is None or entry.low <= entry.value <= entry.high


def test_the_page_about_rules_lists_every_rule_with_both_defaults_and_every_refusal():
    page = (Path(__file__).parents[2] / "docs" / "cvbench" / "rules.md").read_text()
    for scenes, photographs in zip(entries(Rules()), entries(Rules.photographs()), strict=True):
        values = f"{shown(scenes.value)} | {shown(photographs.value)}"
        assert f"| `{scenes.name}` | {values} | {scenes.reason} |" in page
    for name, reason in FIXED.items():
        assert f"| `{name}` |" in page
        assert f"| {reason} |" in page


def test_rules_that_are_not_applied_are_not_stated():
    assert "people_inside" not in stated(Rules())["count"]["seen"]
    assert stated(Rules.photographs())["relation"]["seen"]["people_inside"] == 1.0
    names = {
        one.name for part in fields(Rules) if is_dataclass(held := getattr(Rules(), part.name)) for one in fields(held)
    }
    assert {"per_category", "pool_per_picture", "max_covered"} < names


def test_rules_are_changed_by_text():
    rules = changed(
        Rules(),
        [parse(text) for text in ("relation.margin=0.2", "count.seen.min_area = 0.01", "depth.max_covered=0.4")]
        + [parse(text) for text in ("relation.draw_boxes=false", "count.max_count=5", "shuffle_choices=false")],
    )
    assert rules.relation == RelationRules(margin=0.2, draw_boxes=False)
    assert rules.count == CountRules(seen=SeenRules(min_area=0.01), max_count=5)
    assert rules.depth == SpaceRules(max_covered=0.4)
    assert rules.shuffle_choices is False
    assert rules.distance == Rules().distance
    assert changed(rules, [("depth.max_covered", "none")]).depth == SpaceRules()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rules.yaml", "relation: {margin: 0.2}\ncount:\n  seen: {min_area: 0.01}\n  per_category: 9\n"),
        ("rules.json", '{"relation": {"margin": 0.2},\n\t"count": {"seen": {"min_area": 0.01}, "per_category": 9}}'),
    ],
)
def test_rules_are_read_from_a_file(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    rules = changed(Rules(), read(tmp_path / name))
    assert rules.relation.margin == 0.2
    assert rules.count.seen.min_area == 0.01
    assert rules.count.per_category == 9


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("relation.margn=1", r"--rule: unknown rule 'relation.margn'; did you mean 'relation.margin'\?"),
        ("relation=1", r"unknown rule 'relation', which is a group; name one of relation.seen.min_area, "),
        ("relation.margin=wide", r"--rule: relation.margin is 'wide'; expected a number of 0 or more\."),
        ("relation.max_overlap=1.5", r"relation.max_overlap is '1.5'; expected a number from 0 to 1\."),
        ("count.max_count=2.5", r"count.max_count is '2.5'; expected a whole number from 1 to 1000\."),
        ("count.per_category=0", r"count.per_category is '0'; expected a whole number of 1 or more, or none\."),
        ("relation.draw_boxes=maybe", r"relation.draw_boxes is 'maybe'; expected true or false\."),
        ("relation.margin=nan", r"relation.margin is 'nan'; expected a number"),
        ("relation.margin=inf", r"relation.margin is 'inf'; expected a number"),
        ("relation.margin=none", r"relation.margin is 'none'; expected a number"),
        ("relation.margin", r"rule 'relation.margin' is no NAME=VALUE"),
        ("=3", r"rule '=3' is no NAME=VALUE"),
    ],
)
def test_a_wrong_change_is_refused(change, problem):
    with pytest.raises(DataError, match=problem):
        changed(Rules(), [parse(change)], "--rule")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[1]", "rules.yaml: holds a list; expected rules as a mapping"),
        ("a: [", "rules.yaml: no YAML or JSON that can be read"),
        ("relation: {margin: [1]}", r"relation.margin is \[1\]; expected a number"),
        ("relation: {margin: true}", "relation.margin is True; expected a number"),
        ("relation: {mrgin: 1}", "unknown rule 'relation.mrgin'; did you mean 'relation.margin'"),
    ],
)
def test_a_wrong_rules_file_is_refused(tmp_path, content, problem):
    (tmp_path / "rules.yaml").write_text(content)
    with pytest.raises(DataError, match=problem):
        changed(Rules(), read(tmp_path / "rules.yaml"), "rules.yaml")
    with pytest.raises(DataError, match=r"cannot read .*nothing.yaml: No such file"):
        read(tmp_path / "nothing.yaml")


# --- pictures that do not fit their annotations


def test_a_missing_picture_is_named_before_anything_is_written(inputs, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for picture in sorted(inputs[0].images.iterdir())[1:]:
        (images / picture.name).write_bytes(picture.read_bytes())
    given = [Input(Form.COCO, inputs[0].path, images)]
    with pytest.raises(
        ImageError,
        match=r'val2017.json: image "000000.png"(, annotations? \d+.*)?: .*000000.png: there is no such file',
    ):
        write_benchmark(given, tmp_path / "out", count_per_task=None, rules=SMALL)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cvbench.unfinished"]
    (images / "000000.png").write_bytes((inputs[0].images / "000000.png").read_bytes())
    assert write_benchmark(given, tmp_path / "out", count_per_task=None, rules=SMALL).num_questions > 50


def test_a_picture_of_another_size_is_named_with_its_annotations(inputs, tmp_path):
    for picture in inputs[0].images.iterdir():
        Image.new("RGB", (65, 64)).save(tmp_path / picture.name)
    with pytest.raises(
        ImageError, match=r'val2017.json: image "\d+.png".*: is 65 x 64 pixels; its annotations state 64 x 64'
    ):
        write_benchmark([Input(Form.COCO, inputs[0].path, tmp_path)], tmp_path / "out", count_per_task=4, rules=SMALL)


def test_a_folder_of_pictures_that_is_not_given_or_not_there_is_named(inputs, tmp_path):
    with pytest.raises(DataError, match=r"val2017.json: where are its pictures\?"):
        write_benchmark([Input(Form.COCO, inputs[0].path)], tmp_path / "out", count_per_task=4)
    with pytest.raises(DataError, match=r"the folder of its pictures, .*nowhere, is not there"):
        write_benchmark([Input(Form.COCO, inputs[0].path, tmp_path / "nowhere")], tmp_path / "out", count_per_task=4)
    with pytest.raises(DataError, match=r"cannot read .*nothing.json: No such file"):
        write_benchmark([Input(Form.COCO, tmp_path / "nothing.json", tmp_path)], tmp_path / "out", count_per_task=4)
    with pytest.raises(DataError, match=r"no annotations are given"):
        write_benchmark([], tmp_path / "out", count_per_task=4)
    with pytest.raises(DataError, match=r"holds no finished scenes"):
        write_benchmark([Input(Form.SCENES, scenes_without_manifest(tmp_path))], tmp_path / "out", count_per_task=4)
    with pytest.raises(DataError, match=r"masks hold numbers; give the table of their 150 classes"):
        write_benchmark([Input(Form.ADE20K_MASKS, tmp_path, tmp_path)], tmp_path / "out", count_per_task=4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: holds no annotation file of the form ade20k;"):
        write_benchmark([Input(Form.ADE20K, tmp_path / "empty")], tmp_path / "out", count_per_task=4)
    assert not (tmp_path / "out").exists()


def test_a_build_that_failed_before_it_wrote_leaves_the_folder_to_another(inputs, tmp_path):
    (tmp_path / "a.json").write_text('{"images": []}')
    with pytest.raises(DataError, match=r"a\.json"):
        write_benchmark([Input(Form.COCO, tmp_path / "a.json", tmp_path)], tmp_path / "out", count_per_task=4)
    assert write_benchmark(inputs, tmp_path / "out", count_per_task=4, rules=SMALL).num_questions == 16


def scenes_without_manifest(folder):
    (folder / "images").mkdir()
    for name in ("instances.json", "cuboids.json"):
        (folder / name).write_text('{"images": [], "annotations": [], "categories": []}')
    return folder


def test_rules_that_leave_nothing_say_which_did(inputs, tmp_path):
    rules = changed(
        SMALL, [(f"{task}.seen.min_area", 1) for task in ("count", "relation")] + [("count.absent_per_picture", 0)]
    )
    with pytest.raises(DataError, match=r"no question can be asked .* most often refused: thing: min_area \(\d+\)"):
        write_benchmark(inputs[:1], tmp_path, count_per_task=4, rules=rules)


def turned(path, orientation, size=(30, 20)):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, "red").save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_the_annotated_size_tells_whether_a_picture_was_turned_first(tmp_path, suffix):
    file = turned(tmp_path / f"a{suffix}", 6)
    assert annotated_view(file, Picture("a", 20, 30, ())) is View.UPRIGHT
    assert annotated_view(file, Picture("a", 30, 20, ())) is View.STORED
    assert annotated_view(turned(file, 1), Picture("a", 30, 20, ())) is View.PLAIN
    with pytest.raises(ImageError, match="is 20 x 30 pixels; its annotations state 30 x 30"):
        annotated_view(turned(file, 6), Picture("a", 30, 30, ()))
    for orientation, size in ((3, (30, 20)), (2, (30, 20)), (6, (20, 20))):
        with pytest.raises(ImageError, match=rf"EXIF orientation {orientation} turns it, and its size does not tell"):
            annotated_view(turned(file, orientation, size), Picture("a", *size, ()))


@pytest.mark.parametrize("upright", [True, False])
def test_boxes_are_drawn_on_the_picture_as_it_was_annotated(tmp_path, upright):
    """Two things side by side as annotated; the file is stored turned and says so, or says so and nobody heeded it."""
    pixels = np.zeros((90, 120, 3), dtype=np.uint8)
    pixels[20:70, 10:40], pixels[20:70, 80:110] = 255, 120
    annotated = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    stored = annotated.rotate(90, expand=True) if upright else annotated
    (tmp_path / "images").mkdir()
    for number in (1, 2):
        stored.save(tmp_path / "images" / f"{number}.png", exif=exif)
    boxes = {1: ("cat", [10, 20, 30, 50]), 2: ("dog", [80, 20, 30, 50])}
    content = {
        "images": [{"id": image, "file_name": f"{image}.png", "width": 120, "height": 90} for image in (1, 2)],
        "categories": [{"id": number, "name": name} for number, (name, _) in boxes.items()],
        "annotations": [
            {"id": 10 * image + number, "image_id": image, "category_id": number, "bbox": box, "iscrowd": 0}
            for number, (_, box) in boxes.items()
            for image in (1, 2)
        ],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    given = [Input(Form.COCO, tmp_path / "instances.json", tmp_path / "images")]
    assert write_benchmark(given, tmp_path / "out", count_per_task=None, rules=SMALL).num_questions >= 2
    for row in read_rows(tmp_path / "out"):
        assert np.array_equal(np.asarray(load_image(tmp_path / "out" / row["filename"])), pixels)


# --- names

OMNI3D = """air conditioner, backpack, barrier, basket, bathtub, bed, bicycle, bin, blanket, blinds, board,
bookcase, books, bottle, bowl, box, bus, cabinet, camera, candle, car, cart, cereal box, chair, clock,
clothes, coffee maker, computer, counter, cup, curtain, cyclist, desk, door, drawers, dresser, fan,
faucet, fire extinguisher, fire place, floor mat, flower pot, fume hood, hat, keyboard, lamp, laptop,
machine, microwave, mirror, monitor, motorcycle, mouse, mug, night stand, oven, pan, panda, pedestrian,
pen, person, phone, picture, pillow, plate, podium, pot, potted plant, printer, projector, rack,
refrigerator, saucer, shelves, shoes, sink, soundsystem, sofa, speakers, stationery, stool, stove,
suitcase, table, telephone, television, tissues, toaster oven, toilet, toilet paper, towel, toys,
traffic cone, trailer, tram, trash can, tray, tricycle, truck, utensils, van, vase, vegetables, wall,
window""".replace("\n", " ").split(", ")


@pytest.fixture(scope="module")
def coco_names(request):
    assets = request.getfixturevalue("assets")
    return [one["name"] for one in json.loads((assets / "coco" / "instances.json").read_text())["categories"]]


@pytest.fixture(scope="module")
def ade20k_names(request):
    assets = request.getfixturevalue("assets")
    with (assets / "ade20k" / "object150_info.csv").open(newline="") as file:
        return [first_in_table(row["Name"]) for row in csv.DictReader(file)]


IRREGULAR = {
    **{
        "person": "persons",
        "mouse": "mice",
        "knife": "knives",
        "sheep": "sheep",
        "skis": "skis",
        "scissors": "scissors",
    },
    **{
        "shelf": "shelves",
        "chest of drawers": "chests of drawers",
        "canopy": "canopies",
        "sky": "sky",
        "stairs": "stairs",
    },
    **{"broccoli": "broccoli", "bus": "buses", "bench": "benches", "couch": "couches", "sandwich": "sandwiches"},
    **{
        "wine glass": "wine glasses",
        "toothbrush": "toothbrushes",
        "glass": "glasses",
        "box": "boxes",
        "cereal box": "cereal boxes",
    },
}
UNCHANGED = {
    *("apparel", "earth", "food", "grass", "land", "sand", "sky", "water", "broccoli", "stationery", "toilet paper"),
    *("blinds", "books", "clothes", "drawers", "shelves", "shoes", "tissues", "toys", "utensils", "vegetables"),
    *("sheep", "skis", "scissors", "stairs", "speakers"),
}


def test_the_names_of_all_three_sources_have_the_right_number(coco_names, ade20k_names):
    assert (len(coco_names), len(ade20k_names)) == (80, 150)
    for name in {*coco_names, *ade20k_names, *OMNI3D}:
        expected = IRREGULAR.get(name) or (name if name in UNCHANGED else f"{name}s")
        assert plural(name) == expected
        assert verb(name) == ("are" if name.endswith("s") and name in UNCHANGED and name not in ("grass",) else "is")
        if name in UNCHANGED and name not in ("sheep", "scissors"):
            assert not is_countable(name), name


def test_names_have_the_right_article(coco_names, ade20k_names):
    for name in {*coco_names, *ade20k_names, *OMNI3D}:
        article = "" if name in UNCHANGED - {"sheep"} else "an " if name[0] in "aeiou" else "a "
        assert with_article(name) == f"{article}{name}"
    others = ("SUV", "hourglass", "utensil", "unicycle", "one-way sign", "european car")
    articles = ("an", "an", "a", "a", "a", "a")
    assert [with_article(name) for name in others] == [f"{a} {name}" for a, name in zip(articles, others, strict=True)]


def test_what_is_counted_has_a_number(coco_names, ade20k_names):
    uncounted = {name for name in {*coco_names, *ade20k_names, *OMNI3D} if not is_countable(name)}
    assert uncounted == {
        *(UNCHANGED - {"sheep", "scissors"}),
        *("wall", "floor", "ceiling", "road", "sidewalk", "sea", "field", "path", "runway", "dirt track"),
        "trade name",
    }
    assert all(are_akin(a, b) == are_akin(b, a) for a in coco_names for b in ade20k_names)


@pytest.mark.parametrize("module", [kinship, benchmark])
def test_the_examples_in_docstrings_hold(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
