"""What ranks tell each other. With a single process every call does nothing."""

from typing import Dict

import megengine.distributed as dist
import megengine.functional as F
import megengine.module as M
import numpy as np
from megengine import Tensor

from . import heartbeat


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
