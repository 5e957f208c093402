"""Review of a benchmark: reading, the log of decisions, geometry, verdicts, agreement, the reviewed set, the server."""

import http.client
import io
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cambrian_data.cvbench import Question, scene_questions
from cambrian_data.cvbench.geometry import Subject
from cambrian_data.cvbench.review import (
    Changes,
    Review,
    Rule,
    default_reviewer,
    export_reviewed,
    measure_agreement,
    open_server,
    read_benchmark,
    read_reviews,
)
from cambrian_data.cvbench.review.agreement import agree, cohen_kappa, krippendorff_alpha, raw_agreement
from cambrian_data.cvbench.review.benchmark import Embedded, load_picture, picture_bytes
from cambrian_data.cvbench.review.changes import check_changes, prompt, tidy
from cambrian_data.cvbench.review.decisions import CUT_MARK, Decision, append, cut_lines, read_log, standing
from cambrian_data.cvbench.review.projection import EDGES, project_edges
from cambrian_data.cvbench.review.server import is_own_name
from cambrian_data.cvbench.review.session import to_margin, to_offset
from cambrian_data.cvbench.review.verdicts import Outcome, reach_verdicts
from cambrian_data.errors import DataError, ImageError
from cambrian_data.images import load_image
from cambrian_eval.tasks.cvbench import read_questions
from tests.support.folders import contents, read_rows
from tests.support.reviewable import PER_TASK, write_reviewable


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    base = tmp_path_factory.mktemp("review")
    return write_reviewable(base / "scenes", base / "bench")


@pytest.fixture
def folder(made, tmp_path):
    """A benchmark of its own for each test, with four questions of each task: 0 to 15; its tables as JSONL alone."""
    return shutil.copytree(made, tmp_path / "bench", ignore=shutil.ignore_patterns("*.parquet"))


@pytest.fixture
def benchmark(folder):
    return read_benchmark(folder)


@pytest.fixture
def anna(benchmark):
    return Review(benchmark, "anna")


