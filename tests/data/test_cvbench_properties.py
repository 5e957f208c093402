"""Properties of the questions that hold for any annotations: mirrored, scaled, permuted, and under stricter rules."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cambrian_data.cvbench import Candidate, Rules, Task
from cambrian_data.cvbench.benchmark import write_benchmark
from cambrian_data.cvbench.build import candidates_2d, candidates_3d
from cambrian_data.cvbench.inputs import Form, Input
from cambrian_data.cvbench.rulebook import changed
from cambrian_data.cvbench.rules import stated
from cambrian_data.cvbench.sources import coco, omni3d
from cambrian_data.scenes import write_scenes
from tests.support.cvbench_oracle import Source, answers, raw, seen, specimens
from tests.support.cvbench_oracle.specimens import WIDTH

Facts = frozenset[tuple[object, ...]]
SEEDS = st.integers(min_value=0, max_value=10**6)
FEW = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NUM_PICTURES = 12
OTHER_SIDE = {"left": "right", "right": "left"}


def loose() -> Rules:
    """Rules that many candidates pass, without the pool: it is a cap, and what is under a cap may take a free place.

    Bounds have four digits, which no sum of the specimens' coordinates can equal: at a tie, rounding would decide.
    """
    changes = {
        "count.seen.min_area": 0.001,
        "count.seen.min_side": 4.0037,
        "count.max_count": 6,
        "count.seen.people_inside": 0,
        "relation.seen.people_inside": 0,
        "relation.seen.min_visibility": 0.3,
        "relation.pool_per_picture": None,
        "relation.margin": 0.1003,
        "relation.max_overlap": 0.1037,
        "relation.seen.min_area": 0.002,
        "relation.seen.min_side": 4.0037,
        "depth.pool_per_picture": None,
        "distance.pool_per_picture": None,
        "depth.seen.min_side": 4.0037,
        "distance.seen.min_side": 4.0037,
        "depth.margin": 0.02,
        "distance.margin": 0.02,
    }
    return changed(Rules.photographs(), changes.items())


def facts(candidates: list[Candidate[Any]], side: Callable[[str], str] = str) -> Facts:
    """What each candidate asks of which things, and the answer, with sides renamed."""
    return frozenset(
        (
            one.picture.file_name,
            one.category,
            tuple(thing.id for thing in one.subjects),
            frozenset(frozenset(map(side, group)) for group in one.groups),
            side(one.answer),
            one.boxed,
        )
        for one in candidates
    )


def flat(folder: Path, data: dict[str, Any], rules: Rules) -> dict[Task, list[Candidate[Any]]]:
    """Candidates of COCO instances."""
    return candidates_2d(coco.read(specimens.write_data(folder, "coco", data, with_pictures=False).path), rules)


def solid(folder: Path, data: dict[str, Any], rules: Rules) -> dict[Task, list[Candidate[Any]]]:
    """Candidates of Omni3D cuboids."""
    return candidates_3d(omni3d.read(specimens.write_data(folder, "omni3d", data, with_pictures=False).path), rules)


@FEW
@given(seed=SEEDS)
def test_mirroring_exchanges_left_and_right_and_nothing_else(tmp_path: Path, seed: int) -> None:
    data = specimens.coco_data(seed, NUM_PICTURES)
    before = flat(tmp_path, data, loose())
    for annotation in data["annotations"]:
        left, top, width, height = annotation["bbox"]
        annotation["bbox"] = [WIDTH - left - width, top, width, height]
    after = flat(tmp_path, data, loose())
    assume(before[Task.RELATION] and before[Task.COUNT])
    mirrored = facts(before[Task.RELATION], lambda side: OTHER_SIDE.get(side, side))
    assert facts(after[Task.RELATION]) == mirrored
    assert facts(after[Task.COUNT]) == facts(before[Task.COUNT])


@FEW
@given(seed=SEEDS)
def test_mirroring_exchanges_left_and_right_in_a_pool_too(tmp_path: Path, seed: int) -> None:
    rules = changed(loose(), [("relation.pool_per_picture", 6)])
    data = specimens.coco_data(seed, NUM_PICTURES)
    before = flat(tmp_path, data, rules)
    for annotation in data["annotations"]:
        left, top, width, height = annotation["bbox"]
        annotation["bbox"] = [WIDTH - left - width, top, width, height]
    mirrored = facts(before[Task.RELATION], lambda side: OTHER_SIDE.get(side, side))
    assert facts(flat(tmp_path, data, rules)[Task.RELATION]) == mirrored


@FEW
@given(seed=SEEDS, margin=st.floats(min_value=0.1, max_value=0.6))
def test_what_is_in_a_pool_and_still_allowed_stays_in_it(tmp_path: Path, seed: int, margin: float) -> None:
    data = specimens.coco_data(seed, NUM_PICTURES)
    small = changed(loose(), [("relation.pool_per_picture", 6)])
    drawn = facts(flat(tmp_path, data, small)[Task.RELATION])
    allowed = facts(flat(tmp_path, data, changed(loose(), [("relation.margin", margin)]))[Task.RELATION])
    assert drawn & allowed <= facts(flat(tmp_path, data, changed(small, [("relation.margin", margin)]))[Task.RELATION])


@FEW
@given(seed=SEEDS)
def test_mirroring_the_world_changes_no_distance(tmp_path: Path, seed: int) -> None:
    data = specimens.omni3d_data(seed, NUM_PICTURES)
    before = solid(tmp_path, data, loose())
    for annotation in data["annotations"]:
        annotation["bbox3D_cam"] = [[-x, y, z] for x, y, z in annotation["bbox3D_cam"]]
        for kind in ("bbox2D_tight", "bbox2D_trunc", "bbox2D_proj"):
            left, top, right, bottom = annotation[kind]
            if annotation[kind] != [-1] * 4:
                annotation[kind] = [WIDTH - right, top, WIDTH - left, bottom]
    after = solid(tmp_path, data, loose())
    assume(before[Task.DEPTH])
    assert {task: facts(found) for task, found in after.items()} == {
        task: facts(found) for task, found in before.items()
    }


@FEW
@given(seed=SEEDS, scale=st.floats(min_value=0.05, max_value=50))
def test_scaling_all_cuboids_changes_no_answer(tmp_path: Path, seed: int, scale: float) -> None:
    data = specimens.omni3d_data(seed, NUM_PICTURES)
    before = solid(tmp_path, data, loose())
    for annotation in data["annotations"]:
        annotation["bbox3D_cam"] = [[scale * axis for axis in vertex] for vertex in annotation["bbox3D_cam"]]
        annotation["dimensions"] = [scale * side for side in annotation["dimensions"]]
    after = solid(tmp_path, data, loose())
    assume(before[Task.DEPTH])
    assert {task: facts(found) for task, found in after.items()} == {
        task: facts(found) for task, found in before.items()
    }


@FEW
@given(seed=SEEDS)
def test_exchanging_the_two_things_exchanges_the_answer(tmp_path: Path, seed: int) -> None:
    found = solid(tmp_path, specimens.omni3d_data(seed, NUM_PICTURES), loose())
    other = {"red": "blue", "blue": "red"}
    depth = by_things(found[Task.DEPTH])
    assume(depth)
    assert {(name, second, first): other[answer] for (name, first, second), answer in depth.items()} == depth
    other = {"green": "blue", "blue": "green"}
    distance = by_things(found[Task.DISTANCE])
    exchanged = {(name, one, last, middle): other[answer] for (name, one, middle, last), answer in distance.items()}
    assert exchanged == distance


def by_things(candidates: list[Candidate[Any]]) -> dict[tuple[Any, ...], str]:
    """The answer for each picture and things in it."""
    return {(one.picture.file_name, *(thing.id for thing in one.subjects)): one.answer for one in candidates}


FLAT_RULES = {
    "count.seen.min_area": (0, 1),
    "count.seen.min_side": (0, 60),
    "count.seen.inside": (0, 60),
    "relation.seen.people_inside": (0, 60),
    "count.max_count": (8, 1),
    "relation.margin": (0, 1.5),
    "relation.max_overlap": (1, 0),
    "relation.seen.min_area": (0, 0.2),
    "relation.seen.min_side": (0, 60),
    "relation.seen.max_area": (1, 0),
}
SOLID_RULES = {
    f"{task}.{rule}": bounds
    for task in ("depth", "distance")
    for rule, bounds in {
        "margin": (0, 3),
        "max_overlap": (1, 0),
        "max_covered": (1, 0),
        "seen.min_area": (0, 0.5),
        "seen.min_side": (0, 120),
        "seen.min_visibility": (0, 1),
        "seen.max_truncation": (1, 0),
        "seen.max_area": (1, 0),
    }.items()
}


def between(bounds: tuple[float, float], part: float) -> float:
    """A value between the loosest and the strictest, whole where those are."""
    value = bounds[0] + part * (bounds[1] - bounds[0])
    return round(value) if bounds == FLAT_RULES["count.max_count"] else value


@pytest.mark.parametrize("name", [*FLAT_RULES, *SOLID_RULES])
@settings(parent=FEW, max_examples=2)
@given(seed=SEEDS, parts=st.lists(st.floats(min_value=0, max_value=1), min_size=2, max_size=4))
def test_a_stricter_rule_only_removes_candidates(tmp_path: Path, name: str, seed: int, parts: list[float]) -> None:
    bounds = FLAT_RULES.get(name) or SOLID_RULES[name]
    task = Task[name.split(".")[0].upper()]
    made, draw = (flat, specimens.coco_data) if name in FLAT_RULES else (solid, specimens.omni3d_data)
    data = draw(seed, NUM_PICTURES)
    found = [
        facts(made(tmp_path, data, changed(loose(), [(name, between(bounds, part))]))[task])
        for part in sorted({0.0, *parts, 1.0})
    ]
    for looser, stricter in pairwise(found):
        assert stricter <= looser


@pytest.mark.parametrize("name", ["relation.margin", "depth.margin", "distance.margin"])
def test_nothing_passes_a_boundless_margin(tmp_path: Path, name: str) -> None:
    task = Task[name.split(".")[0].upper()]
    made, draw = (flat, specimens.coco_data) if name in FLAT_RULES else (solid, specimens.omni3d_data)
    data = draw(3, 40)
    assert made(tmp_path, data, loose())[task]
    assert made(tmp_path, data, changed(loose(), [(name, 1e12)]))[task] == []


@pytest.fixture
def inputs(tmp_path: Path) -> list[Input]:
    flat = specimens.write_data(tmp_path / "coco", "coco", specimens.coco_data(5, 24))
    solid = specimens.write_data(tmp_path / "omni3d", "omni3d", specimens.omni3d_data(5, 24))
    return [Input(Form(source.form), source.path, source.images) for source in (flat, solid)]


def written(folder: Path) -> dict[str, bytes]:
    """Every file of a benchmark, without the hashes of the annotation files in its manifest."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    manifest = json.loads(found.pop("cvbench.json"))
    for file in manifest["request"]["inputs"]:
        del file["sha256"]
    return found | {"cvbench.json": json.dumps(manifest).encode()}


