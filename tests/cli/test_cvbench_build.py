"""`cambrian cvbench build` and `cambrian cvbench rules`."""

import json
from pathlib import Path

import pytest

from cambrian_cli.commands.cvbench.build import split
from cambrian_cli.errors import CommandError
from cambrian_data.cvbench.rulebook import entries
from cambrian_data.cvbench.rules import Rules
from cambrian_data.scenes import write_scenes

TASKS = ("Count", "Relation", "Depth", "Distance")
LOOSE = tuple(f"--rule={task}.seen.min_side=4" for task in ("count", "relation", "depth", "distance"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=60, seed=6)
    return folder


def test_scenes_become_a_benchmark_that_eval_reads(cambrian, scenes):
    outcome = cambrian("cvbench", "build", "--scenes", scenes, "--output", "bench", "--count-per-task", 4, "--json")
    assert outcome.status == 0, outcome.stderr
    result = json.loads(outcome.stdout)
    assert result["tasks"] == dict.fromkeys(TASKS, 4)
    assert (result["num_questions"], result["output"]) == (16, "bench")
    assert result["sources"][0]["rejections"]["candidate: enough"] > 0
    again = cambrian("cvbench", "build", "--scenes", scenes, "--output", "bench", "--count-per-task", 4, "--json")
    assert again.stdout == outcome.stdout
    scored = cambrian("eval", "cvbench", "--model", "constant:B", "--data", "bench", "--json")
    (found,) = json.loads(scored.stdout)["evaluation"].values()
    assert {task: row["n"] for task, row in found["tasks"].items()} == dict.fromkeys(TASKS, 4)


def test_annotation_files_find_their_pictures(cambrian, scenes, tmp_path):
    """One source's folder of pictures is its own, the other's the common one."""
    arguments = (
        *("--coco", f"{scenes}/instances.json={scenes}/images", "--omni3d", scenes / "cuboids.json"),
        *("--images", scenes / "images", "--output", "bench", "--count-per-task", 6, *LOOSE),
    )
    outcome = cambrian("cvbench", "build", *arguments)
    assert outcome.status == 0, outcome.stderr
    asked, refused = outcome.stdout.split("Refused")
    for task, source in zip(TASKS, ("COCO", "COCO", "Omni3D", "Omni3D"), strict=True):
        (line,) = [line for line in asked.splitlines() if line.startswith(f"│ {task} ")]
        assert [cell.strip() for cell in line.split("│")[1:5]] == [task, source, "6", "6"]
    assert "│ margin " in refused
    assert "│ pool_per_picture " in refused
    assert outcome.stdout.endswith("24 questions about 24 pictures: bench\n")
    rules = json.loads(Path("bench/cvbench.json").read_text())["request"]["rules"]
    assert rules["photographs"]["count"]["seen"]["min_side"] == 4
    assert rules["photographs"]["relation"]["max_overlap"] == 0.1


def test_rules_come_from_the_defaults_then_the_file_then_the_options(cambrian, scenes):
    Path("rules.yaml").write_text("relation: {margin: 0.2, max_overlap: 0.05}\n")
    given = ("--rules", "rules.yaml", "--rule", "relation.margin=0.3", "--rule", "count.per_category=3")
    listed = json.loads(cambrian("cvbench", "rules", *given, "--json").stdout)["rules"]
    expected = {entry.name: entry.value for entry in entries(Rules.photographs())}
    changes = {"relation.margin": 0.3, "relation.max_overlap": 0.05, "count.per_category": 3}
    assert listed == expected | changes
    of_scenes = json.loads(cambrian("cvbench", "rules", "--for", "scenes", "--json").stdout)["rules"]
    assert of_scenes == {entry.name: entry.value for entry in entries(Rules())}
    shown = cambrian("cvbench", "rules", *given).stdout
    assert "relation.margin" in shown
    assert "a number of 0 or more" in shown


def test_a_path_may_hold_an_equals_sign(tmp_path):
    (tmp_path / "a=b.json").touch()
    assert split(str(tmp_path / "a=b.json")) == (tmp_path / "a=b.json", None)
    assert split(f"{tmp_path}/a=b.json=pictures") == (tmp_path / "a=b.json", Path("pictures"))
    assert split("file.json") == (Path("file.json"), None)
    for text in ("=pictures", "file.json="):
        with pytest.raises(CommandError, match="expected PATH or PATH=IMAGES"):
            split(text)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "nothing to ask about; give --coco, --ade20k, --ade20k-masks, --omni3d or --scenes"),
        (["--scenes", "nowhere"], "nowhere"),
        (["--coco", "a.json"], "a.json: where are its pictures?"),
        (["--coco", "a.json=nowhere"], "the folder of its pictures, nowhere, is not there"),
        (["--coco", "a.json=."], 'a JSON object without the list "annotations"'),
        (["--ade20k-masks", ".=."], "give the table of their 150 classes"),
        (["--coco", "a.json=.", "--rule", "relation.margn=1"], "unknown rule 'relation.margn'; did you mean"),
        (["--coco", "a.json=.", "--rule", "margin"], "rule 'margin' is no NAME=VALUE"),
        (["--coco", "a.json=.", "--rules", "none.yaml"], "cannot read none.yaml: No such file"),
        (["--coco", "a.json=.", "--rules", "wrong.yaml"], "wrong.yaml: relation.margin is -1; expected a number of 0"),
    ],
)
def test_what_cannot_be_built_is_refused(refused, arguments, problem):
    Path("a.json").write_text('{"images": []}')
    Path("wrong.yaml").write_text("relation: {margin: -1}")
    assert problem in refused("cvbench", "build", "--output", "out", *arguments)


def test_scenes_that_are_none_make_no_questions(refused, tmp_path):
    (tmp_path / "images").mkdir()
    assert "no finished scenes" in refused("cvbench", "build", "--scenes", tmp_path, "--output", tmp_path / "out")
