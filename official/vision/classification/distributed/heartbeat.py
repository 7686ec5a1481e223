"""Signs of life: ranks write them into memory that their launcher reads.

A rank beats at every collective and whenever it says so (after every step). A rank that has stopped
in the middle of something does not, and so is found on any device, without a timeout inside NCCL.
"""

import contextlib
import mmap
import time
from typing import Iterable, Iterator, Optional, TypeVar

import numpy as np

Item = TypeVar("Item")

_COUNT, _TIME, _WAITING = 0, 1, 2
_BYTES_PER_RANK = 3 * 8
_PATIENCE = 3.0  # seconds


class Heartbeats:
    """A table with a row for each rank of this node, in memory that processes share.

    Args:
        descriptor: of an empty or shared file that is ``size(ranks)`` bytes long.
    """

    def __init__(self, descriptor: int, ranks: int):
        memory = mmap.mmap(descriptor, self.size(ranks))
        self._rows = np.frombuffer(memory, np.float64).reshape(ranks, 3)

    @staticmethod
    def size(ranks: int) -> int:
        """Bytes for so many ranks."""
        return ranks * _BYTES_PER_RANK

    def beat(self, index: int) -> None:
        """Note that the rank in row ``index`` has got on."""
        row = self._rows[index]
        row[_COUNT] += 1
        row[_TIME] = time.monotonic()  # one clock for all processes of a machine

    def set_waiting(self, index: int, waiting: bool) -> None:
        """Note whether the rank can only go on when others do."""
        self._rows[index, _WAITING] = waiting

    def is_waiting(self, index: int) -> bool:
        """Whether the rank in row ``index`` waits for others."""
        return bool(self._rows[index, _WAITING])

    def stalled(self, indices: Iterable[int], timeout: float) -> Optional[int]:
        """Which of the ranks ``indices`` holds up the others, if one does.

        It has been silent for ``timeout`` seconds. A rank that waits for others gets a little
        longer: the one it waits for may be looked after by another launcher.
        """
        now = time.monotonic()
        rows = {index: self._rows[index] for index in indices}
        found = [
            (bool(row[_WAITING]), float(row[_COUNT]), index)
            for index, row in rows.items()
            if now - row[_TIME] > timeout + (_PATIENCE if row[_WAITING] else 0)
        ]
        return min(found)[2] if found else None


class _Own:
    """This process's row."""

    table: Optional[Heartbeats] = None
    index = 0


def attach(table: Heartbeats, index: int) -> None:
    """From now on ``beat`` and ``waiting`` write into row ``index`` of ``table``."""
    _Own.table, _Own.index = table, index
    beat()


def beat() -> None:
    """Tell the launcher, if there is one, that this process gets on."""
    if _Own.table is not None:
        _Own.table.beat(_Own.index)


def with_heartbeats(items: Iterable[Item]) -> Iterator[Item]:
    """The same items, with a sign of life at each."""
    for item in items:
        beat()
        yield item


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Tell it that this process waits for others inside of ``with``; a beat before and after."""
    if _Own.table is None:
        yield
        return
    beat()
    _Own.table.set_waiting(_Own.index, True)
    try:
        yield
    finally:
        _Own.table.set_waiting(_Own.index, False)
        beat()
