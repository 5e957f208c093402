"""CV-Bench on disk: annotation files and what can be wrong with them, the hub's layout, training records."""

import doctest
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from cambrian_data import read_records
from cambrian_data.boxes import Box
from cambrian_data.cvbench import (
    RelationRules,
    Rules,
    SpaceRules,
    names,
    reasoned_answer,
    scene_questions,
    write_scene_benchmark,
    write_scene_records,
)
from cambrian_data.cvbench import questions as wording
from cambrian_data.cvbench.annotations import Cuboid, Instance, Picture
from cambrian_data.cvbench.build import build, candidates_2d, candidates_3d
from cambrian_data.cvbench.candidates import Candidate, Task
from cambrian_data.cvbench.drawing import draw_boxes
from cambrian_data.cvbench.makers import count
from cambrian_data.cvbench.names import is_plural, one, plural
from cambrian_data.cvbench.pictures import show
from cambrian_data.cvbench.questions import Question, ask, choice_text
from cambrian_data.cvbench.sources import coco, omni3d
from cambrian_data.errors import DataError, ImageError
from cambrian_data.images import load_image
from cambrian_data.scenes import write_scenes
from cambrian_eval.scoring.letters import extract_letter
from cambrian_eval.tasks.cvbench import read_questions
from tests.support.folders import contents, read_rows

SHARED = Path(__file__).parents[3] / "shared"
FIELDS = [
    *("idx", "type", "task", "question", "choices", "answer", "prompt", "filename", "source", "source_dataset"),
    *("source_filename", "target_class", "target_size", "bbox"),
]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=80, seed=2)
    return folder


