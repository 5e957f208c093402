"""Several processes answer one run: the same files whatever their number, however they end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from cambrian_eval import DataError, ModelError, evaluate, workers
from cambrian_eval.workers import Workers
from tests.eval.benchmark_folder import write_cvbench

FILES = ("run.json", "samples.jsonl", "metrics.json", "failures.json", "report.html")

# A model of the tests' own, which every process that a run starts knows by name: `recording:FOLDER`. It writes each
# call down before it answers, with its process, and does what a file in the folder tells it to.
MODEL = """
import json, os, signal, time
from pathlib import Path

from cambrian_eval.errors import DataError, OutOfMemoryError
from cambrian_eval.models import MODELS
from cambrian_eval.types import Answer, Failure

MODELS._places["recording"] = "sitecustomize:Recording"


class Recording:
    name = fingerprint = "recording"
    hardware = "paper"

    def __init__(self, folder):
        self.folder = Path(folder)
        self.told = json.loads((self.folder / "told.json").read_text())
        if self.told.get("cannot load"):
            raise DataError("this model cannot be loaded")

    def length(self, prompt):
        return (len(prompt.pictures[0].read()) // 100, len(prompt.text))

    def answer(self, prompts):
        ids = [prompt.id for prompt in prompts]
        with (self.folder / "calls.jsonl").open("a") as file:
            file.write(json.dumps([os.getpid(), ids, os.environ["OMP_NUM_THREADS"]]) + "\\n")
        time.sleep(self.told.get("seconds", 0))
        if self.told.get("deadly") in ids and (self.told["deaths"] > len(list(self.folder.glob("death*")))):
            (self.folder / f"death{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.told.get("broken") in ids:
            raise DataError("a picture is broken")
        if self.told.get("defect") in ids:
            raise ZeroDivisionError("a defect")
        if len(ids) > self.told.get("room", 99):
            raise OutOfMemoryError("full")
        return [Failure("down") if i == self.told.get("down") else Answer("AB"[len(p.text) % 2], reply_tokens=1)
                for i, p in zip(ids, prompts)]
"""

CHILD = """
import sys
from pathlib import Path
from cambrian_eval import evaluate

data, output, model, workers = sys.argv[1:]
evaluate("cvbench", model, data=Path(data), output=Path(output), batch_size=4, workers=int(workers))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_cvbench(tmp_path_factory.mktemp("cvbench"), per_group=6, layout="parquet")


class Recorded:
    """The model's folder, what it was told and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spec = f"recording:{folder}"

    def tell(self, **told) -> None:
        (self.folder / "told.json").write_text(json.dumps(told))

    def calls(self) -> list:
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def batches(self) -> Counter:
        return Counter(tuple(ids) for _, ids, _ in self.calls())


@pytest.fixture
def model(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(MODEL)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    recorded = Recorded(folder)
    recorded.tell()
    return recorded


def run(data, model, output, count, batch_size=4):
    with Workers(model.spec, count) as crew:
        return evaluate("cvbench", crew, data=data, output=output, batch_size=batch_size)


def files(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def wait_for(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_files_do_not_depend_on_the_number_of_workers(data, model, tmp_path):
    for count in (1, 2, 3):
        run(data, model, tmp_path / str(count), count)
    assert files(tmp_path / "1") == files(tmp_path / "2") == files(tmp_path / "3")
    assert set(model.batches().values()) == {3}  # the same batches, whoever was asked
    assert json.loads((tmp_path / "1" / "metrics.json").read_text())["provenance"]["hardware"]["model"] == "paper"


def test_one_process_alone_asks_the_same_batches(data, tmp_path):
    for count in (1, 2):
        evaluate("cvbench", "random:3", data=data, output=tmp_path / str(count), workers=count)
    assert files(tmp_path / "1") == files(tmp_path / "2")


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
def test_killed_run_goes_on_with_other_workers_and_asks_at_most_the_batches_in_flight_again(
    data, model, tmp_path, before, after
):
    model.tell(seconds=0.05)
    output = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", CHILD, data, output, model.spec, str(before)]) as child:
        log = output / "samples.jsonl"
        wait_for(lambda: log.exists() and log.read_bytes().count(b"\n") >= 12)
        child.kill()
        assert child.wait() == -signal.SIGKILL
    if before > 1:
        wait_for(lambda: not any(is_alive(process) for process, *_ in model.calls()))
    answered = log.read_bytes().count(b"\n")
    assert 12 <= answered < 36
    assert not (output / "metrics.json").exists()
    model.tell()
    subprocess.run([sys.executable, "-c", CHILD, data, output, model.spec, str(after)], check=True)
    assert len(model.batches()) == 9
    assert sum(model.batches().values()) - 9 <= before
    run(data, model, tmp_path / "whole", 2)
    assert files(output) == files(tmp_path / "whole")


def test_batch_of_a_worker_that_dies_is_answered_by_another(data, model, tmp_path):
    model.tell(deadly="2d-7", deaths=1)
    assert run(data, model, tmp_path / "run", 2).num_failed == 0
    assert sorted(model.batches().values()) == [1] * 8 + [2]
    model.tell()
    run(data, model, tmp_path / "whole", 2)
    assert files(tmp_path / "run") == files(tmp_path / "whole")


def test_batch_that_ends_two_workers_is_to_blame(data, model, tmp_path):
    model.tell(deadly="2d-7", deaths=9)
    with pytest.raises(ModelError, match=r"2 workers ended while they answered the same batch \(.*2d-7.*signal 9"):
        run(data, model, tmp_path / "run", 3)
    assert (tmp_path / "run" / "samples.jsonl").read_bytes().count(b"\n") > 0


def test_run_whose_workers_are_all_dead_says_so_and_keeps_what_was_answered(data, model, tmp_path):
    model.tell(deadly="2d-7", deaths=1)
    with pytest.raises(ModelError, match=r"all workers are dead; worker 0 was killed by signal 9.*run again"):
        run(data, model, tmp_path / "run", 1)
    run(data, model, tmp_path / "run", 2)
    assert sum(model.batches().values()) == 10


def test_error_of_a_worker_is_the_runs_and_a_defect_ends_it_with_its_traceback(data, model, tmp_path, capfd):
    model.tell(broken="2d-7")
    with pytest.raises(DataError, match="a picture is broken"):
        run(data, model, tmp_path / "broken", 2)
    model.tell(defect="2d-7")
    with pytest.raises(ModelError, match=r"2 workers ended while .* ended with status 1; what it said stands above"):
        run(data, model, tmp_path / "defect", 2)
    assert "ZeroDivisionError: a defect" in capfd.readouterr().err


def test_model_that_cannot_be_loaded_is_the_same_error_as_in_one_process(model):
    model.tell(**{"cannot load": True})
    with pytest.raises(DataError, match="this model cannot be loaded"), Workers(model.spec, 2):
        pass
    with pytest.raises(ModelError, match="expected a whole number"), Workers("random:x", 2):
        pass


def test_worker_that_dies_while_loading_is_an_error_without_the_models_credentials(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))  # where no Python is
    with pytest.raises(ModelError, match=r"worker 0 ended with status 1; .* It was loading the model\.") as raised:
        Workers("openai:http://user:hunter2@127.0.0.1:9/v1#m", 1).__enter__()
    assert "hunter2" not in str(raised.value)
    capfd.readouterr()


def test_halved_batches_and_failures_come_back_from_workers(data, model, tmp_path):
    model.tell(room=2, down="2d-7")
    result = run(data, model, tmp_path / "run", 2)
    assert result.checks["num_halved"] == 9
    assert json.loads((tmp_path / "run" / "failures.json").read_text()) == {"2d-7": "down"}
    lines = (tmp_path / "run" / "samples.jsonl").read_text().splitlines()
    assert {json.loads(line)["reply_tokens"] for line in lines} == {1}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_leaves_no_worker_behind_and_keeps_the_log(data, model, tmp_path, number):
    model.tell(seconds=30)
    output = tmp_path / "run"
    command = [sys.executable, "-c", CHILD, data, output, model.spec, "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as child:
        wait_for(lambda: len(model.calls()) == 2)
        os.killpg(child.pid, number) if number == signal.SIGINT else child.send_signal(number)
        child.communicate()
    wait_for(lambda: not any(is_alive(process) for process, *_ in model.calls()))
    model.tell()
    assert run(data, model, output, 1).num_answered == 36


def test_each_worker_gets_its_gpu_or_its_share_of_the_threads(data, model, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5")
    assert workers.gpus() == ["2", "GPU-5"]
    seen = [workers.environment(number, 4)["CUDA_VISIBLE_DEVICES"] for number in range(4)]
    assert seen == ["2", "GPU-5", "2", "GPU-5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert workers.environment(0, 4)["OMP_NUM_THREADS"] == "1"
    run(data, model, tmp_path / "run", 2)
    assert {threads for _, _, threads in model.calls()} == {"3"}


def test_one_crew_answers_several_runs(data, model, tmp_path):
    with Workers(model.spec, 2) as crew:
        assert crew.name == "recording"
        for task in ("cvbench-2d", "cvbench-3d"):
            evaluate(task, crew, data=data, output=tmp_path / task, batch_size=4)
    assert sum(len(ids) for ids in model.batches()) == 36
