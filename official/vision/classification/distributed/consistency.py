"""Ranks that compute the same thing must have the same thing: making sure of it, by hash."""

import hashlib
from typing import Any, Dict, Iterable, Mapping, Optional, Protocol

import megengine.module as M
import numpy as np

from ..errors import TrainingError
from .collectives import broadcast_arrays, broadcast_buffers, rank, sum_over_ranks, world_size

_VALUE_BYTES = 64


class Average(Protocol):
    """Averaged weights, as ``training.ema.ExponentialAverage`` keeps them."""

    def state(self) -> Dict[str, np.ndarray]: ...

    def load(self, state: Dict[str, np.ndarray]) -> None: ...


def share_statistics(model: M.Module, average: Optional[Average]) -> None:
    """Give every rank rank 0's batch statistics, in the network and in its average.

    They are all that ranks have of their own: each sees other images. Weights follow from
    gradients that all ranks share and are not sent; ``require_same_state`` finds a difference.
    """
    if world_size() == 1:
        return
    broadcast_buffers(model)
    if average is not None:
        own = average.state()
        buffers = [name for name, _ in model.named_buffers() if name in own]
        average.load({**own, **broadcast_arrays({name: own[name] for name in buffers})})


def require_same_state(model: M.Module, average: Optional[Average]) -> None:
    """Make sure that weights, statistics and averages are the same bits on all ranks.

    Raises:
        TrainingError: on every rank, naming those that differ from rank 0.
    """
    if world_size() == 1:
        return
    require_same("the network's weights differ between", _digest(model.state_dict()))
    if average is not None:
        require_same("the averaged weights differ between", _digest(average.state()))


def require_same_run(what: str, values: Iterable[object]) -> None:
    """Make sure that all ranks mean the same by ``values``, whose text is compared.

    Raises:
        TrainingError: ``what`` differs, on every rank.
    """
    if world_size() == 1:
        return
    digest = hashlib.sha256()
    for value in values:
        digest.update(f"{value}\0".encode())
    require_same(f"{what} differs between", digest.digest())


def require_same_value(what: str, value: object) -> None:
    """Make sure that ``value``, a few words or a number, is the same on all ranks.

    Raises:
        TrainingError: on every rank, with rank 0's value and another one.
    """
    if world_size() == 1:
        return
    text = str(value).encode()[:_VALUE_BYTES].ljust(_VALUE_BYTES)
    rows = _rows_of_all(np.frombuffer(text, np.int32))
    others = np.flatnonzero((rows != rows[0]).any(1))
    if len(others):
        first, other = (
            rows[index].tobytes().decode(errors="replace").strip() for index in (0, others[0])
        )
        raise TrainingError(f"{what} is {first} on rank 0 and {other} on rank {others[0]}")


def require_same(what: str, digest: bytes) -> None:
    """Compare the ranks' digests of 32 bytes; "<what> rank 0 and rank(s) 1, 2" if they differ."""
    rows = _rows_of_all(np.frombuffer(digest, np.int32))
    others = np.flatnonzero((rows != rows[0]).any(1))
    if len(others):
        raise TrainingError(f"{what} rank 0 and rank(s) {', '.join(map(str, others))}")


def _rows_of_all(own: np.ndarray) -> np.ndarray:
    """``(ranks, N)``: every rank's ``(N,)`` int32."""
    # Each rank fills its own row among zeros: an integer sum gathers them exactly.
    rows = np.zeros((world_size(), len(own)), np.int32)
    rows[rank()] = own
    return sum_over_ranks(rows)


def hash_arrays(digest: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Feed names, types, shapes and values to a hash of ``hashlib``, in the order of the names."""
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(value.view(np.uint8).data if value.size else b"")


def _digest(arrays: Dict[str, np.ndarray]) -> bytes:
    digest = hashlib.sha256()
    hash_arrays(digest, arrays)
    return digest.digest()
