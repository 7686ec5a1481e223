"""How many processes there are, and where."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Topology:
    """How many processes there are, and where.

    Args:
        ngpus: devices, and so processes, on this node; every node has as many.
        nodes, node: how many nodes there are, and which one this is.
        address, port: where the server of node 0 listens.
    """

    ngpus: int = 1
    nodes: int = 1
    node: int = 0
    address: str = "localhost"
    port: int = 23456

    @property
    def processes(self) -> int:
        """Over all nodes."""
        return self.nodes * self.ngpus