def edit(path, change):
    """Rewrites a JSONL file with each row changed."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(change(row)) + "\n" for row in rows))


@pytest.fixture
def parquet(made, tmp_path):
    """The same benchmark as Parquet alone, with its pictures inside."""
    return shutil.copytree(made, tmp_path / "bench", ignore=shutil.ignore_patterns("*.jsonl", "img"))


# --- what is read


def test_a_built_folder_is_read_with_its_geometry(folder, benchmark):
    rows = read_rows(folder)
    assert list(benchmark.items) == [row["idx"] for row in rows] == list(range(4 * PER_TASK))
    for row in rows:
        item = benchmark.items[row["idx"]]
        assert item.row == row
        assert item.asked.choices[item.place] == row["choices"]["ABCD".index(row["answer"][1])]
        assert item.geometry.file == row["filename"]
        assert load_picture(item).size == (64, 64)
    assert benchmark.has_geometry


def test_a_folder_of_the_hub_has_no_geometry_and_says_so(folder):
    (folder / "geometry.jsonl").unlink()
    review = Review(read_benchmark(folder), "anna")
    assert review.overview().notices == [
        "This folder holds no geometry.jsonl: no boxes, cuboids or distances can be shown."
    ]
    details = review.details(12)
    assert (details.subjects, details.others, details.margin, details.notices) == ([], [], None, [])
    entries = {entry.task: entry for entry in review.overview().questions}
    assert entries["Count"].categories == [review.item(entries["Count"].idx).row["target_class"]]
    assert entries["Depth"].categories == entries["Depth"].choices


def test_a_folder_of_parquet_alone_shows_the_same_pictures(made, parquet):
    whole, embedded = read_benchmark(made), read_benchmark(parquet)
    assert list(embedded.items) == list(whole.items)
    for idx, item in embedded.items.items():
        assert isinstance(item.picture, Embedded)
        assert picture_bytes(item) == picture_bytes(whole.items[idx])
        assert load_picture(item).tobytes() == load_picture(whole.items[idx]).tobytes()
        assert item.fingerprint == whole.items[idx].fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"idx": "five"}, r"test_2d.jsonl:1: .*int.*str.*idx"),
        ({"type": "3D"}, r"test_2d.jsonl:1: type is 3D, expected 2D"),
        ({"answer": "(F)"}, r'test_2d.jsonl:1: answer is "\(F\)"; expected a letter from \(A\) to \(D\)'),
        ({"answer": "A"}, r'answer is "A"; expected a letter'),
        ({"choices": ["1"], "answer": "(A)"}, r"has 1 choices; expected 2 to 26"),
        ({"choices": [1, 2]}, r"test_2d.jsonl:1: .*str.*int.*choices"),
        ({"question": None}, r"test_2d.jsonl:1: .*question"),
        ({"filename": "../secret.png"}, r'leaves its folder through ".."'),
        ({"filename": "/etc/passwd"}, "is absolute"),
        ({"filename": "img/none.png"}, r"test_2d.jsonl:1: the picture img/none.png is not in"),
    ],
)
def test_a_malformed_row_names_file_line_and_field(folder, change, message):
    (folder / "geometry.jsonl").unlink()
    edit(folder / "test_2d.jsonl", lambda row: row | change if row["idx"] == 0 else row)
    with pytest.raises(DataError, match=message):
        read_benchmark(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row | {"idx": 99} if row["idx"] == 3 else row, "idx 99 is in no table"),
        (lambda row: row | {"idx": 2} if row["idx"] == 3 else row, "geometry.jsonl:4: idx 2 occurs twice"),
        (lambda row: row | {"file": "img/other.png"}, "idx 0 is about img/other.png; .*test_2d.jsonl:1 says img/2D"),
        (lambda row: row | {"width": "wide"}, "geometry.jsonl:1: .*int.*width"),
        (lambda row: row | {"subjects": [{"id": 1, "category": "ball", "box": [1, 2, 3]}]}, "geometry.jsonl:1: .*box"),
    ],
)
def test_malformed_geometry_names_its_line(folder, change, message):
    edit(folder / "geometry.jsonl", change)
    with pytest.raises(DataError, match=message):
        read_benchmark(folder)


def test_what_is_no_benchmark_is_refused(folder, tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        read_benchmark(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no questions; expected test_2d or test_3d"):
        read_benchmark(tmp_path / "empty")
    edit(folder / "test_3d.jsonl", lambda row: row | {"idx": row["idx"] - 8})
    (folder / "geometry.jsonl").unlink()
    with pytest.raises(DataError, match=r"idx 0 occurs twice; .* unique over both parts"):
        read_benchmark(folder)
    (folder / "test_3d.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(DataError, match=r"test_3d.parquet: cannot be read as Parquet"):
        read_benchmark(folder)


# --- the log


def lines(review):
    return review.log.read_text().splitlines()


def test_a_decision_is_a_line_and_the_last_one_counts(anna):
    anna.decide(3, "accept")
    anna.decide(3, "reject", "  tiny object ")
    anna.decide(4, "accept")
    written = [json.loads(line) for line in lines(anna)]
    assert [(line["idx"], line["decision"], line["reason"]) for line in written] == [
        (3, "accept", ""),
        (3, "reject", "tiny object"),
        (4, "accept", ""),
    ]
    assert all(line["changes"] is None for line in written)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", line["time"]) for line in written)
    assert {idx: decision.decision for idx, decision in anna.decisions().items()} == {3: "reject", 4: "accept"}
    assert anna.log.name == "anna.jsonl"


def test_reviewers_have_logs_of_their_own_and_a_later_review_goes_on(benchmark, anna):
    anna.decide(3, "accept")
    ben = Review(benchmark, "ben")
    ben.decide(3, "reject", "ambiguous wording")
    again = Review(read_benchmark(benchmark.folder), "anna")
    decided = {entry.idx: entry.decision for entry in again.overview().questions if entry.decision is not None}
    assert {idx: decision.decision for idx, decision in decided.items()} == {3: "accept"}


@pytest.mark.parametrize("name", ["", "../ben", "a/b", ".hidden", "a" * 65, "ben\n", "bén"])
def test_a_reviewer_is_named_so_that_a_file_can_be(benchmark, name):
    with pytest.raises(DataError, match="names no log"):
        Review(benchmark, name)


def test_the_reviewer_is_the_user_unless_named(monkeypatch):
    monkeypatch.setenv("LOGNAME", "carla")
    assert default_reviewer() == "carla"


def test_undo_restores_what_stood_before_by_a_new_line(anna):
    anna.decide(3, "accept")
    anna.decide(3, "reject", "tiny object")
    anna.decide(4, "accept")
    assert anna.undo().taken_back.idx == 4
    assert {idx: one.decision for idx, one in anna.decisions().items()} == {3: "reject"}
    assert anna.undo().line.decision == "accept"
    assert {idx: one.decision for idx, one in anna.decisions().items()} == {3: "accept"}
    anna.decide(5, "accept")
    assert anna.undo().taken_back.idx == 5
    assert anna.undo().taken_back.decision == "accept"
    assert anna.decisions() == {}
    with pytest.raises(DataError, match="there is no decision to take back"):
        anna.undo()
    assert len(lines(anna)) == 8  # four decisions, four undos: nothing is ever removed


def test_a_cut_last_line_is_reported_and_closed_by_the_next_decision(anna):
    for idx in (1, 2):
        anna.decide(idx, "accept")
    before = anna.log.read_bytes()
    anna.log.write_bytes(before + b'{"idx":7,"decision":"rej')
    assert set(anna.decisions()) == {1, 2}
    assert anna.overview().notices[0].startswith("Line 3 of anna.jsonl was cut by a crash and is skipped")
    anna.decide(8, "accept")
    assert anna.log.read_bytes().startswith(before + b'{"idx":7,"decision":"rej' + CUT_MARK + b'\n{"idx":8')
    assert set(anna.decisions()) == {1, 2, 8}
    assert read_log(anna.log).cut == (3,)
    anna.undo()
    assert set(anna.decisions()) == {1, 2}


def test_a_line_cut_anywhere_loses_no_other(benchmark):
    review = Review(benchmark, "anna")
    review.decide(1, "accept")
    first = review.log.read_bytes()
    review.decide(2, "modify", "", Changes(question="Which é?", choices=("x", "y"), answer="(B)"))
    whole = review.log.read_bytes()
    for lost in (1, 2, *range(3, len(whole) - len(first), 11)):
        cut = whole[:-lost]
        review.log.write_bytes(cut)
        is_cut = lost > 1  # a line that lacks but its break is whole
        assert set(review.decisions()) == ({1} if is_cut else {1, 2})
        assert len(review.overview().notices) == is_cut
        review.decide(3, "accept")
        assert set(review.decisions()) == ({1, 3} if is_cut else {1, 2, 3})
        assert review.log.read_bytes().startswith(cut)


def test_a_damaged_log_is_never_built_upon(anna):
    anna.decide(1, "accept")
    anna.log.write_bytes(b"{}\n" + anna.log.read_bytes())
    before = anna.log.read_bytes()
    with pytest.raises(DataError, match=r"anna.jsonl:1: is no decision"):
        anna.decide(2, "accept")
    with pytest.raises(DataError, match=r"anna.jsonl:1: is no decision"):
        anna.undo()
    assert anna.log.read_bytes() == before


def test_decisions_about_another_build_are_refused(folder, anna):
    anna.decide(1, "accept")
    (folder / "geometry.jsonl").unlink()
    edit(folder / "test_2d.jsonl", lambda row: row | {"question": "Why?"} if row["idx"] == 1 else row)
    with pytest.raises(DataError, match=r"anna.jsonl:1: decides question 1 of another .* asks something else there"):
        Review(read_benchmark(folder), "anna")
    edit(folder / "test_2d.jsonl", lambda row: row | {"idx": 77} if row["idx"] == 1 else row)
    with pytest.raises(DataError, match=r"has no such question"):
        Review(read_benchmark(folder), "anna")


@pytest.mark.parametrize("name", ["test_2d.jsonl", "test_3d.jsonl", "geometry.jsonl"])
@pytest.mark.parametrize("change", ["time", "size", "gone"])
def test_nothing_is_decided_about_a_benchmark_that_has_changed_since_it_was_read(folder, anna, name, change):
    anna.decide(1, "accept")
    before = anna.log.read_bytes()
    path = folder / name
    if change == "time":  # the same number of bytes, written anew
        os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))
    elif change == "size":
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        path.write_bytes(path.read_bytes() + b"\n")
        os.utime(path, ns=times)
    else:
        path.unlink()
    for kind, reason in (("accept", ""), ("reject", "tiny object")):
        with pytest.raises(DataError, match="the benchmark has changed; start again"):
            anna.decide(2, kind, reason)
    with pytest.raises(DataError, match="the benchmark has changed; start again"):
        anna.undo()
    assert anna.log.read_bytes() == before


def test_a_table_that_is_read_before_the_one_that_was_is_a_change(made, folder, anna):
    shutil.copy(made / "test_2d.parquet", folder)
    with pytest.raises(DataError, match="the benchmark has changed; start again"):
        anna.decide(2, "accept")


def test_lines_that_the_audit_writes_are_read(anna):
    anna.decide(1, "accept")
    line = {"idx": 2, "decision": "reject", "reason": "a blind model knows", "changes": None, "time": "2026-11-25"}
    with anna.log.open("a") as file:
        file.write(json.dumps(line) + "\n")
    assert anna.decisions()[2].reason == "a blind model knows"


WRITER = """
import sys
from pathlib import Path
from cambrian_data.cvbench.review.decisions import Decision, append
path, start = Path(sys.argv[1]), int(sys.argv[2])
for idx in range(start, start + 40):
    append(path, Decision(idx=idx, decision="reject", reason="x" * 3000, time="now"))
