"""Runs that end before their end: told to stop, or without room on the disk. All of them continue bit for bit."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cambrian_model.errors import RunStopped, TrainingError
from cambrian_model.training import train
from tests.support.gloo import run_ranks
from tests.support.pictures import Pictures
from tests.support.small_run import Interrupt, assert_same_run, lines, small_recipe

ROOT = Path(__file__).parents[2]
EVERY = "checkpoint.every=0"  # so that only being told to stop saves


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    return {"scenes": Pictures(tmp_path_factory.mktemp("pictures"))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, datasets):
    """An undisturbed run."""
    output = tmp_path_factory.mktemp("whole") / "run"
    return train(small_recipe(EVERY), datasets=datasets, output=output, stages=["align"]).run_dir


RUN = """
import sys
from pathlib import Path
import tests.conftest
from cambrian_model.errors import RunStopped
from cambrian_model.training import train
from tests.model.test_training_stop import EVERY
from tests.support.pictures import Pictures
from tests.support.small_run import small_recipe
try:
    train(
        small_recipe(EVERY, *sys.argv[3:]),
        datasets={"scenes": Pictures(Path(sys.argv[2]))},
        output=Path(sys.argv[1]),
        stages=["align"],
    )
except RunStopped as stopped:
    print(stopped)
    sys.exit(stopped.exit_status)
"""


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_that_is_told_to_stop_saves_says_so_and_continues(num_workers, whole, datasets, tmp_path):
    """The whole group of processes is told, as a batch system does: with two workers, these too."""
    output, workers = tmp_path / "run", f"num_workers={num_workers}"
    command = [sys.executable, "-c", RUN, str(output), str(datasets["scenes"].folder), workers]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        while process.poll() is None and not has_lines(output / "metrics.jsonl"):
            time.sleep(0.005)
        assert process.returncode is None, "it ended before its first step"
        os.killpg(process.pid, signal.SIGTERM)
        printed, _ = process.communicate(timeout=60)

    done = len(lines(output))
    assert process.returncode == 143
    assert f"told to stop: step {done} of 6 of stage align is saved in" in printed
    assert [path.name for path in (output / "checkpoints").iterdir()] == [f"align-{done:06d}"]
    train(small_recipe(EVERY), datasets=datasets, output=output, stages=["align"], resume=True)
    assert_same_run(output, whole)


def has_lines(path):
    return path.is_file() and path.stat().st_size > 0


def stop_one_rank(output, pictures):
    """Trains; rank 1 alone is told to stop, after its second step. Returns what is said."""
    import torch.distributed as dist

    def kill(now):
        if dist.get_rank() == 1 and (now.phase, now.done) == ("train", 2):
            os.kill(os.getpid(), signal.SIGTERM)

    options: dict[str, Any] = {"datasets": {"scenes": Pictures(pictures)}, "output": Path(output), "stages": ["align"]}
    try:
        train(small_recipe(EVERY), **options, progress=kill)
    except RunStopped as stopped:
        return str(stopped)
    return "was not stopped"


def test_all_ranks_stop_where_one_is_told_to(datasets, tmp_path):
    said = run_ranks(stop_one_rank, 2, str(tmp_path / "run"), str(datasets["scenes"].folder))

    assert said[0] == said[1]
    assert "told to stop: step 3 of 6" in said[0]
    assert (tmp_path / "run" / "checkpoints" / "align-000003" / "COMPLETE").is_file()


def test_the_handler_of_whoever_calls_is_back_afterwards(datasets, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingError):
        train(small_recipe(), datasets={"scenes": []}, output=tmp_path / "run", stages=["align"])
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture
def files_may_grow_to():
    """Sets the most bytes that a file may have, which is what a full disk looks like to the writer."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(("size", "fails_at"), [(100_000, "checkpoint .*align-000004"), (100, r".*metrics\.jsonl")])
def test_a_full_disk_ends_the_run_which_then_continues_from_what_is_whole(
    size, fails_at, whole, datasets, tmp_path, files_may_grow_to
):
    def fill(now):
        if (now.phase, now.done) == ("train", 3):
            files_may_grow_to(size)

    options: dict[str, Any] = {"datasets": datasets, "output": tmp_path / "run", "stages": ["align"]}
    recipe = small_recipe("checkpoint.every=2")
    with pytest.raises(TrainingError, match=rf"could not write {fails_at}.*free disk space.*--resume"):
        train(recipe, **options, progress=fill)
    files_may_grow_to(resource.RLIM_INFINITY)

    whole_ones = [path.parent.name for path in (tmp_path / "run" / "checkpoints").glob("*/COMPLETE")]
    assert whole_ones == ["align-000002"]
    train(recipe, **options, resume=True)
    assert_same_run(tmp_path / "run", whole)


def test_a_full_disk_while_the_model_is_written_is_the_users_error_too(datasets, tmp_path, files_may_grow_to, whole):
    def fill(now):
        if now.phase == "export":
            files_may_grow_to(100_000)

    options: dict[str, Any] = {"datasets": datasets, "output": tmp_path / "run", "stages": ["align"]}
    recipe = small_recipe("checkpoint.every=5")
    with pytest.raises(TrainingError, match=r"the model of stage.*free disk space"):
        train(recipe, **options, progress=fill)
    files_may_grow_to(resource.RLIM_INFINITY)
    assert not (tmp_path / "run" / "stages" / "align").exists()
    train(recipe, **options, resume=True)
    assert_same_run(tmp_path / "run", whole)


def test_being_told_in_the_last_step_finishes_the_stage(datasets, tmp_path, whole):
    def told(now):
        if (now.phase, now.done) == ("train", 5):
            os.kill(os.getpid(), signal.SIGTERM)

    options: dict[str, Any] = {"datasets": datasets, "output": tmp_path / "run", "stages": ["align"]}
    assert train(small_recipe(EVERY), **options, progress=told).stages["align"].steps == 6
    assert_same_run(tmp_path / "run", whole)


def test_an_interrupt_leaves_the_save_in_the_background_whole(datasets, tmp_path, whole):
    options: dict[str, Any] = {"datasets": datasets, "output": tmp_path / "run", "stages": ["align"]}
    recipe = small_recipe("checkpoint.every=1")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, **options, progress=Interrupt(4))
    assert (tmp_path / "run" / "checkpoints" / "align-000003" / "COMPLETE").is_file()
    train(recipe, **options, resume=True)
    assert_same_run(tmp_path / "run", whole)
