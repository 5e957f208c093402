"""Every question of built benchmarks, judged anew from the raw annotations; and the judge itself, which can say no."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cambrian_cli.main import app
from cambrian_data.cvbench.benchmark import write_benchmark
from cambrian_data.cvbench.inputs import Form, Input
from cambrian_data.cvbench.summary import BenchmarkSummary
from cambrian_data.scenes import write_scenes
from tests.support.cvbench_oracle import Source, judge, kinds, specimens

ALL_TASKS = {"Count", "Relation", "Depth", "Distance"}


def build(sources: list[Source], output: Path, count: int | None, seed: int) -> BenchmarkSummary:
    """A benchmark from these sources with the default rules."""
    inputs = []
    for source in sources:
        has_pictures = source.form not in ("ade20k", "scenes")
        classes = source.classes if source.form == "ade20k-masks" else None
        inputs.append(Input(Form(source.form), source.path, source.images if has_pictures else None, classes))
    return write_benchmark(inputs, output, count_per_task=count, seed=seed)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=60, seed=7)
    return folder


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_questions_about_scenes_are_right(scenes: Path, tmp_path: Path, seed: int) -> None:
    source = Source("scenes", scenes)
    summary = build([source], tmp_path / "built", 16, seed)
    assert {task.task for task in summary.tasks if task.questions} == ALL_TASKS
    assert judge(tmp_path / "built", [source]) == []


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_questions_about_annotations_full_of_traps_are_right(tmp_path: Path, seed: int) -> None:
    sources = [
        specimens.write_data(tmp_path / "coco", "coco", specimens.coco_data(seed, 60)),
        specimens.write_data(tmp_path / "omni3d", "omni3d", specimens.omni3d_data(seed, 120)),
        specimens.write_masks(tmp_path / "masks", seed, 12),
    ]
    summary = build(sources, tmp_path / "built", 32, seed)
    assert {task.task for task in summary.tasks if task.questions} == ALL_TASKS
    assert {task.source for task in summary.tasks if task.questions} == {"COCO", "ADE20K", "Omni3D"}
    assert judge(tmp_path / "built", sources) == []


def asset_sources(assets: Path) -> list[Source]:
    """Real annotations of every form."""
    names = ("KITTI", "SUNRGBD", "nuScenes")
    files = [assets / "omni3d" / f"Omni3D_{name}_sample.json" for name in names]
    return [
        Source("coco", assets / "coco" / "instances.json", assets / "coco" / "images"),
        Source("ade20k", assets / "ade20k"),
        *(Source("omni3d", file, assets / "omni3d" / "images") for file in files),
    ]


def test_questions_about_photographs_are_right(assets: Path, tmp_path: Path) -> None:
    sources = asset_sources(assets)
    summary = build(sources, tmp_path / "built", 4, 0)
    assert {task.source for task in summary.tasks if task.questions} == {"COCO", "ADE20K", "Omni3D"}
    assert judge(tmp_path / "built", sources) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_all_questions_that_the_command_makes_of_photographs_are_right(assets: Path, tmp_path: Path, seed: int) -> None:
    sources = asset_sources(assets)
    options = [text for source in sources for text in (f"--{source.form}", as_option(source))]
    command = ["cvbench", "build", *options, "--output", str(tmp_path / "built"), "--seed", str(seed)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert judge(tmp_path / "built", sources) == []


def as_option(source: Source) -> str:
    """A source as the command takes it."""
    return str(source.path) if source.form == "ade20k" else f"{source.path}={source.images}"


# --- the judge can say no


@dataclass(frozen=True)
class Case:
    """A copy of a benchmark and of what it was made from, to be spoilt."""

    folder: Path
    scenes: Path

    def rows(self, task: str) -> list[dict[str, Any]]:
        """The rows of a task."""
        part = "2d" if task in ("Count", "Relation") else "3d"
        return [row for row in self.part(part) if row["task"] == task]

    def part(self, part: str) -> list[dict[str, Any]]:
        """The rows of a part."""
        return [json.loads(line) for line in (self.folder / f"test_{part}.jsonl").read_text().splitlines()]

    def change(self, task: str, change: Callable[[dict[str, Any]], object], *, every: bool = False) -> int:
        """Changes the first row of a task, or every; returns the idx of the first."""
        part = "2d" if task in ("Count", "Relation") else "3d"
        rows = self.part(part)
        chosen = [row for row in rows if row["task"] == task]
        for row in chosen if every else chosen[:1]:
            change(row)
        self.write(part, rows)
        return int(chosen[0]["idx"])

    def write(self, part: str, rows: list[dict[str, Any]]) -> None:
        """Writes the rows of a part."""
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (self.folder / f"test_{part}.jsonl").write_text(text)

    def change_picture(self, row: dict[str, Any], change: Callable[[np.ndarray], np.ndarray]) -> None:
        """Changes the pixels of a question's picture."""
        file = self.folder / row["filename"]
        pixels = np.asarray(Image.open(file).convert("RGB")).copy()
        Image.fromarray(change(pixels)).save(file)

    def change_manifest(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Changes cvbench.json."""
        file = self.folder / "cvbench.json"
        manifest = json.loads(file.read_text())
        change(manifest)
        file.write_text(json.dumps(manifest))

    def change_geometry(self, idx: int, change: Callable[[dict[str, Any]], object]) -> None:
        """Changes the line of one question."""
        file = self.folder / "geometry.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        change(next(line for line in lines if line["idx"] == idx))
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def subjects(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """The things of a question, as geometry.jsonl tells them."""
        lines = (self.folder / "geometry.jsonl").read_text().splitlines()
        found = next(line for line in map(json.loads, lines) if line["idx"] == row["idx"])["subjects"]
        assert isinstance(found, list)
        return found

    def change_raw(self, name: str, change: Callable[[dict[int, dict[str, Any]], dict[str, Any]], object]) -> None:
        """Changes an annotation file; the function is given the annotations by id, and everything."""
        file = self.scenes / name
        data = json.loads(file.read_text())
        change({one["id"]: one for one in data["annotations"]}, data)
        file.write_text(json.dumps(data))

    def judge(self) -> set[tuple[int | None, str]]:
        """What the judge says, without words."""
        return {(violation.idx, violation.rule) for violation in judge(self.folder, [Source("scenes", self.scenes)])}


@pytest.fixture(scope="module")
def sound(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "built"
    build([Source("scenes", scenes)], folder, 8, 3)
    return folder


@pytest.fixture
def case(sound: Path, scenes: Path, tmp_path: Path) -> Case:
    copy = tmp_path / "scenes"
    copy.mkdir()
    (copy / "images").symlink_to(scenes / "images")
    for name in ("instances.json", "cuboids.json"):
        shutil.copy(scenes / name, copy)
    return Case(shutil.copytree(sound, tmp_path / "built"), copy)


def next_letter(row: dict[str, Any]) -> None:
    """Names a wrong choice."""
    letters = "ABCDEF"[: len(row["choices"])]
    row["answer"] = f"({letters[(letters.index(row['answer'][1]) + 1) % len(letters)]})"


@pytest.mark.parametrize("task", sorted(ALL_TASKS))
def test_judge_sees_a_wrong_letter(case: Case, task: str) -> None:
    idx = case.change(task, next_letter)
    assert (idx, "answer") in case.judge()


def exchange_colours(row: dict[str, Any]) -> None:
    """Says red of what is blue."""
    question = row["question"].replace("red box", "RED").replace("blue box", "red box").replace("RED", "blue box")
    row["prompt"] = row["prompt"].replace(row["question"], question)
    row["question"] = question


def with_question(change: Callable[[str], str]) -> Callable[[dict[str, Any]], None]:
    """Changes the question, in the prompt as well."""

    def apply(row: dict[str, Any]) -> None:
        question = change(row["question"])
        assert question != row["question"]
        row["prompt"] = row["prompt"].replace(row["question"], question)
        row["question"] = question

    return apply


def with_choices(*choices: str) -> Callable[[dict[str, Any]], None]:
    """Puts other wrong choices beside the right one."""

    def apply(row: dict[str, Any]) -> None:
        right = row["choices"]["ABCDEF".index(row["answer"][1])]
        row["choices"] = [right, *choices]
        row["answer"] = "(A)"

    return apply


ROWS: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "a letter without a choice": ("Count", lambda row: row.update(answer="(F)"), "letter"),
    "a letter without parentheses": ("Count", lambda row: row.update(answer="A"), "letter"),
    "a choice twice": ("Relation", lambda row: row.update(choices=["left", "left"]), "choices"),
    "a number as a choice": ("Count", lambda row: row.update(choices=[1, 2, 3, 4]), "choices"),
    "distractors far from the truth": ("Count", with_choices("57", "58", "59"), "choices"),
    "too few distractors": ("Count", with_choices("57"), "choices"),
    "sides of two axes": ("Relation", with_choices("beside"), "choices"),
    "a choice that is not asked about": ("Depth", with_choices("elephant"), "choices"),
    "a prompt without letters": ("Distance", lambda row: row.update(prompt=row["question"]), "prompt"),
    "a category of another name": ("Count", lambda row: row.update(target_class="thing"), "target_class"),
    "a category in a question without count": ("Depth", lambda row: row.update(target_class="ball"), "target_class"),
    "a wrong size": ("Count", lambda row: row.update(target_size=1e9), "target_size"),
    "a picture that is not annotated": ("Relation", lambda row: row.update(source_filename="x.png"), "source_filename"),
    "a wrong part": ("Count", lambda row: row.update(type="3D"), "type"),
    "boxes that are not the things'": ("Depth", lambda row: row["bbox"].reverse(), "bbox"),
    "boxes in a flat question": ("Relation", lambda row: row.update(bbox=[[1, 2, 3, 4]]), "bbox"),
    "a field too many": ("Count", lambda row: row.update(hint="2"), "fields"),
    "a singular": ("Count", with_question(lambda text: text.replace("s are", " are")), "wording"),
    "a plural that is none": ("Count", with_question(lambda text: text.replace("s are", "es are")), "wording"),
    "a wrong verb": ("Relation", with_question(lambda text: text.replace("where is", "where are")), "wording"),
    "another question": ("Depth", with_question(lambda text: text.replace("closer", "further")), "wording"),
    "exchanged colours": ("Distance", exchange_colours, "wording"),
}


@pytest.mark.parametrize("name", ROWS)
def test_judge_sees_a_row_with(case: Case, name: str) -> None:
    task, change, rule = ROWS[name]
    idx = case.change(task, change)
    assert (idx, rule) in case.judge()


def test_judge_sees_tables_that_differ(case: Case) -> None:
    idx = case.change("Relation", lambda row: row.update(source_dataset="another"))
    assert case.judge() == {(idx, "parquet")}


def test_judge_sees_a_picture_that_is_not_the_one_in_the_table(case: Case) -> None:
    row = case.rows("Depth")[0]
    case.change_picture(row, lambda pixels: pixels[:, :, [2, 1, 0]])
    assert {(row["idx"], "parquet"), (row["idx"], "picture"), (row["idx"], "drawn")} <= case.judge()


def test_judge_sees_exchanged_boxes(case: Case) -> None:
    row = case.rows("Depth")[0]

    def exchange(pixels: np.ndarray) -> np.ndarray:
        red, blue = ((pixels == colour).all(axis=-1) for colour in ((255, 0, 0), (0, 0, 255)))
        pixels[red], pixels[blue] = (0, 0, 255), (255, 0, 0)
        return pixels

    case.change_picture(row, exchange)
    assert (row["idx"], "drawn") in case.judge()


def test_judge_sees_a_box_that_was_moved(case: Case) -> None:
    row = case.rows("Depth")[0]

    def move(pixels: np.ndarray) -> np.ndarray:
        original = np.asarray(Image.open(case.scenes / "images" / row["source_filename"]).convert("RGB"))
        changed = (pixels != original).any(axis=-1, keepdims=True)
        return np.where(np.roll(changed, 6, axis=1), np.roll(pixels, 6, axis=1), original)

    case.change_picture(row, move)
    assert (row["idx"], "drawn") in case.judge()


def test_judge_sees_a_box_that_no_word_speaks_of(case: Case) -> None:
    row = case.rows("Count")[0]

    def draw(pixels: np.ndarray) -> np.ndarray:
        pixels[10:30, 10] = pixels[10:30, 40] = pixels[10, 10:40] = pixels[30, 10:40] = (0, 255, 0)
        return pixels

    case.change_picture(row, draw)
    assert (row["idx"], "drawn") in case.judge()


def test_judge_sees_the_picture_of_another_question(case: Case) -> None:
    first, second = case.rows("Relation")[:2]
    shutil.copy(case.folder / second["filename"], case.folder / first["filename"])
    assert (first["idx"], "picture") in case.judge()


def test_judge_sees_a_picture_too_many(case: Case) -> None:
    row = case.rows("Relation")[0]
    shutil.copy(case.folder / row["filename"], case.folder / "img" / "left_over.png")
    assert case.judge() == {(None, "filename")}


def test_judge_sees_one_thing_less(case: Case) -> None:
    row = next(row for row in case.rows("Count") if row["target_size"] is not None)
    lost = case.subjects(row)[0]["id"]
    case.change_raw("instances.json", lambda by_id, data: data["annotations"].remove(by_id[lost]))
    assert (row["idx"], "answer") in case.judge()


RAW: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "a crowd in a count": ("Count", "instances.json", {"iscrowd": 1}, "crowd"),
    "a crowd with a place": ("Relation", "instances.json", {"iscrowd": 1}, "crowd"),
    "something tiny in a count": ("Count", "instances.json", {"area": 1}, "seen.min_area"),
    "something tiny with a place": ("Relation", "instances.json", {"area": 1}, "seen.min_area"),
    "something thin": ("Count", "instances.json", {"bbox": [1, 1, 2, 60]}, "seen.min_side"),
    "something hidden in a count": ("Count", "instances.json", {"visibility": 0.1}, "seen.min_visibility"),
    "something hidden in space": ("Depth", "cuboids.json", {"visibility": 0.1}, "seen.min_visibility"),
    "something cut off": ("Distance", "cuboids.json", {"truncation": 0.9}, "seen.max_truncation"),
    "something that is not valid": ("Depth", "cuboids.json", {"valid3D": False}, "drawn"),
    "something behind the camera": ("Distance", "cuboids.json", {"behind_camera": True}, "drawn"),
    "something elsewhere in the picture": ("Depth", "cuboids.json", {"bbox2D_tight": [1, 1, 9, 9]}, "drawn"),
    "something elsewhere in space": ("Depth", "cuboids.json", {"bbox3D_cam": [[1, 1, 900]] * 8}, "geometry"),
}


@pytest.mark.parametrize("name", RAW)
def test_judge_sees(case: Case, name: str) -> None:
    task, file, change, rule = RAW[name]
    row = next(row for row in case.rows(task) if case.subjects(row))
    number = case.subjects(row)[0]["id"]
    case.change_raw(file, lambda by_id, data: by_id[number].update(change))
    assert (row["idx"], rule) in case.judge()


def test_judge_sees_exchanged_cuboids(case: Case) -> None:
    row = case.rows("Depth")[0]
    first, second = (subject["id"] for subject in case.subjects(row))

    def exchange(by_id: dict[int, dict[str, Any]], data: dict[str, Any]) -> None:
        one, other = by_id[first], by_id[second]
        one["bbox3D_cam"], other["bbox3D_cam"] = other["bbox3D_cam"], one["bbox3D_cam"]

    case.change_raw("cuboids.json", exchange)
    assert (row["idx"], "answer") in case.judge()


def test_judge_sees_a_thing_that_its_name_does_not_tell_apart(case: Case) -> None:
    row = next(row for row in case.rows("Relation") if "red box" not in row["question"])
    subject = case.subjects(row)[0]["id"]

    def add(by_id: dict[int, dict[str, Any]], data: dict[str, Any]) -> None:
        data["annotations"].append(by_id[subject] | {"id": 10**6})

    case.change_raw("instances.json", add)
    assert (row["idx"], "unique") in case.judge()


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Source]]:
    folder = tmp_path_factory.mktemp("trap")
    sources = [
        specimens.write_data(folder / "coco", "coco", specimens.coco_data(1, 40)),
        specimens.write_data(folder / "omni3d", "omni3d", specimens.omni3d_data(1, 40)),
    ]
    build(sources, folder / "built", None, 0)
    return folder / "built", sources


STATED: dict[str, tuple[float, str]] = {
    "relation.margin": (0.9, "margin"),
    "relation.max_overlap": (-9, "max_overlap"),
    "relation.per_category": (0, "per_category"),
    "relation.seen.max_area": (0.001, "seen.max_area"),
    "depth.margin": (9, "margin"),
    "depth.max_overlap": (-1, "max_overlap"),
    "depth.seen.brightness": (1, "rules"),
    "distance.margin": (9, "margin"),
    "distance.per_picture": (0, "per_picture"),
    "count.max_count": (1, "max_count"),
    "count.num_choices": (5, "choices"),
    "count.seen.min_side": (60, "seen.min_side"),
}
"""Values that some questions break, and one rule that there is not."""


def state(path: str, value: float, rendered: bool) -> Callable[[dict[str, Any]], None]:
    """Says in the manifest that a rule had another value."""

    def apply(manifest: dict[str, Any]) -> None:
        *groups, last = path.split(".")
        held = manifest["request"]["rules"]["scenes" if rendered else "photographs"]
        for group in groups:
            held = held[group]
        held[last] = value

    return apply


@pytest.mark.parametrize("path", STATED)
def test_judge_holds_questions_against_the_rules_that_are_stated(case: Case, path: str) -> None:
    value, rule = STATED[path]
    case.change_manifest(state(path, value, rendered=True))
    assert rule in {broken for _, broken in case.judge()}


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("count.seen.people_inside", 500, "seen.people_inside"),
        ("count.seen.inside", 500, "seen.inside"),
        ("depth.max_covered", -1, "max_covered"),
        ("depth.only_unique", True, "unique"),
        ("distance.seen.min_visibility", 0.95, "seen.min_visibility"),
    ],
)
def test_judge_holds_photographs_against_their_rules(
    trap: tuple[Path, list[Source]], tmp_path: Path, path: str, value: float, rule: str
) -> None:
    folder, sources = trap
    spoilt = Case(shutil.copytree(folder, tmp_path / "built"), tmp_path)
    spoilt.change_manifest(state(path, value, rendered=False))
    assert kinds(judge(spoilt.folder, sources)) == {rule}


def test_judge_sees_letters_that_tell_the_answer(case: Case) -> None:
    def first(row: dict[str, Any]) -> None:
        right = row["choices"]["ABCDEF".index(row["answer"][1])]
        others = sorted(choice for choice in row["choices"] if choice != right)
        with_choices(*others)(row)

    case.change("Relation", first, every=True)
    assert (None, "letters") in case.judge()


def test_judge_sees_answers_that_are_always_the_same(case: Case) -> None:
    rows = [row for row in case.part("2d") if row["choices"]["ABCDEF".index(row["answer"][1])] not in ("left", "1")]
    case.write("2d", rows)
    assert {(None, "answers"), (None, "summary"), (None, "idx"), (None, "filename")} <= case.judge()


def test_judge_sees_a_question_that_is_asked_twice(case: Case) -> None:
    first, second = case.rows("Relation")[:2]
    again = first | {"idx": second["idx"], "filename": second["filename"]}
    shutil.copy(case.folder / first["filename"], case.folder / second["filename"])
    case.change_geometry(second["idx"], lambda line: line.update(copy_of(case, first), idx=second["idx"]))
    case.write("2d", [again if row["idx"] == second["idx"] else row for row in case.part("2d")])
    assert (second["idx"], "fact") in case.judge()


def copy_of(case: Case, row: dict[str, Any]) -> dict[str, Any]:
    """The line of geometry.jsonl about a question."""
    lines = (case.folder / "geometry.jsonl").read_text().splitlines()
    found = next(line for line in map(json.loads, lines) if line["idx"] == row["idx"])
    assert isinstance(found, dict)
    return found


GEOMETRY: dict[str, Callable[[dict[str, Any]], object]] = {
    "a box": lambda line: line["subjects"][0]["box"].reverse(),
    "a vertex": lambda line: line["subjects"][1]["vertices"].reverse(),
    "a distance": lambda line: line["subjects"][1].update(distance=[1, 2]),
    "a category": lambda line: line["subjects"][0].update(category="elephant"),
    "another thing": lambda line: line["subjects"][0].update(id=10**6),
    "the camera": lambda line: line.update(K=None),
    "the size": lambda line: line.update(width=1),
    "the others": lambda line: line.update(others=[{"category": "elephant", "box": [1, 2, 3, 4]}]),
}


@pytest.mark.parametrize("name", GEOMETRY)
@pytest.mark.parametrize("task", ["Depth", "Distance"])
def test_judge_sees_geometry_that_is_wrong_in(case: Case, task: str, name: str) -> None:
    idx = case.rows(task)[0]["idx"]
    case.change_geometry(idx, GEOMETRY[name])
    assert case.judge() == {(idx, "geometry")}


SUMMARY: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "questions in all": (lambda summary: summary.update(num_questions=1), "summary"),
    "questions of a task": (lambda summary: summary["tasks"][0].update(questions=99), "summary"),
    "letters": (lambda summary: summary["tasks"][1]["letters"].update(A=99), "summary"),
    "answers": (lambda summary: summary["tasks"][2]["answers"].update(red=99), "summary"),
    "categories": (lambda summary: summary["tasks"][3]["categories"].update(elephant=1), "summary"),
    "candidates": (lambda summary: summary["tasks"][0].update(candidates=99999), "refusals"),
    "crowds": (lambda summary: summary["tasks"][1]["rejections"].update({"thing: crowd": 1}), "refusals"),
    "annotations": (lambda summary: summary["files"][0].update(things=1), "files"),
}


@pytest.mark.parametrize("name", SUMMARY)
def test_judge_sees_a_manifest_that_miscounts(case: Case, name: str) -> None:
    change, rule = SUMMARY[name]
    case.change_manifest(lambda manifest: change(manifest["summary"]))
    found = case.judge()
    assert (None, rule) in found
    assert {idx for idx, _ in found} == {None}


def test_judge_finds_nothing_in_what_was_not_spoilt(case: Case) -> None:
    assert case.judge() == set()
