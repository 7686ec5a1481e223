"""How many processes there are, where, and how patient they are."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Topology:
    """How many processes there are, where, and how patient they are.

    Args:
        ngpus: devices, and so processes, on this node; every node has as many.
        nodes, node: how many nodes there are, and which one this is.
        address, port: where the server of node 0 listens.
        timeout: seconds after which a process that gets on with nothing has failed, and for which
            other nodes wait for node 0.
    """

    ngpus: int = 1
    nodes: int = 1
    node: int = 0
    address: str = "localhost"
    port: int = 23456
    timeout: float = 1800.0

    @property
    def processes(self) -> int:
        """Over all nodes."""
        return self.nodes * self.ngpus
