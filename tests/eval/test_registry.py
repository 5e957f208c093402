import subprocess
import sys

import pytest

from cambrian_eval import TASKS, UnknownNameError, load_model
from cambrian_eval.errors import ModelError


@pytest.mark.parametrize(
    ("name", "hint"), [("cvbnch", "cvbench"), ("cv-bench-2d", "cvbench-2d"), ("CVBench3D", "cvbench-3d")]
)
def test_unknown_task_is_answered_with_the_closest_one(name, hint):
    with pytest.raises(UnknownNameError, match=f'unknown task "{name}"; did you mean "{hint}"'):
        TASKS.get(name)


def test_unknown_name_like_nothing_lists_what_is_known():
    with pytest.raises(UnknownNameError, match="known: cvbench, cvbench-2d, cvbench-3d"):
        TASKS.get("zzzz")


def test_unknown_model_is_answered_with_the_closest_one():
    with pytest.raises(UnknownNameError, match='did you mean "random"'):
        load_model("rnadom")


@pytest.mark.parametrize("spec", ["random:x", "constant:AB", "constant:1", "canned", "canned:nowhere.jsonl"])
def test_model_argument_that_is_not_understood_says_what_to_write(spec):
    with pytest.raises(ModelError, match="found"):
        load_model(spec)


def test_every_task_can_be_loaded():
    assert [TASKS.get(name).name for name in TASKS.names()] == TASKS.names()


def test_importing_the_package_imports_nothing_heavy():
    heavy = "{'torch', 'transformers', 'scipy', 'pyarrow', 'numpy', 'PIL', 'huggingface_hub'}"
    code = f"import sys, cambrian_eval; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
