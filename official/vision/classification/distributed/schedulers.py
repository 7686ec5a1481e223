"""Which node this is, by the variables of Slurm's srun and of torchrun.

Both start processes and tell each its place. One process on each node starts a rank for every
device there (``--ngpus``); where there are several on a node, each is a node of its own with one
device.
"""

import re
from dataclasses import dataclass
from typing import List, Mapping, Optional

from ..errors import UsageError

PORT = 23456  # where node 0 listens, unless a flag or a scheduler says otherwise
_FIRST_PORT, _PORTS = 20000, 10000  # of Slurm's jobs, which may meet on one node


@dataclass(frozen=True)
class Place:
    """What a scheduler says.

    Args:
        scheduler: its name.
        nodes, node: how many launchers there are, and which one this is.
        address, port: where node 0 is.
        local, locals: which one of how many launchers this is on its machine.
    """

    scheduler: str
    nodes: int
    node: int
    address: str
    port: int
    local: int = 0
    locals: int = 1


def place_of(environment: Mapping[str, str]) -> Optional[Place]:
    """The place that the variables name; None without a scheduler, or for a single process.

    Raises:
        UsageError: when the variables contradict each other.
    """
    place = _torchrun(environment) or _slurm(environment)
    if place is None or place.nodes == 1:
        return None
    fits = place.node < place.nodes and place.local < place.locals <= place.nodes
    if not fits or not 0 < place.port < 65536:
        raise UsageError(
            f"the variables of {place.scheduler} make no sense: process {place.node} of "
            f"{place.nodes}; give --world-size and --rank"
        )
    return place


def _torchrun(environment: Mapping[str, str]) -> Optional[Place]:
    """See "Environment Variables" in torch.distributed.run's documentation.

    Its agent listens on MASTER_PORT itself; whoever sets the variables without it leaves it free.
    """
    found = _numbers(environment, "WORLD_SIZE", "RANK")
    if not found or not environment.get("MASTER_ADDR"):
        return None
    locals_ = _numbers(environment, "LOCAL_WORLD_SIZE", "LOCAL_RANK") or [1, 0]
    port = _numbers(environment, "MASTER_PORT")
    is_taken = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return Place(
        "torchrun",
        nodes=found[0],
        node=found[1],
        address=environment["MASTER_ADDR"],
        port=port[0] if port and not is_taken else PORT,
        local=locals_[1],
        locals=locals_[0],
    )


def _slurm(environment: Mapping[str, str]) -> Optional[Place]:
    """See "OUTPUT ENVIRONMENT VARIABLES" in srun's manual."""
    found = _numbers(environment, "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")
    nodes = environment.get("SLURM_STEP_NODELIST")
    if not found or not nodes:
        return None
    locals_ = _numbers(environment, "SLURM_LOCALID") or [0]
    count = _tasks_here(environment)
    job = _numbers(environment, "SLURM_JOB_ID") or [0]
    port = _FIRST_PORT + job[0] % _PORTS
    return Place("Slurm", found[0], found[1], first_host(nodes), port, locals_[0], count)


def _tasks_here(environment: Mapping[str, str]) -> int:
    """How many of the step's tasks are on this node: ``2(x3),1`` lists them by node."""
    node = (_numbers(environment, "SLURM_NODEID") or [0])[0]
    counts: List[int] = []
    for count, times in re.findall(
        r"(\d+)(?:\(x(\d+)\))?", environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    ):
        counts += [int(count)] * min(int(times or 1), node + 1)
    return counts[node] if node < len(counts) else 1


def _numbers(environment: Mapping[str, str], *names: str) -> Optional[List[int]]:
    values = [environment.get(name, "") for name in names]
    good = all(value.isdecimal() and value.isascii() and len(value) < 10 for value in values)
    return [int(value) for value in values] if good else None


def first_host(nodes: str) -> str:
    """The first of Slurm's short list of names, such as ``gpu[003-010,012],login1``."""
    name = ""
    for text, numbers in re.findall(r"([^\[\],]*)(?:\[(\d+)[^\]]*\])?", nodes):
        name += text + numbers
        if not numbers:  # what comes next is a comma, or nothing
            break
    return name
