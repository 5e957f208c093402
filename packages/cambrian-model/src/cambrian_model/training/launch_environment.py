"""Which process of a run this is, as torchrun, `accelerate launch`, `mpirun` or `srun` tell it in the environment.

torchrun's variables are what torch and accelerate read, so what the others say is written as torchrun would. Slurm's
variables are taken for a launch only inside a step of several tasks: a batch script, an allocation and an interactive
shell have most of them too, and there a run is alone.
"""

import re
import zlib
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import NamedTuple

from cambrian_model.errors import TrainingError

TORCH_PORT = 29500  # torchrun's own
FIRST_PORT, NUM_PORTS = 15000, 15000  # below the range from which the kernel lends ports to others
FIRST_SPECIAL_STEP = 0xFFFFFFF0  # Slurm's numbers of steps that are no step: batch script, interactive shell, extern


class Master(NamedTuple):
    """Where the processes of a run meet: the host of rank 0 and a free port on it."""

    host: str
    port: int


@dataclass(frozen=True)
class Launch:
    """One process among those of a run.

    Attributes:
        rank: Its number, from 0.
        local_rank: Its number on its machine, from 0, which is that of its GPU.
        world_size: Processes of the run.
        local_world_size: Those on its machine.
        master: Where they meet; None for a run that is alone.
    """

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    master: Master | None = None


def export_launch(environment: MutableMapping[str, str]) -> Launch:
    """Writes the launch into `environment` (`os.environ`) as torchrun would; called before accelerate looks there.

    Raises:
        TrainingError: See `read_launch`.
    """
    launch = read_launch(environment)
    if launch.master is not None:
        environment["RANK"] = str(launch.rank)
        environment["LOCAL_RANK"] = str(launch.local_rank)
        environment["WORLD_SIZE"] = str(launch.world_size)
        environment["LOCAL_WORLD_SIZE"] = str(launch.local_world_size)
        environment["MASTER_ADDR"] = launch.master.host
        environment["MASTER_PORT"] = str(launch.master.port)
    return launch


def read_launch(environment: Mapping[str, str]) -> Launch:
    """Returns which process this is. The nearest launcher counts: torchrun may run inside `mpirun` or `srun`.

    Raises:
        TrainingError: Variables that contradict each other, are no numbers, or are missing beside the others.
    """
    if "RANK" in environment:
        return _checked(_from_torch(environment), "torchrun")
    for launch, launcher in ((_from_open_mpi(environment), "mpirun"), (_from_slurm(environment), "srun")):
        if launch is not None:
            _check_agrees(launch, launcher, environment)
            return _checked(launch, launcher)
    if _number(environment, "WORLD_SIZE", 1) > 1:
        raise TrainingError(
            f"WORLD_SIZE is {environment['WORLD_SIZE']}, but RANK is not set, so this process does not know which one "
            "it is; start all of them with torchrun, accelerate launch, mpirun or srun, or unset WORLD_SIZE"
        )
    return Launch()


def _from_torch(environment: Mapping[str, str]) -> Launch:
    world_size = _number(environment, "WORLD_SIZE")
    if world_size == 1:
        master = _master(environment, "127.0.0.1", TORCH_PORT)
        return Launch(_number(environment, "RANK"), _number(environment, "LOCAL_RANK", 0), master=master)
    return Launch(
        rank=_number(environment, "RANK"),
        local_rank=_number(environment, "LOCAL_RANK"),
        world_size=world_size,
        local_world_size=_number(environment, "LOCAL_WORLD_SIZE", world_size),
        master=Master(_text(environment, "MASTER_ADDR"), _number(environment, "MASTER_PORT")),
    )


def _from_open_mpi(environment: Mapping[str, str]) -> Launch | None:
    """Returns what Open MPI's `mpirun` says; the job's name, which all processes share, decides the port."""
    world_size = _number(environment, "OMPI_COMM_WORLD_SIZE", 1)
    if world_size == 1:
        return None
    local_world_size = _number(environment, "OMPI_COMM_WORLD_LOCAL_SIZE")
    if local_world_size < world_size and "MASTER_ADDR" not in environment:
        raise TrainingError(
            f"mpirun started {world_size} processes on several machines, and MASTER_ADDR does not say where they meet; "
            "add -x MASTER_ADDR=HOST with the first machine's name"
        )
    job = environment.get("PMIX_NAMESPACE") or environment.get("OMPI_MCA_ess_base_jobid") or ""
    return Launch(
        rank=_number(environment, "OMPI_COMM_WORLD_RANK"),
        local_rank=_number(environment, "OMPI_COMM_WORLD_LOCAL_RANK"),
        world_size=world_size,
        local_world_size=local_world_size,
        master=_master(environment, "127.0.0.1", FIRST_PORT + zlib.crc32(job.encode()) % NUM_PORTS),
    )