"""


def test_servers_and_pages_at_once_lose_and_mix_no_lines(tmp_path):
    path = tmp_path / "review" / "anna.jsonl"
    others = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(start)]) for start in (100, 200)]

    def decide(start):
        for idx in range(start, start + 40):
            append(path, Decision(idx=idx, decision="accept", time="now"))

    threads = [threading.Thread(target=decide, args=(start,)) for start in (300, 400)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(timeout=60) for process in others] == [0, 0]
    log = read_log(path)
    assert log.cut == ()
    assert {idx for idx, _ in standing(log.decisions).items()} == {
        start + number for start in (100, 200, 300, 400) for number in range(40)
    }


FULL = """
import resource, signal, sys
from pathlib import Path
from cambrian_data.errors import DataError
from cambrian_data.cvbench.review.decisions import Decision, append
path = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, resource.RLIM_INFINITY))
try:
    append(path, Decision(idx=2, decision="accept", time="now"))
except DataError as error:
    print(error)
"""


def test_a_disk_that_is_full_is_told_and_the_log_goes_on_when_it_is_not(anna):
    anna.decide(1, "accept")
    whole = anna.log.read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL, str(anna.log)], capture_output=True, text=True, check=True)
    assert re.search(r"cannot store in .*anna.jsonl: .* Nothing is recorded", done.stdout), done
    assert len(anna.log.read_bytes()) == len(whole) + 20
    anna.decide(3, "accept")
    assert set(anna.decisions()) == {1, 3}


# --- changes


def test_a_changed_row_agrees_with_itself(benchmark, anna):
    row = benchmark.items[0].row
    wanted = Changes(question=" How many red balls are there? ", choices=("one ", "two", "three"), answer="(C)")
    anna.decide(0, "modify", "several colours", wanted)
    (verdict, *_) = reach_verdicts(benchmark, read_reviews(benchmark), Rule.UNANIMOUS)
    assert verdict.outcome is Outcome.MODIFIED
    assert verdict.row == row | {
        "question": "How many red balls are there?",
        "choices": ["one", "two", "three"],
        "answer": "(C)",
        "prompt": "How many red balls are there? Select from the following choices.\n(A) one\n(B) two\n(C) three",
    }


def test_prompts_are_worded_as_the_benchmark_words_them(made):
    for row in read_rows(made):
        assert prompt(row["question"], row["choices"]) == row["prompt"]
    asked: list[Question] = scene_questions(made.parent / "scenes", count_per_task=None, seed=3).questions
    for question in asked:
        assert prompt(question.text, question.choices) == question.prompt


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": "  "}, "the question is empty"),
        ({"question": "a\nb"}, "holds a line break"),
        ({"choices": ("1",), "answer": "(A)"}, "there are 1 choices; expected 2 to 26"),
        ({"choices": ("1", " ")}, r"choice \(B\) is empty"),
        ({"choices": ("left", "Left")}, r'choices \(A\) and \(B\) are both "Left"; each must differ'),
        ({"choices": ("1", "1 ")}, r'choices \(A\) and \(B\) are both "1"'),
        ({"choices": ("1", "2"), "answer": "(C)"}, r'the answer is "\(C\)"; expected one of \(A\), \(B\)'),
        ({"choices": ("1", "2"), "answer": "B"}, r'the answer is "B"; expected one of'),
        ({}, "nothing is changed"),
    ],
)
def test_changes_that_make_no_question_are_refused_and_not_stored(anna, change, message):
    row = anna.item(0).row
    same = {"question": row["question"], "choices": tuple(row["choices"]), "answer": row["answer"]}
    with pytest.raises(DataError, match=message):
        anna.decide(0, "modify", "", Changes(**same | change))
    assert not anna.log.exists()


def test_a_rejection_needs_a_reason_and_only_a_modification_has_changes(anna):
    with pytest.raises(DataError, match="a rejection needs a reason"):
        anna.decide(0, "reject", " ")
    with pytest.raises(DataError, match="modify comes without changes"):
        anna.decide(0, "modify")
    with pytest.raises(DataError, match="accept comes with changes"):
        anna.decide(0, "accept", "", Changes(question="Why?", choices=("a", "b"), answer="(A)"))
    with pytest.raises(DataError, match="there is no question 99"):
        anna.decide(99, "accept")
    assert not anna.log.exists()


def test_tidy_changes_of_real_questions_are_stable(benchmark):
    for item in benchmark.items.values():
        asked = item.asked
        changes = Changes(question=f"{asked.question} Look twice.", choices=tuple(asked.choices), answer=asked.answer)
        check_changes(changes, item.row)
        assert tidy(changes) == changes


def break_picture(folder, idx):
    """Cuts the picture of a question short: its header still tells a size."""
    file = folder / read_rows(folder)[idx]["filename"]
    file.write_bytes(file.read_bytes()[:100])
    return file


def test_a_question_whose_picture_cannot_be_shown_is_not_kept_but_can_be_rejected(folder, anna):
    file = break_picture(folder, 2)
    changes = Changes(question="Why?", choices=("a", "b"), answer="(A)")
    for kind, wanted in (("accept", None), ("modify", changes)):
        message = rf"question 2 cannot be kept, as its picture cannot be shown: .*{file.name}: .* reject the question"
        with pytest.raises(ImageError, match=message):
            anna.decide(2, kind, "", wanted)
    assert not anna.log.exists()
    anna.decide(2, "reject", "broken picture")
    anna.decide(3, "accept")
    assert set(anna.decisions()) == {2, 3}


# --- geometry

CAMERA = ((100.0, 0.0, 80.0), (0.0, 100.0, 60.0), (0.0, 0.0, 1.0))
WIDTH, HEIGHT = 160, 120


def box(x, y, z, side=1.0):
    """The corners of a cube around a point, in Omni3D's order."""
    half = side / 2
    face = [(-half, -half), (half, -half), (half, half), (-half, half)]
    return [(x + dx, y + dy, z + dz) for dz in (-half, half) for dx, dy in face]