@pytest.fixture(scope="module")
def benchmark(scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    summary = write_scene_benchmark(scenes, folder, count_per_task=20, seed=1)
    return folder, summary


@pytest.fixture(scope="module")
def questions(scenes):
    return scene_questions(scenes, count_per_task=None, seed=1).questions


# --- the hub's layout


def test_rows_have_the_published_fields(benchmark):
    folder, summary = benchmark
    found = read_rows(folder)
    assert [row["idx"] for row in found] == list(range(80))
    for row in found:
        assert list(row) == FIELDS
        assert row["answer"] in ("(A)", "(B)", "(C)", "(D)")
        assert all(isinstance(choice, str) for choice in row["choices"])
        lines = row["prompt"].split("\n")
        assert lines[0] == f"{row['question']} Select from the following choices."
        assert lines[1:] == [f"({'ABCD'[n]}) {choice}" for n, choice in enumerate(row["choices"])]
        assert row["source"] == f"Scenes{row['type']}"
        assert load_image(folder / row["filename"]).size == (64, 64)
        assert (row["target_class"] is not None) == (row["task"] == "Count")
        assert (row["bbox"] is not None) == (row["type"] == "3D")
    assert found[0]["filename"] == "img/2D/count/scenes2d_0.png"
    assert found[79]["filename"] == "img/3D/distance/scenes3d_19.png"
    assert {task: part.questions for task, part in summary.tasks.items()} == dict.fromkeys(Task, 20)


def test_the_evaluation_reads_it(benchmark):
    folder, _ = benchmark
    read = read_questions(folder, parts=("2D", "3D"))
    found = read_rows(folder)
    assert [question.text for question in read] == [row["prompt"] for row in found]
    assert [question.answers[0] for question in read] == [row["answer"][1] for row in found]
    assert [question.task for question in read] == [row["task"] for row in found]


def test_boxes_are_drawn_around_the_things_and_nothing_else_is_touched(scenes, benchmark):
    folder, _ = benchmark
    colours = np.array([(255, 0, 0), (0, 0, 255), (0, 255, 0)])
    for row in read_rows(folder):
        plain = np.asarray(load_image(scenes / "images" / row["source_filename"]))
        shown = np.asarray(load_image(folder / row["filename"]))
        changed = (plain != shown).any(axis=2)
        boxes = row["bbox"] or []
        if row["task"] == "Count":
            assert not changed.any()
        for colour in (0, 1, 2):
            expected = colour < len(boxes) or f"{('red', 'blue', 'green')[colour]} box" in row["question"]
            assert (shown == colours[colour]).all(axis=2).any() == expected
        assert {tuple(pixel) for pixel in shown[changed]} <= {tuple(colour) for colour in colours}
        for left, top, right, bottom in boxes:
            inner = np.s_[int(top) + 1 : int(bottom) - 1, int(left) + 1 : int(right) - 1]
            assert changed[inner].mean() < 0.4  # only another thing's line may cross it


def test_lines_lie_outside_the_thing_and_inside_the_picture():
    picture = Image.new("RGB", (20, 12))
    drawn = np.asarray(draw_boxes(picture, {"red": Box(5, 4, 9, 8), "blue": Box(15, 0, 20, 6)}))
    red, blue = (drawn == (255, 0, 0)).all(axis=2), (drawn == (0, 0, 255)).all(axis=2)
    assert not red[4:8, 5:9].any()
    assert red[3, 4:10].all()
    assert red[8, 4:10].all()
    assert red[3:9, 4].all()
    assert red[3:9, 9].all()
    assert blue[0, 14:20].all()
    assert blue[0:7, 19].all()


def test_same_arguments_give_the_same_bytes_and_another_seed_others(scenes, benchmark, tmp_path):
    folder, summary = benchmark
    again = write_scene_benchmark(scenes, tmp_path / "again", count_per_task=20, seed=1)
    other = write_scene_benchmark(scenes, tmp_path / "other", count_per_task=20, seed=2)
    assert contents(tmp_path / "again") == contents(folder)
    assert again == summary
    assert other.content_hash != summary.content_hash


# --- made once


def test_a_finished_folder_is_not_touched_again(scenes, benchmark):
    folder, summary = benchmark
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write_scene_benchmark(scenes, folder, count_per_task=20, seed=1) == summary
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert not (folder / "cvbench.unfinished").exists()


def test_an_interrupted_benchmark_is_made_whole(scenes, benchmark, tmp_path):
    class InterruptionError(Exception):
        pass

    def interrupt(done, count):
        if done == 33:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        write_scene_benchmark(scenes, tmp_path, count_per_task=20, seed=1, progress=interrupt)
    assert not (tmp_path / "cvbench.json").exists()
    with pytest.raises(DataError, match="holds unfinished questions of another request"):
        write_scene_benchmark(scenes, tmp_path, count_per_task=20, seed=3)
    write_scene_benchmark(scenes, tmp_path, count_per_task=20, seed=1)
    assert contents(tmp_path) == contents(benchmark[0])


def test_a_folder_of_something_else_is_refused(scenes, benchmark, tmp_path):
    folder, _ = benchmark
    with pytest.raises(DataError, match=r"holds other questions: seed 1, not 2; choose another folder"):
        write_scene_benchmark(scenes, folder, count_per_task=20, seed=2)
    with pytest.raises(DataError, match=r"holds other questions: .*format_prompt null, not true"):
        write_scene_records(scenes, folder, count_per_task=20, seed=1)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty and holds no questions"):
        write_scene_benchmark(scenes, tmp_path, count_per_task=20)
    (tmp_path / "cvbench.json").write_text("[]")
    with pytest.raises(DataError, match="is not a manifest of questions"):
        write_scene_benchmark(scenes, tmp_path, count_per_task=20)


def test_files_missing_from_a_finished_folder_are_noticed(scenes, tmp_path):
    write_scene_benchmark(scenes, tmp_path, count_per_task=2)
    (tmp_path / "img/2D/count/scenes2d_1.png").unlink()
    with pytest.raises(DataError, match=r"1 of the 8 pictures in .*img are missing from finished questions"):
        write_scene_benchmark(scenes, tmp_path, count_per_task=2)
    (tmp_path / "test_3d.jsonl").unlink()
    with pytest.raises(DataError, match=r"test_3d.jsonl is missing from finished questions"):
        write_scene_benchmark(scenes, tmp_path, count_per_task=2)


def test_scenes_must_be_finished_and_arguments_in_range(scenes, tmp_path):
    with pytest.raises(DataError, match="holds no finished scenes"):
        write_scene_benchmark(tmp_path, tmp_path / "out", count_per_task=20)
    with pytest.raises(DataError, match="count_per_task is 0"):
        write_scene_benchmark(scenes, tmp_path / "out", count_per_task=0)
    with pytest.raises(DataError, match="seed is -1"):
        write_scene_records(scenes, tmp_path / "out", count_per_task=1, seed=-1)
    assert not (tmp_path / "out").exists()


def test_a_task_without_questions_is_an_error_that_names_the_file(scenes, tmp_path):
    rules = Rules(distance=SpaceRules(margin=1e6))
    with pytest.raises(DataError, match=r"cuboids.json: no Distance question can be asked; the rules allow 0"):
        write_scene_benchmark(scenes, tmp_path / "out", count_per_task=20, rules=rules)


# --- training records


@pytest.mark.parametrize("format_prompt", [True, False])
@pytest.mark.parametrize("reasoning", [True, False])
def test_records_ask_like_the_benchmark_and_answer_right(scenes, benchmark, tmp_path, format_prompt, reasoning):
    options = {"count_per_task": 20, "seed": 1, "format_prompt": format_prompt, "reasoning": reasoning}
    summary = write_scene_records(scenes, tmp_path, **options)
    records = list(read_records(tmp_path / "records.jsonl"))
    found = read_rows(benchmark[0])
    assert len(records) == summary.num_questions == 80
    assert len({record.id for record in records}) == 80
    for record, row in zip(records, found, strict=True):
        asked, answered = (message["content"][-1]["text"] for message in record.messages)
        suffix = "\nAnswer with the option's letter from the given choices directly." if format_prompt else ""
        assert asked == row["prompt"] + suffix
        assert (answered == row["answer"][1]) != reasoning
        assert f"({extract_letter(answered, row['choices']).letter})" == row["answer"]
        assert record.source == row["source"]
        shown = load_image(tmp_path / record.images[0])
        assert shown.tobytes() == load_image(benchmark[0] / row["filename"]).tobytes()
    assert len(list((tmp_path / "img").rglob("*.png"))) == summary.num_pictures == len({r.images[0] for r in records})


def test_the_letter_is_read_from_every_reasoned_answer(questions):
    for question in questions:
        found = extract_letter(reasoned_answer(question), question.choices)
        assert (found.letter, found.rule) == (question.letter, "declared letter")


def seen(number, name, *box):
    return Instance(number, name, Box(*box), 16.0)


def solid(number, name, box, x, y, z):
    """A cube of one metre around a point."""
    corners = [(x + dx, y + dy, z + dz) for dx in (-0.5, 0.5) for dy in (-0.5, 0.5) for dz in (-0.5, 0.5)]
    return Cuboid(number, name, Box(*box), tuple(corners))


def answered(task, subjects, answer, choices, category="ball", boxed=True):
    """The reasoned answer about a picture in which x counts tens of pixels and y twenties."""
    picture = Picture("a.png", 160, 320, tuple(subjects))
    candidate = Candidate(task, picture, (category,), tuple(subjects), (), answer, (boxed,) * len(subjects))
    return reasoned_answer(Question(candidate, choices, choices.index(choice_text(candidate, answer))))


BALL, HIGHER = seen(1, "ball", 20, 60, 30, 80), seen(2, "ball", 20, 20, 30, 40)
BOOKS, APPLE = seen(3, "books", 80, 100, 90, 110), seen(4, "apple", 130, 250, 160, 270)


def test_a_count_names_every_thing_from_left_to_right():
    other = seen(5, "ball", 130, 250, 160, 270)
    assert answered(Task.COUNT, (other, BALL, HIGHER), "3", ("1", "2", "3")) == (
        "I see a ball at x2 y1, a ball at x2 y3 and a ball at x14 y13, 3 in all. The answer is (C)."
    )
    assert answered(Task.COUNT, (APPLE,), "1", ("1", "2"), "apple") == (
        "I see an apple at x14 y13, 1 in all. The answer is (A)."
    )
    assert answered(Task.COUNT, (BOOKS,), "1", ("0", "1"), "books") == (
        "I see books at x8 y5, 1 in all. The answer is (B)."
    )


def test_a_count_of_none_names_what_is_not_there():
    assert answered(Task.COUNT, (), "0", ("0", "1")) == "I see no balls, 0 in all. The answer is (A)."
    assert answered(Task.COUNT, (), "0", ("1", "0"), "books") == "I see no books, 0 in all. The answer is (B)."


def test_a_relation_follows_from_both_places():
    assert answered(Task.RELATION, (BALL, BOOKS), "left", ("left", "right"), boxed=False) == (
        "I see the ball at x2 y3 and the books at x8 y5. Seen from the books, the ball is left. The answer is (A)."
    )
    assert answered(Task.RELATION, (BOOKS, BALL), "right", ("left", "right")) == (
        "I see the books in the red box at x8 y5 and the ball in the blue box at x2 y3. "
        "Seen from the ball, the books are right. The answer is (B)."
    )


CLOSE = solid(1, "ball", (20, 60, 30, 80), 0, 0, 7), solid(2, "books", (80, 100, 90, 110), 3, 0, 11)


def test_depth_is_told_by_both_depths():
    assert answered(Task.DEPTH, CLOSE, "red", ("books", "ball")) == (
        "I see the ball in the red box at x2 y3 z17 and the books in the blue box at x8 y5 z21. "
        "Closer to the camera is the ball. The answer is (B)."
    )
    assert answered(Task.DEPTH, CLOSE[::-1], "red", ("books", "ball")) == (
        "I see the books in the red box at x8 y5 z21 and the ball in the blue box at x2 y3 z17. "
        "Closer to the camera are the books. The answer is (A)."
    )


def test_distance_is_told_in_metres_between_the_middles():
    lamp = solid(3, "lamp", (130, 250, 160, 270), 0, 12, 2)  # 13 m from the ball; the books are 5 m from it
    assert answered(Task.DISTANCE, (*CLOSE, lamp), "blue", ("lamp", "books")) == (
        "I see the ball in the red box at x2 y3 z17, the books in the blue box at x8 y5 z21 and the lamp in the green "
        "box at x14 y13 z6. From the ball, the books are 5 metres away and the lamp is 13 metres away. "
        "Closer to the ball are the books. The answer is (B)."
    )
    assert "the books are 5 metres away and the lamp is 4 metres away. Closer to the ball is the lamp." in answered(
        Task.DISTANCE, (*CLOSE, solid(3, "lamp", (130, 250, 160, 270), 0, 0, 3.4)), "green", ("lamp", "books")
    )


# --- wording


def test_the_published_items_are_worded_as_published():
    items = SHARED / "assets" / "bench" / "cvbench_items.jsonl"
    if not items.is_file():
        pytest.skip("needs ../shared/assets/bench/cvbench_items.jsonl, which is absent")

    def asked(task, names, boxed):
        things = tuple(Instance(n, name, Box(0, 0, 9, 9), 81.0) for n, name in enumerate(names))
        return ask(Candidate(task, Picture("a.png", 9, 9, things), names, things, (), "", boxed))

    published = {item["task"]: item["question"] for item in map(json.loads, items.read_text().splitlines())}
    assert published == {
        "Count": asked(Task.COUNT, ("train",), (False,)),
        "Relation": asked(Task.RELATION, ("book", "couch"), (True, False)),
        "Depth": asked(Task.DEPTH, ("sink", "bottle"), (True, True)),
        "Distance": asked(Task.DISTANCE, ("desk", "shelves", "books"), (True, True, True)),
    }
    assert asked(Task.RELATION, ("books", "bus"), (False, False)) == (
        "Considering the relative positions of the books and the bus in the image provided, "
        "where are the books located with respect to the bus?"
    )


@pytest.mark.parametrize(
    ("name", "several"),
    [
        ("train", "trains"),
        ("wine glass", "wine glasses"),
        ("person", "persons"),
        ("knife", "knives"),
        ("bus", "buses"),
        ("toothbrush", "toothbrushes"),
        ("bench", "benches"),
        ("toy", "toys"),
        ("berry", "berries"),
        ("sheep", "sheep"),
        ("skis", "skis"),
        ("mouse", "mice"),
        ("couch", "couches"),
        ("box", "boxes"),
        ("bookshelf", "bookshelves"),
        ("books", "books"),
    ],
)
def test_plurals(name, several):
    assert plural(name) == several


def test_articles():
    names = ("apple", "bus", "scissors", "orange", "umbrella", "uniform")
    assert [one(name) for name in names] == ["an apple", "a bus", "scissors", "an orange", "an umbrella", "a uniform"]
    assert [name for name in names if is_plural(name)] == ["scissors"]


# --- real annotation files


def test_real_coco_annotations_give_questions():
    file = SHARED / "assets" / "coco" / "instances.json"
    if not file.is_file():
        pytest.skip("needs ../shared/assets/coco, which is absent")
    made = build(file, candidates_2d(coco.read(file), Rules()), count_per_task=12, seed=0, rules=Rules())
    for questions in made.values():
        assert len(questions) == 12
        for question in questions:
            assert load_image_from(show(question, file.parent / "images")).size[0] > 200


def test_real_omni3d_annotations_give_depth_questions():
    file = SHARED / "assets" / "omni3d" / "Omni3D_nuScenes_sample.json"
    if not file.is_file():
        pytest.skip("needs ../shared/assets/omni3d, which is absent")
    found = candidates_3d(omni3d.read(file), Rules())
    assert len(found[Task.DEPTH]) >= 2


def load_image_from(content):
    return Image.open(io.BytesIO(content))


# --- what can be wrong with a file


def edit(file, change):
    data = json.loads(file.read_text())
    change(data)
    return json.dumps(data)


def drop(entries, number, key):
    return lambda data: data[entries][number].pop(key)


def put(entries, number, key, value):
    return lambda data: data[entries][number].update({key: value})


def double(entries):
    return lambda data: data[entries].append(dict(data[entries][0]))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (drop("annotations", 3, "bbox"), r'image "00000\d.png", annotation \d+: .*missing required field `bbox`'),
        (drop("annotations", 3, "image_id"), r"image null, annotation \d+: .*missing required field `image_id`"),
        (drop("categories", 1, "name"), r"category 2: .*missing required field `name`"),
        (drop("images", 0, "width"), r'image "000000.png": .*missing required field `width`'),
        (put("annotations", 0, "bbox", [1, 2, "x", 4]), r'Expected `float`, got `str`, in the field "bbox\[2\]"'),
        (put("annotations", 0, "bbox", [1, 2, float("nan"), 4]), r'annotation 1: "bbox" is .*expected finite numbers'),
        (put("annotations", 0, "bbox", [1, 2, -3, 4]), r'annotation 1: "bbox" has the edges .*must not be negative'),
        (put("annotations", 0, "bbox", [1, 2, 90, 4]), r'"bbox" has the edges .*outside the picture of 64 x 64'),
        (put("annotations", 0, "area", float("inf")), r'annotation 1: "area" is inf'),
        (put("annotations", 0, "image_id", 777), r'annotation 1: "image_id" is 777, which is no image of this file'),
        (put("annotations", 0, "category_id", 77), r'annotation 1: "category_id" is 77, which is no category'),
        (double("annotations"), r'annotation 1: "id" 1 occurs twice'),
        (double("images"), r'image "id" 1 occurs twice'),
        (lambda data: data.pop("categories"), r'a JSON object without the list "categories"; expected a COCO-format'),
        (put("categories", 0, "name", " "), r'category 1: the name " " is empty'),
        (put("categories", 0, "name", " cat"), r'category 1: the name " cat" has white space around it'),
        (put("categories", 0, "name", "laptop\n(A) x"), r"category 1: the name .* a control character in it"),
        (put("images", 0, "height", 0), r'"width" and "height" are 64 and 0'),
    ],
)
def test_a_broken_instances_file_names_file_image_and_field(scenes, tmp_path, change, problem):
    file = tmp_path / "instances.json"
    file.write_text(edit(scenes / "instances.json", change))
    with pytest.raises(DataError, match=rf"instances.json: .*{problem}|instances.json: {problem}"):
        coco.read(file)