def _from_slurm(environment: Mapping[str, str]) -> Launch | None:
    """Returns what `srun` says; the numbers of job and step, which all tasks share, decide the port."""
    is_step = "SLURM_STEP_NUM_TASKS" in environment or "SLURM_STEP_NODELIST" in environment
    step = _number(environment, "SLURM_STEP_ID", 0)
    if "SLURM_PROCID" not in environment or not is_step or step >= FIRST_SPECIAL_STEP:
        return None
    tasks = _number(environment, _first(environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"))
    if tasks == 1:
        return None
    job = _number(environment, _first(environment, "SLURM_JOB_ID", "SLURM_JOBID"))
    nodes = _text(environment, _first(environment, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"))
    return Launch(
        rank=_number(environment, "SLURM_PROCID"),
        local_rank=_number(environment, "SLURM_LOCALID"),
        world_size=tasks,
        local_world_size=_tasks_on_this_node(environment, tasks),
        master=_master(environment, first_host(nodes), FIRST_PORT + (31 * job + step) % NUM_PORTS),
    )


def first_host(nodes: str) -> str:
    """Returns the first host of a list in Slurm's notation: ``gpu[003-005,7],cpu1`` begins with ``gpu003``.

    Raises:
        TrainingError: It is none.
    """
    listed = re.match(r"(?:[^,\[\]\s]|\[[0-9]+(?:[-,][0-9]+)*\])+", nodes)
    if listed is None or nodes[listed.end() : listed.end() + 1] not in ("", ","):
        raise TrainingError(
            f'"{nodes}" is no list of hosts such as gpu[003-005,7]; set MASTER_ADDR to the host of the first task'
        )
    return re.sub(r"\[([0-9]+)[^\]]*\]", r"\1", listed[0])


def _tasks_on_this_node(environment: Mapping[str, str], tasks: int) -> int:
    """Returns how many of a step's tasks run on this machine."""
    name = _first(environment, "SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
    if name not in environment:
        return _number(environment, "SLURM_NTASKS_PER_NODE", tasks)
    per_node = _expanded(name, environment[name])
    node = _number(environment, "SLURM_NODEID", 0)
    if sum(per_node) != tasks or node >= len(per_node):
        raise TrainingError(
            f"srun started {tasks} tasks, but {name} is {environment[name]}, which is {sum(per_node)} tasks on "
            f"{len(per_node)} nodes, and this is node {node} (from 0); start it with srun's own variables"
        )
    return per_node[node]


def _expanded(name: str, text: str) -> list[int]:
    """Returns Slurm's ``4(x2),3`` as [4, 4, 3]."""
    counts = []
    for part in text.split(","):
        found = re.fullmatch(r"([0-9]+)(?:\(x([0-9]+)\))?", part)
        if found is None:
            raise TrainingError(f'{name} is "{text}"; expected counts such as 8(x3),4')
        counts += [int(found[1])] * int(found[2] or 1)
    return counts


def _check_agrees(launch: Launch, launcher: str, environment: Mapping[str, str]) -> None:
    """Refuses what was exported by hand for torch and is not what the launcher did."""
    done = {
        "WORLD_SIZE": launch.world_size,
        "LOCAL_RANK": launch.local_rank,
        "LOCAL_WORLD_SIZE": launch.local_world_size,
    }
    for name, value in done.items():
        if _number(environment, name, value) != value:
            raise TrainingError(
                f"{name} is {environment[name]}, but {launcher} says {value}; unset {name}, or start the processes as "
                "it says"
            )


def _checked(launch: Launch, launcher: str) -> Launch:
    found = (
        f"{launcher} says rank {launch.rank} of {launch.world_size} processes, and local rank {launch.local_rank} of "
        f"{launch.local_world_size} on this machine"
    )
    if launch.rank >= launch.world_size or launch.local_rank >= launch.local_world_size:
        raise TrainingError(f"{found}; ranks count from 0 and end below the number of processes: start it afresh")
    if launch.local_world_size > launch.world_size or launch.local_rank > launch.rank:
        raise TrainingError(f"{found}; those on a machine are part of all: unset variables left from another launch")
    return launch


def _master(environment: Mapping[str, str], host: str, port: int) -> Master:
    return Master(environment.get("MASTER_ADDR") or host, _number(environment, "MASTER_PORT", port))


def _first(environment: Mapping[str, str], *names: str) -> str:
    """Returns the first of these names that is set, or the last one."""
    return next((name for name in names if name in environment), names[-1])


def _text(environment: Mapping[str, str], name: str) -> str:
    if not (value := environment.get(name, "")):
        raise TrainingError(
            f"{name} is not set, though others of its launcher's variables are; start the run with torchrun, "
            "accelerate launch, mpirun or srun, which set all of them"
        )
    return value


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    if default is not None and name not in environment:
        return default
    value = _text(environment, name)
    if not re.fullmatch("[0-9]+", value):
        raise TrainingError(f'{name} is "{value}"; expected a whole number, 0 or more; start the run afresh')
    return int(value)