@settings(parent=FEW, max_examples=3)
@given(seed=SEEDS)
def test_order_in_the_files_changes_nothing(
    inputs: list[Input], tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    folder, order = tmp_path_factory.mktemp("orders"), random.Random(seed)
    write_benchmark(inputs, folder / "before", count_per_task=24, seed=2)
    for source in inputs:
        data = json.loads(source.path.read_text())
        for key in ("images", "annotations", "categories"):
            order.shuffle(data[key])
            data[key] = [dict(order.sample(sorted(one.items()), len(one))) for one in data[key]]
        source.path.write_text(json.dumps(data, indent=order.choice([None, 2])))
    write_benchmark(inputs, folder / "after", count_per_task=24, seed=2)
    assert written(folder / "after") == written(folder / "before")


def test_order_of_the_sources_changes_nothing_but_the_manifest(inputs: list[Input], tmp_path: Path) -> None:
    write_benchmark(inputs, tmp_path / "before", count_per_task=24)
    write_benchmark(inputs[::-1], tmp_path / "after", count_per_task=24)
    before, after = written(tmp_path / "before"), written(tmp_path / "after")
    for found in (before, after):
        del found["cvbench.json"]
    assert after == before


def test_questions_do_not_depend_on_the_hash_seed(inputs: list[Input], tmp_path: Path) -> None:
    options = [text for source in inputs for text in (f"--{source.form}", f"{source.path}={source.images}")]
    for seed in ("0", "12345"):
        command = [sys.executable, "-m", "cambrian_cli", "cvbench", "build", *options]
        command += ["--output", str(tmp_path / seed), "--count-per-task", "24"]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONHASHSEED": seed})
    assert written(tmp_path / "0") == written(tmp_path / "12345")


def test_another_seed_asks_other_questions(inputs: list[Input], tmp_path: Path) -> None:
    write_benchmark(inputs, tmp_path / "0", count_per_task=12, seed=0)
    write_benchmark(inputs, tmp_path / "1", count_per_task=12, seed=1)
    assert written(tmp_path / "0")["test_2d.jsonl"] != written(tmp_path / "1")["test_2d.jsonl"]


@FEW
@given(seed=SEEDS)
def test_a_pool_holds_candidates_that_there_are_without_it(tmp_path: Path, seed: int) -> None:
    data = specimens.coco_data(seed, NUM_PICTURES)
    rules = replace(loose(), relation=replace(loose().relation, pool_per_picture=2))
    found = flat(tmp_path, data, rules)[Task.RELATION]
    assert facts(found) <= facts(flat(tmp_path, data, loose())[Task.RELATION])
    names = [one.picture.file_name for one in found]
    assert all(names.count(name) <= 2 for name in names)


# --- nothing is lost: the candidates are all that an enumeration of the raw annotations finds


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=40, seed=21)
    return folder


