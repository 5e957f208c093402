"""Launching: what each launcher says in the environment, and the commands and scripts that `--print-launch` writes.

The launchers that are here are run, with a stand-in for the command line that only adds up ranks.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cambrian_cli.errors import CommandError
from cambrian_cli.launch import build_launch, output_for_all
from cambrian_model.errors import TrainingError
from cambrian_model.training.launch_environment import Launch, Master, export_launch, first_host, read_launch

TORCHRUN = {
    "RANK": "9",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "16",
    "LOCAL_WORLD_SIZE": "8",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "gpu-1",
    "MASTER_PORT": "29400",
    "TORCHELASTIC_RUN_ID": "cambrian",
}

# `srun --nodes=3 --ntasks=10` of a job of 3 nodes: 4, 4 and 2 tasks; this is the last task of the second node.
SRUN = {
    "SLURM_JOB_ID": "48121",
    "SLURM_JOB_NAME": "align",
    "SLURM_JOB_NODELIST": "gpu[017-018,023]",
    "SLURM_NTASKS": "10",
    "SLURM_TASKS_PER_NODE": "4(x2),2",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "10",
    "SLURM_STEP_NODELIST": "gpu[017-018,023]",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2),2",
    "SLURM_NODEID": "1",
    "SLURM_PROCID": "7",
    "SLURM_LOCALID": "3",
}

# What the script of `sbatch --nodes=3 --ntasks-per-node=4` sees: one process, though there are tasks and a first rank.
BATCH = {
    "SLURM_JOB_ID": "48121",
    "SLURM_JOB_NODELIST": "gpu[017-019]",
    "SLURM_NTASKS": "12",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_TASKS_PER_NODE": "4(x3)",
    "SLURM_NODEID": "0",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}

# A shell of `salloc --ntasks=8` where the site gives shells on the node: a step of one task that keeps the job's own.
INTERACTIVE = {
    **BATCH,
    "SLURM_NTASKS": "8",
    "SLURM_STEP_ID": "4294967290",
    "SLURM_STEP_NUM_TASKS": "1",
    "SLURM_STEP_NODELIST": "gpu017",
}

MPIRUN = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "PMIX_NAMESPACE": "prterun-gpu017-2211@1",
}


def test_torchrun_is_read_as_it_is_and_exported_unchanged():
    environment = dict(TORCHRUN)

    assert export_launch(environment) == Launch(9, 1, 16, 8, Master("gpu-1", 29400))
    assert environment == TORCHRUN


def test_srun_is_exported_as_torchrun_would():
    environment = dict(SRUN)
    launch = export_launch(environment)

    assert launch == Launch(7, 3, 10, 4, Master("gpu017", 15000 + 31 * 48121 % 15000))
    assert {name: environment[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")} == {
        "RANK": "7",
        "LOCAL_RANK": "3",
        "WORLD_SIZE": "10",
        "LOCAL_WORLD_SIZE": "4",
    }
    assert (environment["MASTER_ADDR"], int(environment["MASTER_PORT"])) == launch.master
    assert read_launch(environment) == launch  # the same again in a process that this one starts


def test_the_last_node_of_srun_may_have_fewer_tasks():
    assert read_launch(SRUN | {"SLURM_NODEID": "2", "SLURM_PROCID": "9", "SLURM_LOCALID": "1"}).local_world_size == 2


def test_steps_of_one_job_meet_at_ports_of_their_own():
    ports = {read_launch(SRUN | {"SLURM_STEP_ID": str(step)}).master for step in range(4)}
    assert len(ports) == 4


def test_srun_meets_where_the_user_says():
    assert read_launch(SRUN | {"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "4000"}).master == ("10.0.0.7", 4000)


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({}, id="nothing"),
        pytest.param(BATCH, id="batch script"),
        pytest.param(BATCH | {"SLURM_NTASKS": "1", "SLURM_TASKS_PER_NODE": "1"}, id="batch script of one task"),
        pytest.param(INTERACTIVE, id="interactive shell"),
        pytest.param(SRUN | {"SLURM_STEP_ID": "4294967290"}, id="interactive step"),
        pytest.param(SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, id="one task"),
        pytest.param({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, id="mpirun of one"),
        pytest.param({"WORLD_SIZE": "1"}, id="a world of one"),
    ],
)
def test_a_process_that_is_alone_stays_alone(environment):
    exported = dict(environment)

    assert export_launch(exported) == Launch()
    assert exported == environment


def test_torchrun_inside_srun_counts_and_not_srun():
    # One task on each of two nodes, which starts eight processes.
    outside = SRUN | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_PROCID": "1"}
    assert read_launch(outside | TORCHRUN) == read_launch(TORCHRUN)


def test_mpirun_inside_a_slurm_job_counts_and_not_slurm():
    launch = read_launch(SRUN | MPIRUN)

    assert (launch.rank, launch.local_rank, launch.world_size, launch.local_world_size) == (3, 3, 4, 4)
    assert launch.master is not None
    assert launch.master.host == "127.0.0.1"
    assert launch == read_launch(MPIRUN)


def test_mpirun_on_several_machines_asks_where_they_meet():
    several = MPIRUN | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
    with pytest.raises(TrainingError, match=r"4 processes on several machines.*-x MASTER_ADDR=HOST"):
        read_launch(several)

    assert read_launch(several | {"MASTER_ADDR": "gpu017"}).local_world_size == 2


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE is 4, but RANK is not set"),
        ({"RANK": "0"}, "WORLD_SIZE is not set"),
        (TORCHRUN | {"RANK": "16"}, "rank 16 of 16 processes"),
        (TORCHRUN | {"LOCAL_RANK": "8"}, "local rank 8 of 8 on this machine"),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "17"}, "local rank 1 of 17 on this machine; those on a machine are part"),
        (TORCHRUN | {"RANK": "-1"}, 'RANK is "-1"; expected a whole number'),
        (TORCHRUN | {"MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
        ({k: v for k, v in TORCHRUN.items() if k != "LOCAL_RANK"}, "LOCAL_RANK is not set"),
        (SRUN | {"WORLD_SIZE": "16"}, "WORLD_SIZE is 16, but srun says 10; unset WORLD_SIZE"),
        (SRUN | {"LOCAL_RANK": "0"}, "LOCAL_RANK is 0, but srun says 3"),
        (SRUN | {"SLURM_PROCID": "12"}, "rank 12 of 10 processes"),
        (
            SRUN | {"SLURM_STEP_TASKS_PER_NODE": "4(x3)"},
            r"but SLURM_STEP_TASKS_PER_NODE is 4\(x3\).*12 tasks",
        ),
        (SRUN | {"SLURM_NODEID": "3"}, "this is node 3"),
        (SRUN | {"SLURM_STEP_TASKS_PER_NODE": "4*2,2"}, r'is "4\*2,2"; expected counts such as'),
        (SRUN | {"SLURM_STEP_NODELIST": "gpu[017-"}, r'"gpu\[017-" is no list of hosts'),
        (MPIRUN | {"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but mpirun says 4"),
        (MPIRUN | {"OMPI_COMM_WORLD_RANK": "4"}, "mpirun says rank 4 of 4 processes"),
    ],
)
def test_variables_that_contradict_each_other_are_refused(environment, said):
    with pytest.raises(TrainingError, match=said):
        read_launch(environment)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node7", "node7"),
        ("node[003-005,7]", "node003"),
        ("a1,b[2-3]", "a1"),
        ("gpu[2,4]-ib[01-02],x", "gpu2-ib01"),
        ("r1i0n5.cluster.org", "r1i0n5.cluster.org"),
    ],
)
def test_the_first_host_of_a_list_is_found_without_asking_slurm(nodes, first):
    assert first_host(nodes) == first


STAND_IN = """\
import json, os, sys
from pathlib import Path