def test_a_cuboid_before_the_camera_is_drawn_by_its_corners():
    edges = project_edges(box(0, 0, 4.5), CAMERA, WIDTH, HEIGHT)
    assert len(edges) == 12
    near, far = 100 * 0.5 / 4, 100 * 0.5 / 5
    np.testing.assert_allclose(edges[0], (80 - near, 60 - near, 80 + near, 60 - near))
    np.testing.assert_allclose(edges[6], (80 + far, 60 + far, 80 - far, 60 + far))
    np.testing.assert_allclose(edges[8], (80 - near, 60 - near, 80 - far, 60 - far))


def test_every_edge_joins_two_corners_that_differ_along_one_axis():
    corners = np.array(box(0, 0, 0))
    assert len(set(EDGES)) == 12
    for start, end in EDGES:
        assert np.count_nonzero(corners[start] != corners[end]) == 1


def test_an_edge_that_passes_the_camera_is_cut_where_it_leaves_the_picture():
    floor = [(-1, 1, -3), (1, 1, -3), (1, 2, -3), (-1, 2, -3), (-1, 1, 5), (1, 1, 5), (1, 2, 5), (-1, 2, 5)]
    edges = project_edges(floor, CAMERA, WIDTH, HEIGHT)
    # The upper edges run from depth 5 towards and past the camera, one metre below it and one to its side: x = 80 -+ t,
    # y = 60 + t until y = 120. The lower ones, at x = 80 -+ t and y = 60 + 2 t, too.
    rails = sorted(edge for edge in edges if edge[0] != edge[2] and edge[1] != edge[3])
    expected = [(20, 120, 60, 80), (50, 120, 60, 100), (110, 120, 100, 100), (140, 120, 100, 80)]
    np.testing.assert_allclose(rails, expected, atol=0.1)  # the cut at 1 mm of depth moves the ends by less
    assert len(edges) == 8  # the face behind the camera, with its four edges, is not there


def test_nothing_is_drawn_of_what_is_behind_or_beside():
    assert project_edges(box(0, 0, -4), CAMERA, WIDTH, HEIGHT) == []
    assert project_edges(box(50, 0, 4), CAMERA, WIDTH, HEIGHT) == []
    around = project_edges(box(0, 0, 0, side=10), CAMERA, WIDTH, HEIGHT)
    assert around == []  # the camera is inside, and the far face larger than the picture


def test_lines_stay_in_the_picture_and_on_the_line_in_space():
    generator = np.random.default_rng(0)
    drawn = 0
    for _ in range(200):
        corners = np.array(box(0, 0, 0)) @ generator.normal(size=(3, 3)) * 3 + generator.normal(size=3) * 4
        edges = project_edges([tuple(corner) for corner in corners], CAMERA, WIDTH, HEIGHT)
        for x0, y0, x1, y1 in edges:
            assert -1e-6 <= min(x0, x1) <= max(x0, x1) <= WIDTH + 1e-6
            assert -1e-6 <= min(y0, y1) <= max(y0, y1) <= HEIGHT + 1e-6
            middle = np.linalg.solve(np.array(CAMERA), [(x0 + x1) / 2, (y0 + y1) / 2, 1.0])
            assert min(off_plane(corners[start], corners[end], middle) for start, end in EDGES) < 1e-6
            drawn += 1
    assert drawn > 300


def off_plane(start, end, ray):
    """How far a ray of the camera is from the plane through the camera and an edge, as a sine."""
    normal = np.cross(start, end)
    return abs(normal @ ray) / np.linalg.norm(normal) / np.linalg.norm(ray)


def test_a_picture_of_twice_the_side_has_twice_the_lines():
    corners = box(1, 0.5, 2, side=3)
    double = ((200.0, 0.0, 160.0), (0.0, 200.0, 120.0), (0.0, 0.0, 1.0))
    once = np.array(project_edges(corners, CAMERA, WIDTH, HEIGHT))
    np.testing.assert_allclose(np.array(project_edges(corners, double, 2 * WIDTH, 2 * HEIGHT)), 2 * once)
    assert len(once)


def test_distances_and_margin_are_those_of_the_vertices(anna):
    for idx in range(2 * PER_TASK, 4 * PER_TASK):
        item, details = anna.item(idx), anna.details(idx)
        vertices = [np.array(subject.vertices) for subject in item.geometry.subjects]
        origin = np.zeros(3) if item.asked.task == "Depth" else vertices[0].mean(axis=0)
        measured = vertices if item.asked.task == "Depth" else vertices[1:]
        reach = [np.linalg.norm(corners - origin, axis=1) for corners in measured]
        near, far = sorted(reach, key=lambda distances: distances.max())
        assert math.isclose(details.margin.metres, far.min() - near.max())
        assert math.isclose(details.margin.part, far.min() / near.max() - 1)
        nearer = next(subject for subject in item.geometry.subjects if subject.colour == details.margin.nearer)
        assert nearer.category == item.asked.choices[item.place]
        for subject, corners in zip(details.subjects, vertices, strict=True):
            assert subject.lines
            seen = np.array(subject.lines).reshape(-1, 2)
            flat = (np.array(item.geometry.intrinsics) @ corners.T).T
            pixels = flat[:, :2] / flat[:, 2:]
            low, high = pixels.min(axis=0).clip(0, 64), pixels.max(axis=0).clip(0, 64)
            np.testing.assert_allclose(seen.min(axis=0), low, atol=1e-6)
            np.testing.assert_allclose(seen.max(axis=0), high, atol=1e-6)


def subject(**fields):
    return Subject(id=1, category="ball", box=fields.pop("box", (0, 0, 4, 4)), **fields)


def test_a_margin_needs_two_distances_and_may_be_negative():
    assert to_margin([subject(), subject(distance=(1, 2))]) is None
    margin = to_margin([subject(colour="red", distance=(3, 5)), subject(colour="blue", distance=(1, 4))])
    assert margin is not None
    assert (margin.nearer, margin.metres, margin.part) == ("blue", -1, -0.25)


def test_the_offset_is_from_the_reference_to_the_located():
    offset = to_offset(subject(box=(10, 0, 20, 10)), subject(box=(40, 20, 60, 60)))
    assert (offset.right, offset.down) == (-35, -35)


