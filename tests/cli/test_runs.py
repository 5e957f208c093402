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


def test_several_processes_need_a_named_folder(refused, monkeypatch):
    environment = {"WORLD_SIZE": 2, "RANK": 0, "LOCAL_WORLD_SIZE": 2, "LOCAL_RANK": 0}
    for name, value in (environment | {"MASTER_ADDR": "localhost", "MASTER_PORT": 29500}).items():
        monkeypatch.setenv(name, str(value))
    assert "2 processes share one run; name its folder with --output DIR" in refused("train")
    assert not Path("runs").exists()


def test_a_process_that_does_not_know_which_one_it_is_claims_no_folder(refused, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "WORLD_SIZE is 2, but RANK is not set" in refused("train", "--output", "run")
    assert not Path("run").exists()


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