import torch
import torch.distributed as dist

if "RANK" not in os.environ:
    from cambrian_model.training.launch_environment import export_launch

    export_launch(os.environ)
dist.init_process_group("gloo")
total = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(total)
seen = {"sum": total.item(), "ranks": dist.get_world_size(), "arguments": sys.argv[1:]}
Path(f"rank{dist.get_rank()}.json").write_text(json.dumps(seen))
dist.destroy_process_group()
"""

GIVEN = ["train", "my recipe.yaml", "--print-launch", "torchrun", "--nodes=1", "--gpus-per-node", "2"]
CHANGES = ["--set", "stages.align.data={a: 1, b: 0.5}", "--set", "name=it's"]
RUN = ["train", "my recipe.yaml", *CHANGES]
OUTPUT = Path("runs/my recipe")


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """The working folder, with what `python -m cambrian_cli` finds there first."""
    package = tmp_path / "cambrian_cli"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(STAND_IN)
    return tmp_path


def run_script(text: str, folder: Path, **variables: str) -> subprocess.Popen[str]:
    """Starts a command of `build_launch` in bash, with the programs of this environment first in the path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    slurm_less = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    environment = slurm_less | {"PATH": path, "OMP_NUM_THREADS": "1"} | variables
    pipe = subprocess.PIPE
    return subprocess.Popen(["bash", "-c", text], cwd=folder, env=environment, text=True, stdout=pipe, stderr=pipe)


