"""Starting one process per device."""

import functools
import sys
from dataclasses import dataclass
from typing import Any, Callable

import megengine.distributed as dist

from ..errors import UserError


@dataclass(frozen=True)
class Topology:
    """How many processes there are, and where.

    Args:
        ngpus: devices, and so processes, on this node.
        nodes, node: how many nodes there are, and which one this is.
        address, port: where the server of node 0 listens.
    """

    ngpus: int = 1
    nodes: int = 1
    node: int = 0
    address: str = "localhost"
    port: int = 23456


def launch(
    worker: Callable[..., int], topology: Topology, *args: Any, device_type: str = "gpu"
) -> int:
    """Run ``worker(*args)`` on every device of this node; return its exit code.

    A single process is run right here, without a launcher. MegEngine's launcher forks, so no
    tensor may exist yet.

    Raises:
        UserError: when a process has failed; it has said why.
    """
    if topology.nodes * topology.ngpus == 1:
        return worker(*args)
    start = dist.launcher(
        functools.partial(_on_rank, worker),
        n_gpus=topology.ngpus,
        world_size=topology.nodes * topology.ngpus,
        rank_start=topology.node * topology.ngpus,
        master_ip=topology.address,
        port=topology.port if topology.nodes > 1 else 0,  # 0: any that is free
        device_type=device_type,
        backend="auto",
    )
    try:
        codes = start(*args)
    except AssertionError as error:  # "subprocess N exit with code C"
        raise UserError(f"a process has failed and the others were ended: {error}") from None
    return max(code or 0 for code in codes)


def _on_rank(worker: Callable[..., int], *args: Any) -> int:
    """The worker's exit code; a user's error is told in one line and ends the process."""
    try:
        return worker(*args)
    except UserError as error:
        sys.stderr.write(f"rank {dist.get_rank()}: {error}\n")
        sys.exit(error.exit_code)
