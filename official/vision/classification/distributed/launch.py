"""Starting one process per device, on GPUs and on CPUs alike.

MegEngine's own launcher forks, which breaks when a tensor exists or a thread holds a lock, allows
GPUs only, names a victim when a rank fails, and can wait for ever. This one starts new interpreters
and looks after them (``supervisor``); what they join is MegEngine's process group.
"""

import os
import pickle
import subprocess
import sys
import tempfile
from dataclasses import replace
from typing import Any, BinaryIO, Callable, Dict, List

from ..ops.process import explained_memory
from .heartbeat import Heartbeats
from .rank import Assignment
from .rendezvous import Rendezvous, RendezvousClient, RendezvousServer, Topology
from .supervisor import RankProcess, Supervisor

__all__ = ["Topology", "launch"]

_START = (
    "import sys; sys.path[:] = {path!r}; from official.startup import prepare; prepare(); "
    "from {package}.rank import main; main({report})"
)


def launch(
    worker: Callable[..., int], topology: Topology, *args: Any, device_type: str = "gpu"
) -> int:
    """Run ``worker(*args)`` on every device of this node; return the highest exit code.

    A single process is run right here. Otherwise ``worker`` is found by its module's name in new
    processes, so it must be a module's function, and ``args`` are pickled. A rank that gets on with
    nothing for ``topology.timeout`` seconds counts as failed. The first SIGINT or SIGTERM is handed
    to the ranks, which may save and return; the second one ends them.

    Args:
        device_type: "gpu", or "cpu" for processes on the CPU, over TCP.

    Raises:
        UserError: when a rank has failed, with what it said; the others are ended then. A rank's
            UserError keeps its class.
        KeyboardInterrupt: when the ranks were ended by Ctrl-C.
    """
    if topology.processes == 1:
        with explained_memory():
            return worker(*args)
    if worker.__module__ == "__main__":
        raise ValueError("a worker must be a function of a module that can be imported")
    topology = replace(topology, settings={**topology.settings, "--device": device_type})
    rendezvous: Rendezvous
    if topology.node == 0:
        rendezvous = RendezvousServer(topology, device_type)
    else:
        rendezvous = RendezvousClient(topology)
    try:
        with tempfile.TemporaryFile() as shared:
            shared.truncate(Heartbeats.size(topology.ngpus))
            table = Heartbeats(shared.fileno(), topology.ngpus)
            ranks = _Starter(worker, args, topology, rendezvous, device_type, shared)
            return Supervisor(ranks.start, topology, table, rendezvous).run()
    finally:
        rendezvous.close()


class _Starter:
    """Starts this node's ranks."""

    def __init__(
        self,
        worker: Callable[..., int],
        args: tuple,
        topology: Topology,
        rendezvous: Rendezvous,
        device_type: str,
        shared: BinaryIO,
    ):
        self.worker = worker
        self.args = args
        self.topology = topology
        self.rendezvous = rendezvous
        self.device_type = device_type
        self.shared = shared.fileno()

    def start(self, index: int) -> RankProcess:
        """The process of this node's rank ``index``."""
        receiving, reporting = os.pipe()
        first = self.topology.node * self.topology.ngpus
        package = __package__
        command = _START.format(path=sys.path, package=package, report=reporting)
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", command],
                stdin=subprocess.PIPE,
                env=self._environment(),
                pass_fds=(reporting, self.shared),
                start_new_session=True,  # Ctrl-C reaches the launcher alone, which hands it on
            )
        finally:
            os.close(reporting)
        return RankProcess(first + index, index, process, receiving, self._assignment(index))

    def _assignment(self, index: int) -> bytes:
        topology = self.topology
        first = topology.node * topology.ngpus
        neighbours: List[int] = list(range(first, first + topology.ngpus))
        return pickle.dumps(
            Assignment(
                worker=self.worker,
                args=self.args,
                rank=first + index,
                index=index,
                world_size=topology.processes,
                neighbours=neighbours,
                address=self.rendezvous.address,
                port=self.rendezvous.port,
                secret=self.rendezvous.secret,
                device_type=self.device_type,
                heartbeats=self.shared,
                launcher=os.getpid(),
                argv=sys.argv,
            )
        )

    def _environment(self) -> Dict[str, str]:
        """On a CPU the processes share the cores, which thread pools must know when they start."""
        environment = dict(os.environ)
        if self.device_type == "cpu":
            threads = max(1, len(os.sched_getaffinity(0)) // self.topology.ngpus)
            environment.setdefault("OMP_NUM_THREADS", str(threads))
        environment.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # errors name the file themselves
        return environment
