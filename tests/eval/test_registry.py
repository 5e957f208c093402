import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cambrian_eval import TASKS, UnknownNameError, load_model
from cambrian_eval.errors import ModelError
from cambrian_eval.examples import FILES, example_questions
from cambrian_eval.listing import FILE, make_listing, read_listing

EVALUATION = Path(__file__).parents[2] / "docs" / "evaluation" / "tasks.md"


@pytest.mark.parametrize(
    ("name", "hint"), [("cvbnch", "cvbench"), ("cv-bench-2d", "cvbench-2d"), ("CVBench3D", "cvbench-3d")]
)
def test_unknown_task_is_answered_with_the_closest_one(name, hint):
    with pytest.raises(UnknownNameError, match=f'unknown task "{name}"; did you mean "{hint}"'):
        TASKS.get(name)


def test_unknown_name_like_nothing_lists_what_is_known():
    with pytest.raises(UnknownNameError, match=r"known: ai2d, blink, chartqa, cvbench, cvbench-2d, .*, vizwiz, vstar"):
        TASKS.get("0000")


def test_unknown_model_is_answered_with_the_closest_one():
    with pytest.raises(UnknownNameError, match='did you mean "random"'):
        load_model("rnadom")


@pytest.mark.parametrize("spec", ["random:x", "canned", "canned:nowhere.jsonl"])
def test_model_argument_that_is_not_understood_says_what_to_write(spec):
    with pytest.raises(ModelError, match="found"):
        load_model(spec)


def test_every_task_can_be_loaded():
    assert [TASKS.get(name).name for name in TASKS.names()] == TASKS.names()


@pytest.mark.parametrize("name", TASKS.names())
def test_every_task_tells_what_a_list_needs(name):
    task = TASKS.get(name)
    assert task.version >= 1
    assert task.splits
    assert len(task.fields) == len(set(task.fields)) >= 2
    assert task.rule
    assert task.headline
    assert "/" in task.hub.repo
    assert task.hub.files_of(task.splits[0])
    size = "about 4000" if task.num_questions is None else str(task.num_questions)
    assert task.description.endswith(f"{size} questions")


def test_every_task_reads_one_fixed_commit_of_its_data():
    """Data on the hub may change: without a commit a score would not say of what it is."""
    pinned = {(task.hub.repo, task.hub.revision) for task in map(TASKS.get, TASKS.names())}
    for repo, revision in pinned:
        assert re.fullmatch("[0-9a-f]{40}", revision), f"{repo}: {revision} is no full commit"
    assert len({repo for repo, _ in pinned}) == len(pinned), "two tasks read one repository at two commits"


def test_page_of_tasks_names_the_commit_of_every_repository():
    page = EVALUATION.read_text(encoding="utf-8")
    for task in map(TASKS.get, TASKS.names()):
        assert f"| {task.hub.repo} | `{task.hub.revision}` |" in page, task.name


@pytest.mark.parametrize("name", TASKS.names())
def test_every_task_asks_its_example(name):
    task = TASKS.get(name)
    for question in example_questions(task):
        prompt = task.prompt(question)
        assert prompt.id == question.id
        assert prompt.text.strip()
        assert prompt.text.endswith(prompt.instruction)
        assert prompt.pictures == question.pictures
        assert 1 <= prompt.max_new_tokens <= 512
        assert prompt == task.prompt(question)


@pytest.mark.parametrize("name", TASKS.names())
def test_every_task_reads_any_reply_without_inventing_an_answer(name):
    task = TASKS.get(name)
    for question in example_questions(task):
        for reply in ("", "   \n", "I cannot see a picture."):
            score = task.score(question, reply)
            assert score.extracted is None or name in ("mmvet", "synthdog"), (reply, score)
            assert score.value in (None, 0) or name == "synthdog"
            assert score.rule


@pytest.mark.parametrize("name", TASKS.names())
def test_every_example_is_made_of_fields_that_the_task_names(name):
    task = TASKS.get(name)
    named = {field.split(" to ")[0] for field in task.fields}
    rows = [row for rows in FILES[name].values() for row in rows]
    assert all(named & set(row) for row in rows)


def test_there_is_an_example_of_every_task_and_of_nothing_else():
    assert sorted(FILES) == TASKS.names()


def test_listing_is_what_the_tasks_say():
    assert read_listing() == json.loads(json.dumps(make_listing())), "run: python -m cambrian_eval.listing"
    assert FILE.name == "listing.json"


def test_page_of_tasks_holds_every_task_as_it_is():
    """Name, questions, splits, rule, headline and hub of every task stand in one line of the page's table."""
    lines = [line for line in EVALUATION.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    table = {row[0].strip("`"): row[1:] for row in cells}
    assert sorted(table) == TASKS.names()
    for facts in make_listing():
        size = "about 4000" if facts["num_questions"] is None else f"{facts['num_questions']:,}"
        splits = ", ".join(facts["splits"])
        expected = [f"`{facts['hub']}`", splits, size, facts["rule"], facts["headline"]]
        assert table[facts["name"]][:5] == expected, f"{facts['name']}: change its line of the page"


def test_importing_the_package_imports_nothing_heavy():
    heavy = "{'torch', 'transformers', 'scipy', 'pyarrow', 'numpy', 'PIL', 'huggingface_hub'}"
    code = f"import sys, cambrian_eval; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
