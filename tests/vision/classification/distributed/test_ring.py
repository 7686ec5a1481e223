import contextlib
import socket
import threading

import numpy as np
import pytest

from official.vision.classification.distributed.ring import Listener, PeerLost, Ring, connect
from official.vision.classification.errors import TrainingError


def rings(size):
    """As many rings as there are ranks, in one process; rank numbers are 10, 11, …"""
    if size == 1:
        return [Ring([10], 0)]
    listeners = [Listener("127.0.0.1") for _ in range(size)]
    following = [connect("127.0.0.1", to.port, to.token) for to in listeners[1:] + listeners[:1]]
    before = [listener.accept() for listener in listeners]
    return [Ring(range(10, 10 + size), k, following[k], before[k]) for k in range(size)]


def on_all(members, call):
    """What ``call(ring)`` returns or raises on every rank, each in a thread."""
    results = [None] * len(members)

    def run(index, ring):
        try:
            results[index] = call(ring)
        except Exception as error:
            results[index] = error

    threads = [
        threading.Thread(target=run, args=(index, ring), daemon=True)
        for index, ring in enumerate(members)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return results


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", [(1,), (4,), (3, 7), (0,), (300_001,)])
def test_reductions_are_numpys_and_the_same_bits_on_every_rank(size, shape):
    rng = np.random.default_rng(0)
    floats = [rng.normal(size=shape).astype(np.float32) for _ in range(size)]
    whole = [rng.integers(-(2**28), 2**28, shape).astype(np.int32) for _ in range(size)]
    members = rings(size)
    sums = on_all(members, lambda ring: ring.all_reduce(floats[ring.position], np.add))
    assert all(found.tobytes() == sums[0].tobytes() for found in sums)
    assert sums[0].shape == shape and sums[0].dtype == np.float32
    assert np.allclose(sums[0], np.sum(np.stack(floats), 0, np.float64), rtol=1e-5, atol=1e-5)
    for combine in (np.add, np.maximum, np.minimum, np.multiply):
        found = on_all(members, lambda ring: ring.all_reduce(whole[ring.position], combine))  # noqa: B023
        expected = combine.reduce(np.stack(whole), axis=0, dtype=np.int32)
        assert all(np.array_equal(values, expected) for values in found)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_gathering_and_broadcasting(size):
    values = [np.arange(100_000).reshape(2, -1) + rank for rank in range(size)]
    members = rings(size)
    for found in on_all(members, lambda ring: ring.all_gather(values[ring.position])):
        assert np.array_equal(found, np.stack(values))
    for found in on_all(members, lambda ring: ring.broadcast(values[ring.position])):
        assert np.array_equal(found, values[0])
    assert np.array_equal(values[-1], np.arange(100_000).reshape(2, -1) + size - 1)  # untouched


def test_an_array_that_is_not_contiguous():
    whole = np.arange(24.0).reshape(4, 6)
    found = on_all(rings(2), lambda ring: ring.all_reduce(whole.T[::2], np.add))
    assert np.array_equal(found[0], 2 * whole.T[::2])


def close(ring):
    for connection in ring._connections:
        connection.close()


def test_one_that_is_gone_ends_all_others():
    """What is sent fits in no buffer; each closes its connections when it ends, as a process."""
    members = rings(4)
    close(members[1])

    def call(ring):
        try:
            return ring.all_reduce(np.zeros(30_000_000, np.uint8), np.add)
        finally:
            close(ring)

    others = members[:1] + members[2:]
    results = on_all(others, call)
    assert all(isinstance(result, PeerLost) for result in results)
    assert "rank 11 is gone" in map(str, results)


@pytest.mark.parametrize(
    "other",
    [
        lambda ring: ring.all_reduce(np.zeros(4, np.float32), np.add),  # another shape
        lambda ring: ring.all_reduce(np.zeros(3, np.int32), np.add),  # another type
        lambda ring: ring.all_reduce(np.zeros(3, np.float32), np.maximum),
        lambda ring: ring.all_gather(np.zeros(3, np.float32)),
    ],
)
def test_ranks_that_make_different_calls_are_told(other):
    def call(ring):
        return other(ring) if ring.position == 1 else ring.all_reduce(np.zeros(3, "f4"), np.add)

    results = on_all(rings(2), call)
    assert all(isinstance(result, TrainingError) for result in results)
    assert "rank 10 is at all-reduce add of float32 (3,), call 1, but rank 11" in str(results[0])


def test_strangers_are_turned_away():
    listener = Listener("127.0.0.1")
    strangers = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(3)]
    strangers[0].sendall(b"x" * 32)
    strangers[1].sendall(b"GET / HTTP/1.1\r\n")
    for stranger in strangers[1:]:
        stranger.close()
    friend = connect("127.0.0.1", listener.port, listener.token)
    friend.sendall(b"!")
    with listener.accept() as accepted:
        accepted.settimeout(5)
        assert accepted.recv(1) == b"!"
    friend.close()
    strangers[0].settimeout(5)
    with contextlib.suppress(ConnectionResetError):
        assert strangers[0].recv(1) == b""
    strangers[0].close()
    with pytest.raises(OSError):
        connect("127.0.0.1", listener.port, listener.token)
