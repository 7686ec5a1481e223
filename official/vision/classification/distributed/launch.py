"""Starting one process per device."""

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


def launch(worker: Callable[..., int], topology: Topology, *args: Any) -> int:
    """Run ``worker(*args)`` on every device of this node; return its exit code.

    A single process is run right here, without a launcher. MegEngine's launcher forks, so no
    tensor may exist yet.

    Raises:
        UserError: when a process has failed.
    """
    if topology.nodes * topology.ngpus == 1:
        return worker(*args)
    start = dist.launcher(
        worker,
        n_gpus=topology.ngpus,
        world_size=topology.nodes * topology.ngpus,
        rank_start=topology.node * topology.ngpus,
        master_ip=topology.address,
        port=topology.port,
        device_type="gpu",
    )
    try:
        codes = start(*args)
    except AssertionError as error:  # "subprocess N exit with code C"
        raise UserError(f"a process has failed, see above: {error}") from None
    return max(code or 0 for code in codes)
