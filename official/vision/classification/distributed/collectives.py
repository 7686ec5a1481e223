"""What ranks tell each other, on GPUs and CPUs. With a single process every call does nothing.

MegEngine has collectives for GPUs only. All of them but ``remote_send`` and ``remote_recv`` pass
through one function, ``megengine.distributed.functional.collective_comm``; ``enable_cpu`` puts
another in its place. What is built upon it (``F.distributed``, ``bcast_list_``,
``make_allreduce_cb``, ``SyncBatchNorm``) then runs unchanged.
"""

import socket
from typing import Callable, Dict, Optional

import megengine.distributed as dist
import megengine.functional as F
import megengine.module as M
import numpy as np
from megengine import Tensor
from megengine.autodiff import Function
from megengine.distributed import functional, group
from megengine.distributed.group import Group

from . import heartbeat
from .rendezvous import listening_host
from .ring import Listener, Ring, connect

_GRADIENTS = {  # which collective takes the gradient of the output to that of the input
    "ALL_REDUCE_SUM": "ALL_REDUCE_SUM",
    "ALL_GATHER": "REDUCE_SCATTER_SUM",
    "REDUCE_SCATTER_SUM": "ALL_GATHER",
    "ALL_TO_ALL": "ALL_TO_ALL",
}


def rank() -> int:
    """This process's number among all, from 0."""
    return dist.get_rank()


def world_size() -> int:
    """The number of processes over all nodes."""
    return dist.get_world_size()


def barrier() -> None:
    """Wait until every rank is here; one that does not come within the limit ends all."""
    # MegEngine's own barrier asks its server again and again, whatever happens, for ever.
    sum_over_ranks(np.ones(1, np.int32))


def sum_over_ranks(values: np.ndarray) -> np.ndarray:
    """The sum of every rank's array, which all ranks get."""
    if world_size() == 1:
        return values
    with heartbeat.waiting():
        return F.distributed.all_reduce_sum(Tensor(values)).numpy()


def broadcast_model(model: M.Module) -> None:
    """Give every rank rank 0's parameters and buffers."""
    if world_size() > 1:
        with heartbeat.waiting():
            dist.bcast_list_(list(model.parameters()))
        broadcast_buffers(model)


def broadcast_buffers(model: M.Module) -> None:
    """Give every rank rank 0's buffers, such as running statistics."""
    if world_size() > 1:
        with heartbeat.waiting():
            dist.bcast_list_(list(model.buffers()))


def broadcast_arrays(arrays: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """Rank 0's arrays on every rank; names, shapes and types are the same everywhere."""
    if world_size() == 1:
        return arrays
    tensors = [Tensor(value) for value in arrays.values()]
    with heartbeat.waiting():
        dist.bcast_list_(tensors)
    values = (tensor.numpy().reshape(old.shape) for tensor, old in zip(tensors, arrays.values()))
    return dict(zip(arrays, values))


def enable_cpu() -> None:
    """Let this process join a group of CPU processes; before ``init_process_group``."""
    group._devices.add("cpu")
    functional.collective_comm = _collective_comm


def _collective_comm(inp: Tensor, mode: object, group: Group, device: Optional[str]) -> Tensor:
    return _Collective(str(mode).rsplit(".", 1)[-1], group)(inp)


class _Collective(Function):
    """One collective, differentiable where MegEngine leaves that to it."""

    def __init__(self, mode: str, group: Group):
        super().__init__()
        self.mode = mode
        self.group = group

    def forward(self, inp: Tensor) -> Tensor:
        values = np.atleast_1d(inp.numpy())
        with heartbeat.waiting():
            result = _COLLECTIVES[self.mode](_ring_of(self.group), values)
        return Tensor(result, dtype=inp.dtype, device=str(inp.device))

    def backward(self, grad: Optional[Tensor]) -> Optional[Tensor]:
        if grad is None:
            return None
        if self.mode not in _GRADIENTS:
            raise NotImplementedError(f"the gradient of {self.mode} on a CPU")
        return _Collective(_GRADIENTS[self.mode], self.group)(grad)


def _own_part(ring: Ring, values: np.ndarray) -> np.ndarray:
    """This rank's share of the first axis, which the number of ranks divides."""
    return np.split(values, ring.size)[ring.position]


def _gather(ring: Ring, values: np.ndarray) -> np.ndarray:
    return np.concatenate(ring.all_gather(values))


def _to_all(ring: Ring, values: np.ndarray) -> np.ndarray:
    return np.concatenate([_own_part(ring, row) for row in ring.all_gather(values)])


# Where MegEngine gives a result to the first rank only, the others have one that nobody looks at.
_COLLECTIVES: Dict[str, Callable[[Ring, np.ndarray], np.ndarray]] = {
    "ALL_REDUCE_SUM": lambda ring, values: ring.all_reduce(values, np.add),
    "ALL_REDUCE_MAX": lambda ring, values: ring.all_reduce(values, np.maximum),
    "ALL_REDUCE_MIN": lambda ring, values: ring.all_reduce(values, np.minimum),
    "ALL_REDUCE_PROD": lambda ring, values: ring.all_reduce(values, np.multiply),
    "REDUCE_SUM": lambda ring, values: ring.all_reduce(values, np.add),
    "REDUCE_SCATTER_SUM": lambda ring, values: _own_part(ring, ring.all_reduce(values, np.add)),
    "BROADCAST": lambda ring, values: ring.broadcast(values),
    "SCATTER": lambda ring, values: _own_part(ring, ring.broadcast(values)),
    "ALL_GATHER": _gather,
    "GATHER": _gather,
    "ALL_TO_ALL": _to_all,
}

_rings: Dict[str, Ring] = {}


def _ring_of(members: Group) -> Ring:
    if members.key not in _rings:
        _rings[members.key] = _build_ring(members)
    return _rings[members.key]


def _build_ring(members: Group) -> Ring:
    """Find the neighbours through the group's key-value server and connect to them."""
    if members.size == 1:
        return Ring(members.proc_ranks, 0)
    own_host = _address_facing_server()
    told = own_host if members.is_single_machine else listening_host(group.get_py_server_addr()[0])
    listener = Listener(own_host if told else "")
    key = f"ring/{members.key}/"
    client = group.get_client()
    client.user_set(f"{key}{members.rank}", [own_host, listener.port, listener.token])
    host, port, token = client.user_pop(f"{key}{(members.rank + 1) % members.size}")
    if host.startswith("127."):  # it is on the server's machine, known here under another address
        host = group.get_py_server_addr()[0]
    return Ring(members.proc_ranks, members.rank, connect(host, port, token), listener.accept())


def _address_facing_server() -> str:
    with socket.create_connection(group.get_py_server_addr()) as probe:
        return probe.getsockname()[0]
