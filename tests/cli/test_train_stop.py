"""`cambrian train` that is told to stop, as a batch system does before it ends a job."""

import os
import signal
import subprocess
import sys
import time
from typing import Any

from tests.support.recipes import SCRATCH

SETTINGS = ("data.scenes.scenes.count=12", "stages.align.max_steps=1000", "num_workers=1")


def test_a_command_that_is_told_to_stop_saves_and_ends_with_status_143(cache, tmp_path):
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    run = tmp_path / "run"
    command = [sys.executable, "-m", "cambrian_cli", "train", str(SCRATCH), *settings, "--output", str(run)]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    options: dict[str, Any] = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        while process.poll() is None and not has_lines(run / "metrics.jsonl"):
            time.sleep(0.01)
        assert process.returncode is None, process.communicate()[1]
        os.killpg(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=60)

    (saved,) = (run / "checkpoints").glob("*/COMPLETE")
    assert process.returncode == 143
    assert f"of 1000 of stage align is saved in {saved.parent}; continue with --resume" in said
    assert "Traceback" not in said


def has_lines(path):
    return path.is_file() and path.stat().st_size > 0