def check_all_reduced(folder: Path, arguments: list[str]) -> None:
    for rank in range(2):
        seen = json.loads((folder / f"rank{rank}.json").read_text())
        assert seen == {"sum": 3.0, "ranks": 2, "arguments": arguments}


def test_the_printed_torchrun_command_runs_two_processes_of_the_same_command(stand_in):
    process = run_script(build_launch("torchrun", [*GIVEN, *CHANGES], 1, 2, OUTPUT), stand_in)
    _, stderr = process.communicate(timeout=300)

    assert process.returncode == 0, stderr
    check_all_reduced(stand_in, [*RUN, "--output", str(OUTPUT)])


@pytest.mark.slow
def test_the_printed_accelerate_command_runs_two_processes_of_the_same_command(stand_in):
    process = run_script(build_launch("accelerate", [*GIVEN, *CHANGES], 1, 2, OUTPUT), stand_in)
    _, stderr = process.communicate(timeout=300)

    assert process.returncode == 0, stderr
    check_all_reduced(stand_in, [*RUN, "--output", str(OUTPUT)])


# `srun` as far as the script sees it: it starts the tasks with the variables of a step and waits for them.
SRUN_STAND_IN = """\
#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for task in 0 1; do
  SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NODEID=0 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 \\
  SLURM_STEP_TASKS_PER_NODE=2 SLURM_STEP_NODELIST=localhost "$@" &
  tasks+=($!)
done
wait "${tasks[0]}" && wait "${tasks[1]}"
"""


@pytest.fixture
def slurm(stand_in: Path) -> Path:
    """The same folder with an `srun`, a `scontrol` that writes down what it is asked, and `cambrian`."""
    programs = {
        "srun": SRUN_STAND_IN,
        "scontrol": '#!/bin/bash\necho "$@" >> scontrol.txt\n',
        "cambrian": f'#!/bin/bash\nexec {shlex.quote(sys.executable)} -m cambrian_cli "$@"\n',
    }
    (stand_in / "bin").mkdir()
    for name, text in programs.items():
        (stand_in / "bin" / name).write_text(text)
        (stand_in / "bin" / name).chmod(0o755)
    return stand_in


