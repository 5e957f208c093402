"""`--print-launch`: the command or script that runs the same train command on several GPUs and machines.

Every process is given the same `--output`, for each would else choose a folder by its own clock. Whatever differs from
machine to machine stands as a shell variable, and a missing one ends the command with what it should hold.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from cambrian_cli.errors import CommandError
from cambrian_cli.runs import RUNS

Launcher = Literal["torchrun", "slurm", "accelerate"]

OWN_OPTIONS = ("--print-launch", "--nodes", "--gpus-per-node")  # each with one value
PROGRAM = "cambrian_cli"  # `python -m cambrian_cli` is `cambrian`
PORT = 29500
FIRST_NODE = '"${FIRST_NODE:?set FIRST_NODE to the name of the first machine}"'
NODE = '"${SLURM_NODEID:-${NODE:?set NODE to the number of this machine, from 0}}"'
SECONDS_TO_STOP = 120  # what a run has for its last checkpoint
STOPPED = 143  # exit status of a run that was told to stop, and has saved


def build_launch(kind: str, argv: Sequence[str], nodes: int, gpus_per_node: int, output: Path) -> str:
    """Returns what to run, or to hand to `sbatch`.

    Args:
        kind: One of `Launcher`.
        argv: The command's arguments as they were given, from its name (`train`) on.
        nodes: Machines.
        gpus_per_node: Processes on each of them, one for each GPU.
        output: The run's folder, on a disk that all machines see; it is added where `argv` names none.

    Raises:
        CommandError: An unknown kind, no machine or no GPU.
    """
    if kind not in get_args(Launcher):
        raise CommandError(f'--print-launch is "{kind}"; expected one of {", ".join(get_args(Launcher))}.')
    if nodes < 1 or gpus_per_node < 1:
        raise CommandError(f"--nodes is {nodes} and --gpus-per-node {gpus_per_node}; expected at least 1 of each.")
    arguments = _without_own_options(argv)
    if not _has_option(arguments, "--output"):
        arguments += ["--output", str(output)]
    if kind == "torchrun":
        return _torchrun(arguments, nodes, gpus_per_node, output.name)
    if kind == "accelerate":
        return _accelerate(arguments, nodes, gpus_per_node)
    return _slurm(arguments, nodes, gpus_per_node, output.name)


def output_for_all(output: Path | None, recipe_name: str, stamp: str) -> Path:
    """Returns the folder that all processes of a run share: `output`, or ``runs/<recipe>-<stamp>`` where it is None."""
    return output or RUNS / f"{recipe_name}-{stamp}"


def _torchrun(arguments: Sequence[str], nodes: int, gpus_per_node: int, name: str) -> str:
    command = f"-m {PROGRAM} {shlex.join(arguments)}\n"
    if nodes == 1:
        return f"torchrun --standalone --nproc-per-node {gpus_per_node} {command}"
    meeting = f"--rdzv-backend c10d --rdzv-id {shlex.quote(name)} --rdzv-endpoint {FIRST_NODE}:{PORT}"
    return f"torchrun --nnodes {nodes} --nproc-per-node {gpus_per_node} {meeting} {command}"


def _accelerate(arguments: Sequence[str], nodes: int, gpus_per_node: int) -> str:
    processes = nodes * gpus_per_node
    several = f"--multi_gpu --num_machines {nodes} --num_processes {processes}"
    where = f"--machine_rank {NODE} --main_process_ip {FIRST_NODE} --main_process_port {PORT}"
    options = [
        *([several] if processes > 1 else ["--num_machines 1 --num_processes 1"]),
        *([where] if nodes > 1 else []),
        "--mixed_precision no --dynamo_backend no",  # both are the recipe's to say
        f"--module {PROGRAM} {shlex.join(arguments)}\n",
    ]
    return " ".join(["accelerate launch", *options])


def _slurm(arguments: Sequence[str], nodes: int, gpus_per_node: int, name: str) -> str:
    if not _has_option(arguments, "--resume"):
        arguments = [*arguments, "--resume"]
    return f"""\
#!/bin/bash
#SBATCH --job-name={_as_word(name)}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={gpus_per_node}
#SBATCH --gpus-per-node={gpus_per_node}
#SBATCH --signal=TERM@{SECONDS_TO_STOP}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# Give your site's --partition, --account, --time and --cpus-per-task here, or to sbatch.

set -uo pipefail
export OMP_NUM_THREADS="${{SLURM_CPUS_PER_TASK:-1}}"

srun --kill-on-bad-exit=1 cambrian {shlex.join(arguments)}
status=$?

# The signal above reaches the run {SECONDS_TO_STOP} seconds before its time is up; it saves and ends with {STOPPED}.
# So it has neither failed nor finished, and waits for its next turn, in which --resume goes on.
if [[ $status -eq {STOPPED} ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""


def _without_own_options(argv: Sequence[str]) -> list[str]:
    kept: list[str] = []
    is_value = False
    for argument in argv:
        if not is_value and not argument.startswith(tuple(f"{option}=" for option in OWN_OPTIONS)):
            kept += [argument] if argument not in OWN_OPTIONS else []
        is_value = not is_value and argument in OWN_OPTIONS
    return kept


def _has_option(arguments: Sequence[str], name: str) -> bool:
    return any(argument == name or argument.startswith(f"{name}=") for argument in arguments)


def _as_word(name: str) -> str:
    """Returns a name without what ends or breaks a line of `#SBATCH`."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)
