import subprocess
import sys

import pytest

from cambrian_model.errors import TrainingError
from cambrian_model.training import folder_lock
from cambrian_model.training.folder_lock import FolderLock

HOLD = """
import sys
from pathlib import Path
from cambrian_model.training.folder_lock import FolderLock
FolderLock(Path(sys.argv[1])).take()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_folder_is_held_by_one_process_until_it_ends_however_it_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "PATIENCE", 0.1)
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(TrainingError, match=r"another process is training in .*choose another --output"):
            FolderLock(tmp_path).take()
        other.kill()
    lock = FolderLock(tmp_path)
    lock.take()
    lock.take()
    lock.release()
    FolderLock(tmp_path).take()
    assert not list(tmp_path.iterdir())