def run_sbatch(folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the script as `sbatch` would, the stand-ins first in the path."""
    script = build_launch("slurm", [*GIVEN, *CHANGES], 1, 2, OUTPUT)
    text = f"export PATH={shlex.quote(str(folder / 'bin'))}:$PATH\n{script}"
    process = run_script(text, folder, SLURM_JOB_ID="31", SLURM_PROCID="0", SLURM_NTASKS="2")
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode is not None
    return subprocess.CompletedProcess("sbatch", process.returncode, stdout, stderr)


# A command line that only writes down what it was started with.
NOTES = """\
#!/bin/bash
env -0 > "task$SLURM_PROCID.env"
printf '%s\\0' "$@" > "task$SLURM_PROCID.arguments"
"""


def test_the_slurm_script_runs_a_task_for_every_gpu_that_resumes_what_is_there(slurm):
    (slurm / "bin" / "cambrian").write_text(NOTES)
    done = run_sbatch(slurm)

    assert done.returncode == 0, done.stderr
    for task in range(2):
        noted = (slurm / f"task{task}.env").read_text().split("\0")
        launch = read_launch(dict(line.split("=", 1) for line in noted if line))
        assert launch == Launch(task, task, 2, 2, Master("localhost", 15000 + 31 * 31))
        arguments = (slurm / f"task{task}.arguments").read_text().split("\0")[:-1]
        assert arguments == [*RUN, "--output", str(OUTPUT), "--resume"]


@pytest.mark.slow
def test_the_tasks_of_the_slurm_script_find_each_other(slurm):
    done = run_sbatch(slurm)

    assert done.returncode == 0, done.stderr
    check_all_reduced(slurm, [*RUN, "--output", str(OUTPUT), "--resume"])


@pytest.mark.parametrize(
    ("ends_with", "is_requeued"),
    [
        pytest.param("exit 143", True, id="saved and stopped"),
        pytest.param("kill -TERM $$", True, id="stopped by the signal itself"),
        pytest.param("exit 0", False, id="finished"),
        pytest.param("exit 2", False, id="failed"),
    ],
)
def test_the_slurm_script_goes_back_into_the_queue_only_if_it_was_stopped(slurm, ends_with, is_requeued):
    (slurm / "bin" / "cambrian").write_text(f"#!/bin/bash\n{ends_with}\n")
    done = run_sbatch(slurm)

    assert (slurm / "scontrol.txt").exists() == is_requeued, done.stderr
    if is_requeued:
        assert (slurm / "scontrol.txt").read_text() == "requeue 31\n"


@pytest.mark.parametrize("nodes", [1, 4])
@pytest.mark.parametrize("kind", ["torchrun", "slurm", "accelerate"])
def test_every_command_is_valid_bash_with_the_arguments_as_they_were(kind, nodes):
    text = build_launch(kind, [*GIVEN, *CHANGES], nodes, 8, OUTPUT)

    subprocess.run(["bash", "-n", "-c", text], check=True)
    assert shlex.join([*RUN, "--output", str(OUTPUT)]) in text
    assert not re.search(r"--print-launch|--gpus-per-node 2|--nodes=1\b.*my recipe", text)


def test_a_script_of_slurm_asks_for_a_task_for_every_gpu_and_for_a_signal_before_its_end():
    text = build_launch("slurm", [*GIVEN, *CHANGES], 4, 8, OUTPUT)
    asked = re.findall(r"^#SBATCH (.*)$", text, re.MULTILINE)

    assert asked[:6] == [
        "--job-name=my-recipe",
        "--nodes=4",
        "--ntasks-per-node=8",
        "--gpus-per-node=8",
        "--signal=TERM@120",
        "--requeue",
    ]


def test_commands_for_several_machines_ask_for_what_differs_between_them(tmp_path):
    for kind, missing in (("torchrun", "FIRST_NODE"), ("accelerate", "NODE")):
        process = run_script(build_launch(kind, GIVEN, 2, 8, OUTPUT), tmp_path)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode != 0
        assert f"{missing}: set {missing} to" in stderr


def test_an_output_that_was_given_stays():
    for given in (["--output", "x"], ["--output=x"]):
        text = build_launch("torchrun", [*GIVEN, *given], 1, 2, Path("x"))
        assert shlex.split(text)[-len(given) :] == given


def test_without_an_output_all_processes_share_one_folder():
    assert output_for_all(None, "tiny", "20261125-101500") == Path("runs/tiny-20261125-101500")
    assert output_for_all(Path("x"), "tiny", "20261125-101500") == Path("x")


def test_an_unknown_launcher_and_no_gpu_are_refused():
    with pytest.raises(CommandError, match=r'"mpirun"; expected one of torchrun, slurm, accelerate'):
        build_launch("mpirun", GIVEN, 1, 2, OUTPUT)
    with pytest.raises(CommandError, match=r"--nodes is 1 and --gpus-per-node 0; expected at least 1"):
        build_launch("torchrun", GIVEN, 1, 0, OUTPUT)