def as_rules(rules: Rules) -> dict[str, Any]:
    """Rules as a manifest holds them."""
    return json.loads(json.dumps(stated(rules)))


def in_space(sources: list[Source], rules: Rules, task: str) -> set[tuple[Any, ...]]:
    """Picture, things and the name of the closer one, of all questions of Depth or Distance that the rules allow."""
    held = as_rules(rules)[task.lower()]
    ask = answers.depth if task == "Depth" else answers.distance
    found = set()
    for picture in raw.read(sources):
        things = [thing for thing in picture.things if not seen.faults(thing, picture, held["seen"])]
        for subjects in permutations(things, 2 if task == "Depth" else 3):
            if len(subjects[0].vertices):
                row = {"choices": [thing.shown for thing in subjects[-2:]]}
                answer, faults = ask(row, subjects, picture, held)
                found |= set() if faults else {(picture.file_name, *(thing.id for thing in subjects), answer)}
    return found


def on_the_plane(sources: list[Source], rules: Rules) -> set[tuple[Any, ...]]:
    """Picture, things and side, of all questions of Relation that the rules allow."""
    held = as_rules(rules)["relation"]
    found = set()
    for picture in raw.read(sources):
        things = [thing for thing in picture.things if not seen.faults(thing, picture, held["seen"])]
        for subjects in permutations(things, 2):
            for sides in (["left", "right"], ["above", "below"]):
                answer, faults = answers.relation({"choices": sides}, subjects, picture, held)
                found |= set() if faults else {(picture.file_name, *(thing.id for thing in subjects), answer)}
    return found


