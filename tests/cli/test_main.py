"""What every command has in common: help, versions, and how errors become exit statuses."""

import errno
import signal
import subprocess
import sys

import pytest
from safetensors import SafetensorError

from cambrian_cli import main
from cambrian_data.errors import DataError
from cambrian_eval.errors import EvalError
from cambrian_model.errors import CambrianModelError


def test_help_names_every_command_and_the_exit_statuses(cambrian):
    outcome = cambrian("--help")
    assert outcome.status == 0
    for command in ("train", "pretrain", "finetune", "ask", "eval", "recipes", "data", "cvbench"):
        assert f"  {command} " in outcome.stdout
    assert "Exit status" in outcome.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["train"],
        ["pretrain"],
        ["finetune"],
        ["ask"],
        ["eval"],
        ["recipes", "show"],
        ["data", "scenes"],
        ["cvbench", "build"],
        ["cvbench", "rules"],
    ],
)
def test_every_command_explains_itself(cambrian, command):
    outcome = cambrian(*command, "--help")
    assert outcome.status == 0
    assert "Usage: cambrian " + " ".join(command) in outcome.stdout


def test_version_names_the_four_packages(cambrian):
    outcome = cambrian("--version")
    assert outcome.status == 0
    assert all(
        name in outcome.stdout for name in ("cambrian 0", "cambrian-model 0", "cambrian-data 0", "cambrian-eval 0")
    )


def test_unknown_command_gets_a_suggestion(cambrian):
    outcome = cambrian("finetun")
    assert outcome.status == 2
    assert "'finetune'" in outcome.stderr


def test_unknown_option_gets_a_suggestion(cambrian):
    outcome = cambrian("train", "--outptu", "x")
    assert outcome.status == 2
    assert "--output" in outcome.stderr


@pytest.mark.parametrize("base", [CambrianModelError, DataError, EvalError])
def test_errors_of_the_libraries_are_explained_in_one_paragraph(base):
    class Child(base):  # type: ignore[misc, valid-type]
        pass

    assert (
        main.explain(Child("rows.jsonl:3: no messages;\n  fix the record"))
        == "rows.jsonl:3: no messages; fix the record"
    )


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "/runs/a"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        PermissionError(errno.EACCES, "Permission denied", "/runs"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_what_the_machine_refuses_says_what_to_do(error):
    message = main.explain(error)
    assert message is not None
    assert "folder" in message


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("x"), FileNotFoundError(errno.ENOENT, "gone"), OSError("x")]
)
def test_defects_of_ours_are_not_explained_away(error):
    assert main.explain(error) is None


def run_with_command(body: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs the app in a process of its own, with one more command `try` whose body is given."""
    code = f"from cambrian_cli.main import app, run\n@app.command('try')\ndef attempt():\n    {body}\nrun(['try'])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


def test_an_error_of_the_user_ends_with_status_2_and_no_traceback():
    done = run_with_command("from cambrian_data.errors import DataError; raise DataError('rows.jsonl:3: no messages')")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: rows.jsonl:3: no messages\n")


def test_a_crash_keeps_its_traceback_and_ends_with_status_1():
    done = run_with_command("raise ZeroDivisionError('ours')")
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert "ZeroDivisionError: ours" in done.stderr


def test_ctrl_c_ends_with_status_130_and_one_line():
    done = run_with_command(f"import os; os.kill(os.getpid(), {signal.SIGINT.value}); import time; time.sleep(30)")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_python_m_is_the_same_program():
    done = subprocess.run(
        [sys.executable, "-m", "cambrian_cli", "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith("Usage: cambrian [OPTIONS] COMMAND")
