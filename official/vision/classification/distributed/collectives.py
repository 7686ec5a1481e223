"""What ranks tell each other. With a single process every call does nothing."""

import megengine.distributed as dist
import megengine.functional as F
import megengine.module as M
import numpy as np
from megengine import Tensor


def rank() -> int:
    """This process's number among all, from 0."""
    return dist.get_rank()


def world_size() -> int:
    """The number of processes over all nodes."""
    return dist.get_world_size()


def barrier() -> None:
    """Wait until every rank is here."""
    if world_size() > 1:
        dist.group_barrier()


def sum_over_ranks(values: np.ndarray) -> np.ndarray:
    """The sum of every rank's array, which all ranks get."""
    if world_size() == 1:
        return values
    return F.distributed.all_reduce_sum(Tensor(values)).numpy()


def broadcast_model(model: M.Module) -> None:
    """Give every rank rank 0's parameters and buffers."""
    if world_size() > 1:
        dist.bcast_list_(list(model.parameters()))
        dist.bcast_list_(list(model.buffers()))
