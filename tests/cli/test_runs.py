"""Run folders: no two runs meet."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from cambrian_cli import runs


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
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "--output" in refused("train")


def test_the_checkpoint_of_a_run_is_found(tmp_path):
    (tmp_path / "run" / runs.CHECKPOINT).mkdir(parents=True)
    assert runs.checkpoint_in(tmp_path / "run") == tmp_path / "run" / runs.CHECKPOINT
    assert runs.checkpoint_in(tmp_path / "run" / runs.CHECKPOINT) == tmp_path / "run" / runs.CHECKPOINT
    assert runs.checkpoint_in(Path("someone/model")) == Path("someone/model")