def test_geometry_of_another_picture_is_not_drawn(folder):
    edit(folder / "geometry.jsonl", lambda row: row | {"width": 65} if row["idx"] == 9 else row)
    details = Review(read_benchmark(folder), "anna").details(9)
    assert details.subjects == []
    assert details.notices == [
        "The picture is 64 x 64 pixels, its geometry is of 65 x 64: not drawn, as it would be in the wrong place."
    ]


def test_what_the_geometry_lacks_is_said(folder):
    rows = [json.loads(line) for line in (folder / "geometry.jsonl").read_text().splitlines()]
    kept = [row | {"K": None} if row["idx"] == 9 else row for row in rows if row["idx"] != 5]
    (folder / "geometry.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    review = Review(read_benchmark(folder), "anna")
    assert review.details(5).notices == ["geometry.jsonl does not tell of this question."]
    without = review.details(9)
    assert without.notices == ["The source gives no camera (K) for this picture: its cuboids cannot be projected."]
    assert [one.lines for one in without.subjects] == [None, None]
    assert without.margin is not None


def test_the_picture_is_served_as_a_model_sees_it(folder):
    file = folder / read_rows(folder)[0]["filename"]
    layer = Image.new("RGBA", (5, 3), (255, 0, 0, 0))
    layer.putpixel((1, 2), (0, 0, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6
    layer.save(file, exif=exif)
    (folder / "geometry.jsonl").unlink()
    review = Review(read_benchmark(folder), "anna")
    shown = Image.open(io.BytesIO(review.png(0)))
    assert (shown.format, shown.mode, shown.size) == ("PNG", "RGB", (3, 5))
    assert shown.tobytes() == load_image(file).tobytes()
    assert (review.details(0).width, review.details(0).height) == (3, 5)
    file.write_bytes(b"no picture")
    with pytest.raises(ImageError, match="is not a picture of a known format"):
        review.details(0)


# --- verdicts and agreement

KEEP = "accept"
CHANGED = Changes(question="Which one?", choices=("this", "that"), answer="(A)")
OTHER = Changes(question="Which one?", choices=("this", "that"), answer="(B)")


def vote(benchmark, idx, **votes):
    """Lets reviewers decide a question: accept, Changes, or a reason for rejection."""
    for name, said in votes.items():
        review = Review(benchmark, name)
        if said == KEEP:
            review.decide(idx, "accept")
        elif isinstance(said, Changes):
            review.decide(idx, "modify", "", said)
        else:
            review.decide(idx, "reject", said)


@pytest.mark.parametrize(
    ("votes", "unanimous", "majority"),
    [
        ((), "undecided", "undecided"),
        ((KEEP,), "accepted", "accepted"),
        (("tiny",), "rejected", "rejected"),
        ((CHANGED,), "modified", "modified"),
        ((KEEP, KEEP), "accepted", "accepted"),
        ((KEEP, "tiny"), "disputed", "disputed"),
        (("tiny", "blurred"), "rejected", "rejected"),
        ((CHANGED, CHANGED), "modified", "modified"),
        ((CHANGED, OTHER), "disputed", "disputed"),
        ((KEEP, KEEP, "tiny"), "disputed", "accepted"),
        ((KEEP, "tiny", "blurred"), "disputed", "rejected"),
        ((CHANGED, CHANGED, KEEP), "disputed", "modified"),
        ((CHANGED, OTHER, KEEP), "disputed", "disputed"),
        ((KEEP, KEEP, "tiny", "tiny"), "disputed", "disputed"),
    ],
)
def test_verdicts_follow_the_rule(benchmark, votes, unanimous, majority):
    vote(benchmark, 0, **dict(zip(("anna", "ben", "carl", "dora"), votes, strict=False)))
    decisions = read_reviews(benchmark) if votes else {}
    for rule, expected in ((Rule.UNANIMOUS, unanimous), (Rule.MAJORITY, majority)):
        verdict = reach_verdicts(benchmark, decisions, rule)[0]
        assert verdict.outcome == expected
        assert verdict.changes == (CHANGED if expected == "modified" else None)


def test_cohens_kappa_of_published_tables():
    """The 50 grant applications of Wikipedia's article, and the two tables of its third example."""
    grants = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    assert cohen_kappa(grants) == pytest.approx(0.4)
    even = [("y", "y")] * 45 + [("y", "n")] * 15 + [("n", "y")] * 25 + [("n", "n")] * 15
    skewed = [("y", "y")] * 25 + [("y", "n")] * 35 + [("n", "y")] * 5 + [("n", "n")] * 35
    assert cohen_kappa(even) == pytest.approx(0.1304, abs=5e-5)
    assert cohen_kappa(skewed) == pytest.approx(0.2593, abs=5e-5)


def test_krippendorffs_alpha_of_his_own_examples():
    """Sections A (two observers, binary), B (two, nominal) and C (four, some missing) of the paper named there."""
    binary = zip("0100000000", "1110010010", strict=True)
    assert krippendorff_alpha([list(pair) for pair in binary]) == pytest.approx(0.095, abs=5e-4)
    nominal = zip("aabbdcccedda", "babbbccceddd", strict=True)
    assert krippendorff_alpha([list(pair) for pair in nominal]) == pytest.approx(0.692, abs=5e-4)
    observers = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    units = [[label for label in column if label != "."] for column in zip(*observers, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)


def test_coefficients_are_1_at_best_0_by_chance_and_undefined_for_one_label():
    assert cohen_kappa([("a", "a"), ("b", "b")]) == 1
    assert krippendorff_alpha([["a", "a", "a"], ["b", "b"]]) == 1
    assert cohen_kappa([(first, second) for first in "ab" for second in "ab"]) == 0
    assert cohen_kappa([("a", "a")] * 3) is None
    assert krippendorff_alpha([["a", "a", "a"]]) is None
    assert (cohen_kappa([]), krippendorff_alpha([]), raw_agreement([])) == (None, None, None)
    generator = np.random.default_rng(0)
    by_lot = [list(generator.choice(list("abc"), size=3)) for _ in range(20000)]
    assert krippendorff_alpha(by_lot) == pytest.approx(0, abs=0.02)  # a standard error of some 0.004


def test_raw_agreement_is_over_pairs():
    assert raw_agreement([["a", "a", "b"], ["a", "a"]]) == pytest.approx((1 / 3 + 1) / 2)
    found = agree([["a"], ["a", "a", "b"], [], ["a", "a"]], num_reviewers=3)
    assert (found.questions, found.unanimous) == (2, 1)


def test_agreement_is_counted_by_task_over_what_two_decided(benchmark):
    vote(benchmark, 0, anna=KEEP, ben=KEEP)
    vote(benchmark, 1, anna=KEEP, ben="tiny")
    vote(benchmark, 2, anna="tiny", ben="blurred")
    vote(benchmark, 3, anna=KEEP)
    vote(benchmark, 4, anna=CHANGED, ben=OTHER)
    found = measure_agreement(benchmark, read_reviews(benchmark))
    assert found.reviewers == {
        "anna": {"accept": 3, "modify": 1, "reject": 1},
        "ben": {"accept": 1, "modify": 1, "reject": 2},
    }
    assert found.coefficient == "Cohen's kappa"
    counted = {task: (one.questions, one.unanimous) for task, one in found.tasks.items()}
    assert counted == {"Count": (3, 2), "Relation": (1, 1), "Depth": (0, 0), "Distance": (0, 0)}
    assert found.tasks["Count"].raw == pytest.approx(2 / 3)
    assert found.tasks["Count"].coefficient == pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9))
    assert found.tasks["Relation"].coefficient is None
    assert (found.tasks["Depth"].raw, found.tasks["Depth"].coefficient) == (None, None)
    assert [(one.idx, one.decisions) for one in found.disagreements] == [(1, {"anna": "accept", "ben": "reject"})]
    assert found.changed_differently == [4]
    vote(benchmark, 0, carl=KEEP)
    assert measure_agreement(benchmark, read_reviews(benchmark)).coefficient == "Krippendorff's alpha"


# --- the reviewed set


def decide_all(review, **exceptions):
    for idx in review.benchmark.items:
        said = exceptions.get(f"q{idx}", KEEP)
        vote(review.benchmark, idx, **{review.reviewer: said})


def test_the_reviewed_set_holds_what_was_kept_as_it_was_wanted(folder, benchmark, anna, tmp_path):
    decide_all(anna, q1="tiny object", q2=CHANGED, q15="wrong answer")
    before = contents(folder)
    summary = export_reviewed(benchmark, tmp_path / "out")
    assert contents(folder) == before
    rows, old = read_rows(tmp_path / "out"), read_rows(folder)
    assert [row["idx"] for row in rows] == [idx for idx in range(16) if idx not in (1, 15)]
    for row in rows:
        expected = old[row["idx"]]
        if row["idx"] == 2:
            expected = expected | {
                "question": "Which one?",
                "choices": ["this", "that"],
                "answer": "(A)",
                "prompt": "Which one? Select from the following choices.\n(A) this\n(B) that",
            }
        assert row == expected
        assert (tmp_path / "out" / row["filename"]).read_bytes() == (folder / row["filename"]).read_bytes()
    assert summary.num_questions == summary.num_pictures == 14
    assert summary.outcomes["Count"] == {
        "accepted": 2, "modified": 1, "rejected": 1, "disputed": 0, "undecided": 0
    }  # fmt: skip
    assert [(one.idx, one.outcome, one.votes[0].reason) for one in summary.left_out] == [
        (1, "rejected", "tiny object"),
        (15, "rejected", "wrong answer"),
    ]
    assert len(list((tmp_path / "out" / "img").rglob("*.png"))) == 14
    geometry = [json.loads(line) for line in (tmp_path / "out" / "geometry.jsonl").read_text().splitlines()]
    assert [line["idx"] for line in geometry] == [row["idx"] for row in rows]


def test_the_evaluation_and_a_second_review_read_the_reviewed_set(folder, benchmark, anna, tmp_path):
    decide_all(anna, q1="tiny object", q2=CHANGED)
    export_reviewed(benchmark, tmp_path / "out")
    rows = read_rows(tmp_path / "out")
    asked = read_questions(tmp_path / "out", parts=("2D", "3D"))
    assert [question.text for question in asked] == [row["prompt"] for row in rows]
    tables = [pq.read_table(tmp_path / "out" / f"test_{part}.parquet") for part in ("2d", "3d")]
    table = [row for part in tables for row in part.to_pylist()]
    for in_table, row in zip(table, rows, strict=True):
        assert in_table.pop("image")["bytes"] == (folder / row["filename"]).read_bytes()
        assert in_table == row
    again = Review(read_benchmark(tmp_path / "out"), "ben")
    assert again.overview().notices == []
    assert again.details(14).margin is not None


def test_undecided_questions_must_be_asked_for(benchmark, anna, tmp_path):
    with pytest.raises(DataError, match="holds no decisions; review the benchmark first"):
        export_reviewed(benchmark, tmp_path / "out")
    for idx in range(3):
        anna.decide(idx, "accept")
    anna.decide(3, "reject", "tiny object")
    with pytest.raises(DataError, match=r"12 of 16 questions are undecided: 4, 5, 6, 7, 8 and more. Decide them"):
        export_reviewed(benchmark, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    summary = export_reviewed(benchmark, tmp_path / "out", include_undecided=True)
    assert summary.num_questions == 15
    assert summary.outcomes["Depth"]["undecided"] == 4
    card = (tmp_path / "out" / "README.md").read_text()
    assert "questions that nobody decided are in it as they stood" in card


@pytest.mark.parametrize("include_undecided", [False, True])
def test_broken_pictures_are_named_before_anything_is_written(folder, benchmark, anna, tmp_path, include_undecided):
    decide_all(anna, q4="tiny object")
    if include_undecided:
        anna.undo()  # of question 15
    broken = [break_picture(folder, idx) for idx in (2, 4, 15)]
    message = rf"2 of 15 questions .* question 2: .*{broken[0].name}: .* question 15: .*{broken[2].name}: "
    with pytest.raises(ImageError, match=message) as raised:
        export_reviewed(benchmark, tmp_path / "out", include_undecided=include_undecided)
    assert "question 4:" not in str(raised.value)  # it is left out, whatever its picture is
    assert not (tmp_path / "out").exists()


def test_a_broken_picture_in_parquet_is_named_before_anything_is_written(made, parquet, tmp_path):
    table = pq.read_table(parquet / "test_3d.parquet")
    rows = table.to_pylist()
    rows[1]["image"]["bytes"] = rows[1]["image"]["bytes"][:100]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), parquet / "test_3d.parquet")
    benchmark = read_benchmark(parquet)
    anna = Review(benchmark, "anna")
    with pytest.raises(ImageError, match="question 9 cannot be kept"):
        anna.decide(9, "accept")
    anna.decide(0, "accept")
    with pytest.raises(ImageError, match=rf"1 of 16 questions .* question 9: .*{Path(rows[1]['filename']).name}"):
        export_reviewed(benchmark, tmp_path / "out", include_undecided=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("cut", [b'{"idx":7,"decision":"rej', b'{"idx":7,"reason":"\xc3', b"\xff\xfe"])
def test_the_account_counts_lines_that_a_crash_has_cut(folder, benchmark, anna, tmp_path, cut):
    decide_all(anna)
    decide_all(Review(benchmark, "ben"))
    with anna.log.open("ab") as file:
        file.write(cut)
    assert cut_lines(folder) == {"anna": [17]}
    summary = export_reviewed(benchmark, tmp_path / "out")
    assert summary.cut_lines == {"anna": 1}
    assert json.loads((tmp_path / "out" / "review.json").read_text())["summary"]["cut_lines"] == {"anna": 1}
    assert export_reviewed(benchmark, tmp_path / "out") == summary


def test_disputed_questions_are_left_out_and_named(benchmark, anna, tmp_path):
    decide_all(anna)
    ben = Review(benchmark, "ben")
    decide_all(ben, q0="tiny object", q9=CHANGED)
    summary = export_reviewed(benchmark, tmp_path / "out")
    assert summary.num_questions == 14
    assert [(one.idx, one.outcome) for one in summary.left_out] == [(0, "disputed"), (9, "disputed")]
    assert {one.reviewer: one.decision for one in summary.left_out[0].votes} == {"anna": "accept", "ben": "reject"}
    assert summary.agreement is not None
    assert summary.agreement.overall.questions == 16
    stored = json.loads((tmp_path / "out" / "review.json").read_text())
    assert stored["summary"]["left_out"][0]["votes"][1] == {
        "reviewer": "ben", "decision": "reject", "reason": "tiny object"
    }  # fmt: skip
    assert stored["request"]["rule"] == "unanimous"


def test_the_card_states_the_counts(folder, benchmark, anna, tmp_path):
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\nconfigs: []\n---\n# Old\n")
    decide_all(anna, q1="tiny | object", q2=CHANGED)
    decide_all(Review(benchmark, "ben"), q1="no", q2=CHANGED)
    export_reviewed(benchmark, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\ntask_categories:\n")
    assert "# bench, reviewed\n\n15 questions" in card
    assert "looked at 16 of the 16 questions" in card
    assert "| Count | 2 | 1 | 1 | 0 | 0 | 3 |" in card
    assert "| all | 14 | 1 | 1 | 0 | 0 | 15 |" in card
    assert "| anna | 14 | 1 | 1 |" in card
    assert "| all | 16 | 1.000 | 1.000 |" in card
    assert (tmp_path / "out" / "benchmark.md").read_text() == (folder / "README.md").read_text()
    assert "    - test_2d.parquet\n    - test_3d.parquet\n- config_name: '2D'\n" in card


def test_a_part_of_which_nothing_is_left_has_no_table(benchmark, anna, tmp_path):
    (benchmark.folder / "README.md").unlink()
    decide_all(anna, **{f"q{idx}": "no depth" for idx in range(8, 16)})
    summary = export_reviewed(benchmark, tmp_path / "out")
    assert summary.tables == ["test_2d.jsonl", "test_2d.parquet"]
    assert not (tmp_path / "out" / "test_3d.jsonl").exists()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "test_3d" not in card
    assert "benchmark.md" not in card
    assert card.startswith("---\ntask_categories:")
    assert not (tmp_path / "out" / "benchmark.md").exists()
    assert len(read_benchmark(tmp_path / "out").items) == 8


def test_a_set_of_nothing_is_refused(benchmark, anna, tmp_path):
    decide_all(anna, **{f"q{idx}": "bad" for idx in range(16)})
    with pytest.raises(DataError, match="none of 16 questions was kept"):
        export_reviewed(benchmark, tmp_path / "out")


def test_a_finished_set_is_not_touched_again_and_other_decisions_are_refused(benchmark, anna, tmp_path):
    decide_all(anna)
    out = tmp_path / "out"
    summary = export_reviewed(benchmark, out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert export_reviewed(benchmark, out) == summary
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times
    (out / "test_2d.parquet").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"test_2d.parquet is missing from finished reviewed questions"):
        export_reviewed(benchmark, out)
    (tmp_path / "elsewhere").rename(out / "test_2d.parquet")
    anna.decide(0, "reject", "tiny object")
    with pytest.raises(DataError, match="holds other reviewed questions: decisions"):
        export_reviewed(benchmark, out)


def test_export_from_parquet_alone_gives_the_same_rows_and_pictures(made, parquet, tmp_path):
    benchmark = read_benchmark(parquet)
    decide_all(Review(benchmark, "anna"))
    export_reviewed(benchmark, tmp_path / "out")
    assert read_rows(tmp_path / "out") == read_rows(made)
    for row in read_rows(made):
        assert (tmp_path / "out" / row["filename"]).read_bytes() == (made / row["filename"]).read_bytes()


# --- the server


@contextmanager
def served(review, **options):
    server = open_server(review, **options)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(timeout=20)
        assert not thread.is_alive()


class Client:
    """A browser's requests, one connection each, with whatever headers the test wants."""

    def __init__(self, server):
        self.netloc = server.url.removeprefix("http://").rstrip("/")
        self.token = self.get("/api/questions")[2]["token"]

    def ask(self, method, path, headers, body=None):
        connection = http.client.HTTPConnection(self.netloc.replace("localhost", "127.0.0.1"), timeout=20)
        try:
            connection.request(method, path, body=body, headers={"host": self.netloc} | headers)
            reply = connection.getresponse()
            content = reply.read()
        finally:
            connection.close()
        is_json = reply.headers.get_content_type() == "application/json"
        return reply.status, reply.headers, json.loads(content) if is_json else content

    def get(self, path, **headers):
        return self.ask("GET", path, headers)

    def post(self, path, body, **headers):
        standard = {
            "content-type": "application/json",
            "x-review-token": getattr(self, "token", ""),
            "origin": f"http://{self.netloc}",
        }
        chosen = {name: value for name, value in (standard | headers).items() if value is not None}
        return self.ask("POST", path, chosen, body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.fixture
def client(anna):
    with served(anna) as server:
        yield Client(server)


ACCEPT = {"idx": 3, "decision": "accept"}


def test_a_decision_is_on_disk_when_the_page_is_told(client, anna):
    status, _, reply = client.post("/api/decisions", ACCEPT)
    assert status == 200
    assert reply["line"] == json.loads(lines(anna)[-1])
    listed = client.get("/api/questions")[2]
    assert listed["questions"][3]["decision"] == reply["line"]
    assert (listed["reviewer"], listed["folder"]) == ("anna", "bench")
    status, _, reply = client.post("/api/undo", {})
    assert (status, reply["taken_back"]["idx"], reply["line"]["decision"]) == (200, 3, "withdraw")
    assert anna.decisions() == {}


def test_what_cannot_be_stored_is_said(client, anna):
    status, _, reply = client.post("/api/decisions", {"idx": 3, "decision": "reject"})
    assert (status, reply) == (400, {"error": "a rejection needs a reason; none was given."})
    assert client.post("/api/decisions", {"idx": 99, "decision": "accept"})[0] == 400
    for nonsense in (b"{", b"[]", b"\xff", b'{"idx": 1}', b'{"idx": 1, "decision": "accept", "path": "x"}'):
        status, _, reply = client.post("/api/decisions", nonsense)
        assert (status, reply["error"].startswith("the page sent no decision")) == (400, True)
    assert client.post("/api/undo", {})[2] == {"error": "there is no decision to take back."}
    assert not anna.log.exists() or not lines(anna)


def test_pictures_and_details_are_found_by_number_alone(client, anna, folder):
    status, headers, content = client.get("/pictures/0")
    assert (status, headers["content-type"]) == (200, "image/png")
    assert headers.get_all("cache-control") == ["private, max-age=600"]
    assert headers["x-content-type-options"] == "nosniff"
    assert Image.open(io.BytesIO(content)).tobytes() == load_image(folder / anna.item(0).asked.filename).tobytes()
    assert client.get("/api/questions/9")[2] == json.loads(msgspec.json.encode(anna.details(9)))
    assert client.get("/pictures/99")[0] == 400
    for path in ("/pictures/../cvbench.json", "/page/../server.py", "/page/..%2fserver.py", "/bench/cvbench.json"):
        assert client.get(path)[0] in (404, 405)


def test_the_page_loads_nothing_from_outside_and_no_inline_script(client):
    status, headers, page = client.get("/")
    assert status == 200
    policy = headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    text = page.decode()
    links = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert links
    sources = [text]
    for link in links:
        assert link.startswith("/page/")
        status, _, content = client.get(link)
        assert status == 200
        sources.append(content.decode())
    names = set(re.findall(r'from "\./([a-z]+\.js)"', "".join(sources))) | {"api.js", "browser.js", "dom.js"}
    for name in names:
        status, headers, content = client.get(f"/page/{name}")
        assert (status, headers.get_content_type()) == (200, "text/javascript")
        sources.append(content.decode())
    for source in sources:
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(| on[a-z]+=|style=", source)
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", source)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "evil.example:80"}, 421),
        ({"host": ""}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
        ({"origin": "http://[::1"}, 403),
        ({"origin": "http://localhost:1"}, 403),
        ({"x-review-token": None}, 403),
        ({"x-review-token": "guessed"}, 403),
        ({"x-review-token": "gu\xe9ssed"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": None}, 415),
    ],
)
def test_a_decision_from_anywhere_else_is_turned_away(client, anna, headers, status):
    for path, body in (("/api/decisions", ACCEPT), ("/api/undo", {})):
        assert client.post(path, body, **headers)[0] == status
    assert not anna.log.exists()


def test_a_foreign_name_reads_nothing_either(client):
    for path in ("/", "/api/questions", "/pictures/0"):
        status, _, reply = client.get(path, host="evil.example")
        assert status == 421
        assert "is no name of this server" in reply["error"]


def test_an_endless_decision_is_not_read(client, anna):
    assert client.post("/api/decisions", b" " * 70000)[0] == 413
    assert not anna.log.exists()


def test_a_page_without_an_origin_header_and_through_a_tunnel_may_decide(client, anna):
    assert client.post("/api/decisions", ACCEPT, origin=None)[0] == 200
    tunnel = {"host": "localhost:9000", "origin": "http://localhost:9000"}
    assert client.post("/api/decisions", ACCEPT | {"idx": 4}, **tunnel)[0] == 200
    assert set(anna.decisions()) == {3, 4}


@pytest.mark.parametrize(
    ("header", "host", "is_own"),
    [
        ("127.0.0.1:8000", "127.0.0.1", True),
        ("localhost", "127.0.0.1", True),
        ("LOCALHOST:80", "127.0.0.1", True),
        ("[::1]:8000", "::1", True),
        ("192.168.1.7:8000", "0.0.0.0", True),
        ("desk.lan:8000", "Desk.lan", True),
        ("desk.lan:8000", "127.0.0.1", False),
        ("localhost.evil.example", "127.0.0.1", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("evil.example#@127.0.0.1", "127.0.0.1", False),
        ("[::1", "127.0.0.1", False),
        ("", "127.0.0.1", False),
    ],
)
def test_names_of_this_server(header, host, is_own):
    assert is_own_name(header, host) is is_own


def test_two_servers_of_one_reviewer_see_each_others_decisions(benchmark, anna, client):
    with served(Review(benchmark, "anna")) as second:
        other = Client(second)
        assert client.post("/api/decisions", ACCEPT)[0] == 200
        assert other.get("/api/questions")[2]["questions"][3]["decision"]["decision"] == "accept"
        assert other.post("/api/decisions", ACCEPT | {"idx": 4})[0] == 200
        assert other.post("/api/decisions", ACCEPT, **{"x-review-token": client.token})[0] == 403
        assert client.post("/api/undo", {})[2]["taken_back"]["idx"] == 4
    assert set(anna.decisions()) == {3}


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_it_listens_on_the_loopback_address_unless_told_otherwise(anna):
    with served(anna) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert server.is_local
        port = int(server.url.rstrip("/").rpartition(":")[2])
        with pytest.raises(DataError, match=f"cannot listen on 127.0.0.1, port {port}"):
            open_server(anna, port=port)
    if has_ipv6():
        with served(anna, host="::1") as server:
            assert server.url.startswith("http://[::1]:")
            assert server.is_local
            assert Client(server).post("/api/decisions", ACCEPT)[0] == 200
    with served(anna, host="0.0.0.0") as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert not server.is_local
    with pytest.raises(DataError, match=r"cannot listen on 203.0.113.7, port 0"):
        open_server(anna, host="203.0.113.7")
    with pytest.raises(DataError, match="port 70000 does not exist"):
        open_server(anna, port=70000)


@pytest.mark.parametrize("library", ["starlette", "uvicorn"])
def test_without_the_extra_the_page_says_what_to_install(anna, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DataError, match=r"needs a server .*install cambrian-data\[review\]"):
        open_server(anna)
