"""What the launchers of two nodes hear of each other, without ranks."""

import socket
import threading
import time
from types import SimpleNamespace

import pytest

from official.vision.classification.distributed import rendezvous as meeting
from official.vision.classification.distributed.rendezvous import (
    RendezvousClient,
    RendezvousServer,
    Topology,
)
from official.vision.classification.errors import UsageError, UserError


@pytest.fixture()
def port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture()
def clock(monkeypatch):
    """Time stands still, except when a test moves it; a node that sleeps only lets others run."""
    now = [1000.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: time.sleep(0.01))
    monkeypatch.setattr(meeting, "time", clock)
    return now


@pytest.fixture()
def two(port, clock):
    """Node 0 and node 1."""
    host = RendezvousServer(Topology(nodes=2, port=port), "cpu")
    yield host, RendezvousClient(Topology(nodes=2, node=1, port=port))
    clock[0] += 1000  # no node is waited for
    host.close()


def test_each_hears_what_has_failed_at_the_other(two):
    host, guest = two
    assert host.exchange("", False) == guest.exchange("", False) == ""
    assert guest.exchange("node 1: no disk", False) == "node 1: no disk"
    assert host.exchange("", False) == "node 1: no disk"
    assert host.exchange("node 0: another", False) == "node 1: no disk"  # the first


def test_the_guest_hears_of_the_host(two):
    host, guest = two
    host.exchange("node 0: no disk", False)
    assert guest.exchange("", False) == "node 0: no disk"


def test_a_node_that_does_not_call_is_lost(two, clock):
    host, guest = two
    for _ in range(3):
        clock[0] += meeting._SILENCE - 0.1
        assert host.exchange("", False) == guest.exchange("", False) == ""
    clock[0] += meeting._SILENCE + 0.1
    assert host.exchange("", False) == "node 1 does not answer any more"


def test_a_node_that_is_done_need_not_call(two, clock):
    host, guest = two
    assert guest.exchange("", True) == ""
    clock[0] += 1000
    assert host.exchange("", False) == ""


def test_a_host_that_does_not_answer_is_lost_after_a_while(clock, monkeypatch):
    """Counted from its last answer, not from when it was first asked."""
    calls = []

    def join(*about):
        clock[0] += 100
        calls.append(about)
        if len(calls) < 3:
            raise ConnectionRefusedError
        return ""

    def exchange(*about):
        raise TimeoutError

    desk = SimpleNamespace(join=join, exchange=exchange)
    monkeypatch.setattr(meeting.xmlrpc.client, "ServerProxy", lambda *args, **kwargs: desk)
    guest = RendezvousClient(Topology(nodes=2, node=1))
    assert calls == [(1, 2, 1)] * 3
    for _ in range(2):
        assert guest.exchange("", False) == ""
        clock[0] += meeting._SILENCE / 2 - 0.1
    clock[0] += 0.3
    assert guest.exchange("", False) == "node 0 does not answer any more"
    assert guest.exchange("node 1: no disk", False) == "node 1: no disk"


def test_a_host_that_never_answers_is_waited_for_as_long_as_is_wished(clock, monkeypatch):
    calls = []

    def join(*about):
        clock[0] += 10
        calls.append(about)
        if len(calls) > 5:
            pytest.fail("it is still being asked")
        raise ConnectionRefusedError(111, "Connection refused")

    desk = SimpleNamespace(join=join)
    monkeypatch.setattr(meeting.xmlrpc.client, "ServerProxy", lambda *args, **kwargs: desk)
    expected = "--dist-port 99: node 0 does not answer .Connection refused.; start it"
    with pytest.raises(UserError, match=expected):
        RendezvousClient(Topology(nodes=2, node=1, port=99, timeout=35))
    assert len(calls) == 4


def test_a_port_is_free_again_at_once(port):
    for _ in range(3):
        host = RendezvousServer(Topology(nodes=2, port=port), "cpu")
        with pytest.raises(UsageError, match=f"--dist-port {port}: cannot be used .* in use"):
            RendezvousServer(Topology(nodes=2, port=port), "cpu")
        guest = RendezvousClient(Topology(nodes=2, node=1, port=port))
        guest.exchange("", True)
        host.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_the_host_stays_until_the_others_know(two):
    host, guest = two
    host.exchange("node 0: no disk", False)
    closing = threading.Thread(target=host.close)
    closing.start()
    closing.join(0.3)
    assert closing.is_alive()
    assert guest.exchange("", False) == "node 0: no disk"
    closing.join(10)
    assert not closing.is_alive()


def test_a_number_is_given_once(two, port):
    with pytest.raises(UsageError, match="--rank 1: another node has this number"):
        RendezvousClient(Topology(nodes=2, node=1, port=port))