def asked(candidates: list[Candidate[Any]]) -> set[tuple[Any, ...]]:
    """Picture, things and answer of candidates; a colour is given as the name of the thing in that box."""
    found = set()
    for one in candidates:
        colours = {"red": 0, "blue": 1, "green": 2}
        answer = one.subjects[colours[one.answer]].category if one.answer in colours else one.answer
        found.add((one.picture.file_name, *(thing.id for thing in one.subjects), answer))
    return found


def test_every_question_about_scenes_that_the_rules_allow_is_a_candidate(scenes: Path) -> None:
    flat_found = candidates_2d(coco.read(scenes / "instances.json"), Rules())
    solid_found = candidates_3d(omni3d.read(scenes / "cuboids.json"), Rules())
    pictures = scenes / "images"
    flat_source = Source("coco", scenes / "instances.json", pictures)
    solid_source = Source("omni3d", scenes / "cuboids.json", pictures)
    assert asked(flat_found[Task.RELATION]) == on_the_plane([flat_source], Rules()) != set()
    assert asked(solid_found[Task.DEPTH]) == in_space([solid_source], Rules(), "Depth") != set()
    assert asked(solid_found[Task.DISTANCE]) == in_space([solid_source], Rules(), "Distance") != set()
    counted = {
        (one.picture.file_name, one.category[0], int(one.answer)) for one in flat_found[Task.COUNT] if one.answer != "0"
    }
    assert counted == all_counts(flat_source) != set()


def all_counts(source: Source) -> set[tuple[str, str, int]]:
    """Picture, category and number, of all questions of Count but those about what is not there."""
    held = as_rules(Rules())["count"]
    found = set()
    for picture in raw.read([source]):
        for name in {thing.name for thing in picture.things}:
            things = [thing for thing in picture.things if thing.name == name]
            if not any(thing.crowd or seen.faults(thing, picture, held["seen"]) for thing in things):
                found.add((picture.file_name, name, len(things)))
    return {fact for fact in found if fact[2] <= held["max_count"]}


@FEW
@given(seed=SEEDS)
def test_every_question_about_traps_that_the_rules_allow_is_a_candidate(tmp_path: Path, seed: int) -> None:
    rules = changed(loose(), [("depth.max_covered", None), ("distance.max_covered", None)])
    cuboids = specimens.write_data(tmp_path / "solid", "omni3d", specimens.omni3d_data(seed, 12), with_pictures=False)
    found = candidates_3d(omni3d.read(cuboids.path), rules)
    assert asked(found[Task.DEPTH]) == in_space([cuboids], rules, "Depth")
    assert asked(found[Task.DISTANCE]) == in_space([cuboids], rules, "Distance")
    outlines = specimens.write_data(tmp_path / "flat", "coco", specimens.coco_data(seed, 12), with_pictures=False)
    assert asked(candidates_2d(coco.read(outlines.path), rules)[Task.RELATION]) == on_the_plane([outlines], rules)
