"""Collectives among processes on numpy arrays, over a ring of TCP connections.

Each rank sends to the next one and receives from the one before, so every connection carries
traffic at the same time and none is used by two. The result of a reduction is computed once, in one
order, and handed round: all ranks get the same bits.
"""

import contextlib
import hmac
import secrets
import select
import socket
from typing import Callable, Iterable, List, Tuple

import numpy as np

from ..errors import TrainingError

_HEADER_BYTES = 96
_TOKEN_BYTES = 16
_NEXT, _BEFORE = 0, 1  # of a rank's connections
_STRANGER_SECONDS = 5.0  # for whoever connects to say the token


class PeerLost(ConnectionError):
    """A neighbour's process has ended. It, or another one before it, knows why."""


class Listener:
    """The port on which the rank before is awaited.

    Args:
        host: address to listen on; "" for all.

    Attributes:
        port: where it listens.
        token: what the rank before must say first, in hexadecimal digits; others are turned away.
    """

    def __init__(self, host: str):
        self._server = socket.create_server((host, 0))
        self.port = self._server.getsockname()[1]
        self.token = secrets.token_hex(_TOKEN_BYTES)

    def accept(self) -> socket.socket:
        """The connection from the rank before; nobody can connect any more."""
        expected = self.token.encode()
        with self._server:
            while True:
                connection, _ = self._server.accept()
                connection.settimeout(_STRANGER_SECONDS)
                said = b""
                with contextlib.suppress(OSError):
                    said = connection.recv(len(expected), socket.MSG_WAITALL)
                if hmac.compare_digest(said, expected):
                    return connection
                connection.close()


def connect(host: str, port: int, token: str) -> socket.socket:
    """Connect to another rank's ``Listener``."""
    connection = socket.create_connection((host, port))
    connection.sendall(token.encode())
    return connection


class Ring:
    """The ranks of a group, seen from one of them. All must make the same calls in the same order.

    Args:
        ranks: the numbers of all, as ``rank()`` gives them.
        position: of this one among them.
        connections: to the next rank and from the one before; none in a group of one.

    Raises:
        PeerLost: from any call, when a neighbour has ended.
        TrainingError: from any call, when the rank before makes another call.
    """

    def __init__(
        self,
        ranks: Iterable[int],
        position: int,
        *connections: socket.socket,
    ):
        self.ranks: Tuple[int, ...] = tuple(ranks)
        self.position = position
        self.size = len(self.ranks)
        self._connections = connections
        self._calls = 0
        for connection in connections:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)

    def all_reduce(self, values: np.ndarray, combine: Callable[..., np.ndarray]) -> np.ndarray:
        """``combine`` (a ufunc such as ``np.add``) over every rank's ``values``, which all get.

        In two rounds of n - 1 exchanges, each of an n-th of the array: one in which every rank
        reduces a part, one in which the parts are handed round (Patarasuk and Yuan, "Bandwidth
        optimal all-reduce algorithms for clusters of workstations", 2009).
        """
        self._agree(f"all-reduce {combine.__name__}", values)
        total = values.flatten()
        parts = np.array_split(total, self.size)  # views
        received = np.empty_like(parts[0])
        for step in range(self.size - 1):
            part = self._part(parts, step + 1)
            self._exchange(self._part(parts, step), received[: part.size])
            combine(part, received[: part.size], out=part)
        for step in range(self.size - 1):
            self._exchange(self._part(parts, step - 1), self._part(parts, step))
        return total.reshape(values.shape)

    def all_gather(self, values: np.ndarray) -> np.ndarray:
        """``(ranks, *values.shape)``: every rank's ``values``."""
        self._agree("all-gather", values)
        rows = np.empty((self.size, *values.shape), values.dtype)
        rows[self.position] = values
        for step in range(self.size - 1):
            source, target = self.position - step, self.position - step - 1
            self._exchange(rows[source % self.size], rows[target % self.size])
        return rows

    def broadcast(self, values: np.ndarray) -> np.ndarray:
        """The first rank's ``values``; those of the others say only the shape and the type."""
        self._agree("broadcast", values)
        result, nothing = values.copy(), np.empty(0, values.dtype)
        if self.position > 0:
            self._exchange(nothing, result)
        if self.position < self.size - 1:
            self._exchange(result, nothing)
        return result

    def _part(self, parts: List[np.ndarray], step: int) -> np.ndarray:
        return parts[(self.position - step) % self.size]

    def _agree(self, call: str, values: np.ndarray) -> None:
        """Compare this call with the one that the rank before makes."""
        self._calls += 1
        if self.size == 1:
            return
        own = f"{call} of {values.dtype} {values.shape}, call {self._calls}"
        header = np.frombuffer(own.encode()[:_HEADER_BYTES].ljust(_HEADER_BYTES), np.uint8)
        other = np.empty_like(header)
        self._exchange(header, other)
        if not np.array_equal(header, other):
            its = other.tobytes().decode(errors="replace").strip()
            raise TrainingError(
                f"the ranks have parted: rank {self.ranks[self.position]} is at {own}, but rank "
                f"{self.ranks[self.position - 1]} at {its}"
            )

    def _exchange(self, outgoing: np.ndarray, incoming: np.ndarray) -> None:
        """Send the one to the next rank while the other fills from the rank before."""
        to_send = np.ascontiguousarray(outgoing).reshape(-1).view(np.uint8).data
        to_fill = incoming.reshape(-1).view(np.uint8).data
        while to_send or to_fill:
            sent = self._send(to_send) if to_send else 0
            filled = self._receive(to_fill) if to_fill else 0
            to_send, to_fill = to_send[sent:], to_fill[filled:]
            if not (sent or filled):
                self._wait(bool(to_send), bool(to_fill))

    def _send(self, data: memoryview) -> int:
        try:
            return self._connections[_NEXT].send(data)
        except BlockingIOError:
            return 0
        except OSError:
            raise self._lost(+1) from None

    def _receive(self, data: memoryview) -> int:
        try:
            count = self._connections[_BEFORE].recv_into(data)
        except BlockingIOError:
            return 0
        except OSError:
            raise self._lost(-1) from None
        if count == 0:
            raise self._lost(-1)
        return count

    def _wait(self, sending: bool, receiving: bool) -> None:
        """Until something can be done; that it takes too long is for the launcher to notice."""
        poll = select.poll()
        if sending:
            poll.register(self._connections[_NEXT], select.POLLOUT)
        if receiving:
            poll.register(self._connections[_BEFORE], select.POLLIN)
        poll.poll()

    def _lost(self, offset: int) -> PeerLost:
        return PeerLost(f"rank {self.ranks[(self.position + offset) % self.size]} is gone")
