"""`cambrian tasks`."""

import json
import subprocess
import sys

import pytest

from cambrian_eval import TASKS


def rows(stdout):
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in stdout.splitlines() if line.startswith("│")]


def test_all_benchmarks_are_listed_with_their_sizes_and_scores(cambrian):
    outcome = cambrian("tasks", "list")
    assert outcome.status == 0
    table = {row[0]: row[1:] for row in rows(outcome.stdout)}
    assert list(table) == TASKS.names()
    assert table["mmvp"] == ["vision-centric", "300", "train", "letter", "accuracy over pairs, %"]
    assert table["pope"][0] == ""
    assert table["stvqa"][1] == "not known"


def test_the_list_is_also_for_machines(cambrian):
    tasks = json.loads(cambrian("tasks", "list", "--json").stdout)["tasks"]
    assert [task["name"] for task in tasks] == TASKS.names()
    (gqa,) = [task for task in tasks if task["name"] == "gqa"]
    assert gqa["groups"] == ["general", "cambrian-16"]
    assert gqa["hub"] == "lmms-lab/GQA"
    assert gqa["num_questions"] == 12578


def test_groups_are_the_papers(cambrian):
    outcome = cambrian("tasks", "groups")
    assert rows(outcome.stdout)[0] == ["general", "mme, mmbench-en, seed, gqa"]
    groups = json.loads(cambrian("tasks", "groups", "--json").stdout)["groups"]
    assert len(groups["cambrian-16"]) == 16


def test_benchmarks_of_one_group_are_listed(cambrian, refused):
    outcome = cambrian("tasks", "groups", "vision-centric")
    assert [row[0] for row in rows(outcome.stdout)] == ["mmvp", "realworldqa", "cvbench-2d", "cvbench-3d"]
    tasks = json.loads(cambrian("tasks", "groups", "general", "--json").stdout)["tasks"]
    assert [task["name"] for task in tasks] == ["mme", "mmbench-en", "seed", "gqa"]
    assert 'unknown group "visoin"; did you mean "vision-centric"?' in refused("tasks", "groups", "visoin")


def test_the_name_of_a_group_is_answered_with_the_command_that_lists_it(refused):
    assert 'cambrian tasks groups cambrian-16" lists them' in refused("tasks", "show", "cambrian-16")


@pytest.mark.parametrize("name", TASKS.names())
def test_every_benchmark_is_shown_with_an_example(name, cambrian):
    outcome = cambrian("tasks", "show", name)
    assert outcome.status == 0
    task = TASKS.get(name)
    assert f"{name} (version {task.version})" in outcome.stdout
    assert f"{task.hub.repo} at commit {task.hub.revision}" in outcome.stdout
    assert task.headline in outcome.stdout
    assert f"cambrian eval {name} --model MODEL [--data DIR]" in outcome.stdout
    assert all(field in outcome.stdout for field in task.fields)
    assert "    <picture>" in outcome.stdout
    shown = json.loads(cambrian("tasks", "show", name, "--json").stdout)
    assert shown["example"].endswith(shown["instruction"])
    assert shown["max_new_tokens"] >= 1
    assert shown["metrics"]


def test_unknown_benchmark_is_answered_with_the_closest_one(refused):
    assert 'unknown task "mmvip"; did you mean "mmvp"?' in refused("tasks", "show", "mmvip")


def test_help_is_still_there(cambrian):
    for arguments in (["tasks", "--help"], ["tasks", "list", "--help"], ["tasks", "show", "-h"], ["--help"]):
        assert "Usage: cambrian" in cambrian(*arguments).stdout


@pytest.mark.parametrize("arguments", [["tasks", "list"], ["tasks", "show", "mmmu"]])
def test_nothing_heavy_is_imported(arguments):
    heavy = "{'torch', 'transformers', 'scipy', 'pyarrow', 'numpy', 'httpx', 'matplotlib', 'rapidfuzz', 'datasets'}"
    quick = "{'pydantic', 'huggingface_hub', 'PIL', 'cambrian_eval.runner', 'cambrian_eval.scoring.letters'}"
    code = (
        "import sys\nfrom cambrian_cli.main import app\n"
        f"try:\n    app(args={arguments!r})\nexcept SystemExit:\n    pass\n"
        f"print(sorted({heavy} & set(sys.modules)), sorted({quick} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    forbidden, slow = done.stderr.strip().splitlines()[-1].split("] ")
    assert forbidden == "["
    if arguments == ["tasks", "list"]:
        assert slow == "[]"
