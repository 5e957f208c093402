"""Run folders: no two runs meet."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from cambrian_cli import runs
from cambrian_cli.errors import CommandError


def test_runs_that_start_in_the_same_second_get_folders_of_their_own():
    now = datetime(2026, 11, 22, 13, 5, 9)
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: runs.new_folder("tiny", now), range(24)))
    assert len(set(folders)) == 24
    assert Path("runs/tiny-20261122-130509") in folders
    assert all(folder.is_dir() and not list(folder.iterdir()) for folder in folders)


def test_resume_needs_a_named_folder(refused):
    assert "--output" in refused("train", "--resume")


@pytest.mark.parametrize("options", [[], ["--output", "run"]])
def test_several_processes_are_refused_before_a_folder_is_claimed(refused, monkeypatch, options):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "2 processes were started, but training runs in one process for now" in refused("train", *options)
    assert not Path("run").exists()
    assert not Path("runs").exists()


@pytest.mark.parametrize(("file", "stays"), [("recipe.yaml", False), ("metrics.jsonl", True)])
def test_a_new_folder_goes_again_if_an_error_comes_before_the_first_step(file, stays):
    def fail() -> None:
        with runs.folder_of_run(None, "tiny") as folder:
            (folder / file).write_text("{}\n")
            raise CommandError("a mistake")

    with pytest.raises(CommandError, match="a mistake"):
        fail()
    assert Path("runs").exists() == stays


def test_asking_an_unfinished_run_says_how_to_finish_it(refused):
    Path("run").mkdir()
    Path("run/recipe.yaml").write_text("name: tiny")
    assert "this run has not finished; continue it with --resume" in refused("ask", "run", "What?")


def test_the_checkpoint_of_a_run_is_found(tmp_path):
    (tmp_path / "run" / runs.CHECKPOINT).mkdir(parents=True)
    assert runs.checkpoint_in(tmp_path / "run") == tmp_path / "run" / runs.CHECKPOINT
    assert runs.checkpoint_in(tmp_path / "run" / runs.CHECKPOINT) == tmp_path / "run" / runs.CHECKPOINT
    assert runs.checkpoint_in(Path("someone/model")) == Path("someone/model")
