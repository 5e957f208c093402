"""Worker processes end with the process that started them, also one that dies while they start."""

import os
import subprocess
import sys
import time

PARENT = """
import os, time
from torch.utils.data import DataLoader
from cambrian_model.training.workers import end_with_parent

check = end_with_parent()

def start_slowly(worker):
    time.sleep(2)
    check(worker)

batches = iter(DataLoader(range(100), num_workers=1, worker_init_fn=start_slowly))
print(batches._workers[0].pid, flush=True)
os._exit(9)
"""


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_whose_parent_died_while_it_started_ends_too():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert parent.wait(timeout=60) == 9
    parent.stdout.close()
    assert is_alive(pid)
    deadline = time.monotonic() + 30
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    survived = is_alive(pid)
    if survived:
        os.kill(pid, 9)
    assert not survived