def spoil_vertex(value):
    def change(data):
        data["annotations"][2]["bbox3D_cam"][5][1] = value

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            spoil_vertex(float("nan")),
            r'image "000000.png", annotation 3: "bbox3D_cam" holds a number that is not finite',
        ),
        (
            spoil_vertex("far"),
            r'image "000000.png", annotation 3: Expected `float \| null`, got `str`, in the field "bbox3D_cam',
        ),
        (drop("annotations", 2, "bbox3D_cam"), r"annotation 3: .*missing required field `bbox3D_cam`"),
        (put("annotations", 2, "bbox3D_cam", [[0, 0, 1]]), r"annotation 3: Expected `array` of length 8"),
        (put("annotations", 2, "bbox2D_tight", [5, 5, 3, 9]), r'"bbox2D_tight" has the edges'),
        (put("annotations", 2, "visibility", float("nan")), r'annotation 3: "visibility" is nan'),
    ],
)
def test_a_broken_cuboids_file_names_file_image_and_field(scenes, tmp_path, change, problem):
    file = tmp_path / "cuboids.json"
    file.write_text(edit(scenes / "cuboids.json", change))
    with pytest.raises(DataError, match=rf"cuboids.json: .*{problem}"):
        omni3d.read(file)


def test_a_file_of_another_kind_is_named(scenes, tmp_path):
    with pytest.raises(DataError, match="this is a COCO-format instances file; expected an Omni3D-format cuboids file"):
        omni3d.read(scenes / "instances.json")
    with pytest.raises(DataError, match="this is an Omni3D-format cuboids file; expected a COCO-format instances"):
        coco.read(scenes / "cuboids.json")
    for content, problem in (("[]", "this is a JSON list"), ("{", "malformed JSON"), ('"a"', "this is a JSON value")):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(DataError, match=problem):
            coco.read(tmp_path / "a.json")
    with pytest.raises(DataError, match=r"cannot read .*nothing.json: No such file"):
        coco.read(tmp_path / "nothing.json")


