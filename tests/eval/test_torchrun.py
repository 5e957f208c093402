"""Processes that torchrun started share one run: through a counter and parts of a log, on a real store."""

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from cambrian_eval import EvalError, evaluate
from cambrian_eval.models.baselines import RandomChoice
from tests.eval.benchmark_folder import write_cvbench

FILES = ("run.json", "samples.jsonl", "metrics.json", "failures.json", "report.html")

PROCESS = """
import os, sys, time
from pathlib import Path
from cambrian_eval import EvalError, Failure, evaluate
from cambrian_eval.models.baselines import RandomChoice

rank = os.environ["RANK"]
mood = sys.argv[3:]


class Slow(RandomChoice):
    def answer(self, prompts):
        with Path(sys.argv[2] + ".calls").open("a") as file:
            file.write(f"{rank} {' '.join(prompt.id for prompt in prompts)}\\n")
        time.sleep(0.02)
        while "fair" in mood and f"\\n{1 - int(rank)} " not in "\\n" + Path(sys.argv[2] + ".calls").read_text():
            time.sleep(0.01)  # the other process has started late: it is to have its share
        if "killed" in mood and any(prompt.id == "2d-9" for prompt in prompts):
            os._exit(9)
        answers = super().answer(prompts)
        return [Failure("down") if "down" in mood and p.id == "2d-9" else a for p, a in zip(prompts, answers)]


try:
    seed = int(rank) if "other" in mood else 0
    for name in ("", "-again"):
        result = evaluate("cvbench", Slow(3), data=Path(sys.argv[1]), output=Path(sys.argv[2] + name), batch_size=4,
                          seed=seed, workers="torchrun", verify_batching=8 if "verified" in mood else 0)
        print(rank, result.num_answered, result.num_failed, result.metrics.summary["score"], flush=True)
except EvalError as error:
    sys.exit(str(error))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_cvbench(tmp_path_factory.mktemp("cvbench"), per_group=6)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(data, output, *mood, size=2):
    """Runs the processes side by side, as srun does; returns what each has printed and said, and its status."""
    meeting = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, data, output, *mood],
            env={**os.environ, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        return [(*process.communicate(timeout=120), process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def files(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def test_processes_share_the_batches_and_one_of_them_writes_what_a_single_one_writes(data, tmp_path):
    outcomes = start(data, tmp_path / "shared", "fair")
    assert [status for *_, status in outcomes] == [0, 0], outcomes
    assert len({line[2:] for out, *_ in outcomes for line in out.splitlines()}) == 1  # all know the result
    calls = [line.split() for line in Path(f"{tmp_path}/shared.calls").read_text().splitlines()]
    asked = Counter(name for _, *ids in calls for name in ids)
    assert len(asked) == 36
    assert set(asked.values()) == {2}  # once for each of the two runs
    assert {rank for rank, *_ in calls} == {"0", "1"}
    evaluate("cvbench", RandomChoice(3), data=data, output=tmp_path / "alone", batch_size=4)
    assert files(tmp_path / "shared") == files(tmp_path / "alone") == files(tmp_path / "shared-again")
    assert not list((tmp_path / "shared").glob("samples.*.jsonl"))


@pytest.mark.slow
def test_failures_of_all_processes_are_in_the_result(data, tmp_path):
    outcomes = start(data, tmp_path / "run", "down", "verified", size=3)
    assert [status for *_, status in outcomes] == [0, 0, 0], outcomes
    assert json.loads((tmp_path / "run" / "failures.json").read_text()) == {"2d-9": "down"}
    assert (tmp_path / "run" / "verification.json").is_file()


@pytest.mark.slow
def test_process_that_was_asked_for_another_run_is_told(data, tmp_path):
    outcomes = start(data, tmp_path / "run", "other")
    assert outcomes[1][2] == 1
    assert "process 1 was asked for another run than process 0" in outcomes[1][1]
    assert "another process of this run has failed" in outcomes[0][1]


@pytest.mark.slow
def test_torchrun_starts_them_and_a_killed_one_costs_one_batch(data, tmp_path):
    script = tmp_path / "process.py"
    script.write_text(PROCESS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, data]
    killed = subprocess.run([*map(str, command), tmp_path / "run", "killed"], capture_output=True, timeout=300)
    assert killed.returncode != 0
    parts = list((tmp_path / "run").glob("samples.*.jsonl"))
    assert parts
    answered = sum(path.read_bytes().count(b"\n") for path in parts)
    assert 0 < answered < 36
    calls = Path(f"{tmp_path}/run.calls")
    before = len(calls.read_text().splitlines())
    subprocess.run([*map(str, command), tmp_path / "run"], check=True, capture_output=True, timeout=300)
    again = [line.split()[1:] for line in calls.read_text().splitlines()[before:]]
    assert len(again) == 9 - answered // 4 + 9  # the second run of the process is a whole one
    evaluate("cvbench", RandomChoice(3), data=data, output=tmp_path / "alone", batch_size=4)
    assert files(tmp_path / "run") == files(tmp_path / "alone")


def test_parts_that_processes_have_left_are_read_by_whoever_goes_on(data, tmp_path):
    evaluate("cvbench", RandomChoice(3), data=data, output=tmp_path / "whole", batch_size=4)
    lines = (tmp_path / "whole" / "samples.jsonl").read_bytes().splitlines(keepends=True)
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_bytes((tmp_path / "whole" / "run.json").read_bytes())
    for rank in range(3):
        (run / f"samples.{rank}.jsonl").write_bytes(b"".join(lines[rank:30:3]) + lines[31 + rank][:40])

    class Counting(RandomChoice):
        asked = 0

        def answer(self, prompts):
            self.asked += len(prompts)
            return super().answer(prompts)

    model = Counting(3)
    evaluate("cvbench", model, data=data, output=run, batch_size=1)
    assert model.asked == 6
    assert files(run) == files(tmp_path / "whole")
    assert not list(run.glob("samples.*.jsonl"))


def test_processes_that_cannot_meet_are_told_what_is_missing(data, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(EvalError, match=r"do not find each other .* set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT"):
        evaluate("cvbench", RandomChoice(3), data=data, output=tmp_path / "run", workers="torchrun")