def test_cuboids_marked_invalid_are_left_out_even_with_nan(scenes, tmp_path):
    def change(data):
        spoil_vertex(float("nan"))(data)
        data["annotations"][2]["valid3D"] = False

    file = tmp_path / "cuboids.json"
    file.write_text(edit(scenes / "cuboids.json", change))
    things = {thing.id for picture in omni3d.read(file).pictures for thing in picture.things}
    assert things == {t.id for p in omni3d.read(scenes / "cuboids.json").pictures for t in p.things} - {3}


def test_a_missing_picture_or_one_of_another_size_is_named(scenes, questions, tmp_path):
    with pytest.raises(ImageError, match=r"00\d+.png: there is no such file"):
        show(questions[0], tmp_path)
    name = questions[0].candidate.picture.file_name
    Image.new("RGB", (65, 64)).save(tmp_path / name)
    with pytest.raises(ImageError, match=rf"{name}: is 65 x 64 pixels; its annotations state 64 x 64"):
        show(questions[0], tmp_path)


def test_the_manifest_says_what_was_asked_and_with_which_rules(scenes, tmp_path):
    rules = Rules(relation=RelationRules(draw_boxes=False))
    summary = write_scene_benchmark(scenes, tmp_path, count_per_task=3, rules=rules)
    manifest = json.loads((tmp_path / "cvbench.json").read_text())
    assert manifest["request"]["rules"]["relation"]["draw_boxes"] is False
    assert manifest["request"]["count_per_task"] == 3
    assert manifest["summary"] == msgspec.to_builtins(summary)
    assert not any("box" in row["question"] for row in read_rows(tmp_path) if row["task"] == "Relation")


# --- what is written about it


def test_the_readme_example_runs_without_torch(scenes, tmp_path):
    readme = Path(__file__).parents[2] / "packages" / "cambrian-data" / "README.md"
    code = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), flags=re.DOTALL)[1]
    (tmp_path / "scenes").symlink_to(scenes)
    code += "\nimport sys; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "{'A': 5, 'B': 5, 'C': 5, 'D': 5}"


@pytest.mark.parametrize("module", [names, wording, count])
def test_the_examples_in_docstrings_hold(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
