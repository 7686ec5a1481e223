"""What the launchers of two nodes hear of each other, without ranks."""

import contextlib
import gzip
import http.client
import http.server
import socket
import threading
import time
import xmlrpc.client
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from official.vision.classification.distributed import rendezvous as meeting
from official.vision.classification.distributed.rendezvous import (
    RendezvousClient,
    RendezvousServer,
    Topology,
)
from official.vision.classification.distributed.secret import sign
from official.vision.classification.errors import UsageError, UserError


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("RESNET_DIST_SECRET", "a word of this test alone")
    return "a word of this test alone"


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
    assert [about[:4] for about in calls] == [(1, 2, 1, {})] * 3
    assert len({about[4] for about in calls}) == 1
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


def test_an_answer_that_is_lost_is_asked_for_again(port, monkeypatch):
    """The host has let the guest in already, and knows it when it calls once more."""
    proxy, lost = meeting.xmlrpc.client.ServerProxy, []

    def lossy(*args, **kwargs):
        real = proxy(*args, **kwargs)

        def join(*about):
            answer = real.join(*about)
            if not lost:
                lost.append(answer)
                raise ConnectionResetError
            return answer

        return SimpleNamespace(join=join, exchange=real.exchange)

    host = RendezvousServer(Topology(nodes=2, port=port), "cpu")
    monkeypatch.setattr(meeting.xmlrpc.client, "ServerProxy", lossy)
    guest = RendezvousClient(Topology(nodes=2, node=1, port=port))
    assert lost == [""]
    guest.exchange("", True)
    host.close()


def test_a_number_is_given_once(two, port):
    with pytest.raises(UsageError, match="--rank 1: another node has this number"):
        RendezvousClient(Topology(nodes=2, node=1, port=port))


@pytest.mark.parametrize("other", ["a word of another test", "a word of this test alone "])
def test_a_node_with_another_secret_is_turned_away(port, clock, monkeypatch, caplog, other):
    host = RendezvousServer(Topology(nodes=2, port=port), "cpu")
    monkeypatch.setattr(meeting, "shared_secret", lambda file: other)
    with pytest.raises(UsageError, match="node 0 has another secret; give all nodes the same"):
        RendezvousClient(Topology(nodes=2, node=1, port=port))
    assert host._methods.last_call == {}
    assert "127.0.0.1 has called and does not know this job's secret" in caplog.text
    host.close()


def call(port, body, **headers):
    """A request as a stranger could send it; status and answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.putrequest("POST", "/RPC2")
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_request_is_served_by_its_signature_alone(two, port, secret):
    host, _ = two
    body = xmlrpc.client.dumps((0, "a stranger's text", False), "exchange").encode()
    length = str(len(body))
    wrong = [{}, {"X_Resnet_HMAC": ""}, {"X_Resnet_HMAC": secret}, {"X_Resnet_HMAC": "0" * 64}]
    wrong.append({"X_Resnet_HMAC": sign(secret, body + b" ")})
    for headers in wrong:
        assert call(port, body, Content_Length=length, **headers) == (403, b"")
    assert host.exchange("", False) == ""
    status, answer = call(port, body, Content_Length=length, X_Resnet_HMAC=sign(secret, body))
    assert status == 200 and b"a stranger's text" in answer
    assert host.exchange("", False) == "a stranger's text"


@pytest.mark.parametrize("method", ["user_set", "system.listMethods", "get_mm_server_port", "join"])
def test_no_method_is_for_strangers(two, port, method):
    body = xmlrpc.client.dumps((), method).encode()
    assert call(port, body, Content_Length=str(len(body))) == (403, b"")


@pytest.mark.parametrize(
    "length", ["100000000000", "1048577", "-1", "x", "", "0" * 5000 + "9", "9" * 5000]
)
def test_a_claimed_length_takes_no_memory_and_no_time(two, port, length):
    start = time.perf_counter()
    assert call(port, b"", Content_Length=length)[0] == 413
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("request_line", [b"PUT / HTTP/1.0", b"POST / HTTP/9.9", b"\x1b[31m \x07"])
def test_strangers_cannot_fill_the_log(two, port, request_line, capfd):
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(request_line + b"\r\n\r\n")
        assert connection.recv(100)
    assert capfd.readouterr() == ("", "")


def test_a_packed_request_is_not_unpacked(two, port, secret):
    body = gzip.compress(bytes(1 << 20))
    headers = {"Content_Length": str(len(body)), "Content_Encoding": "gzip"}
    assert call(port, body, X_Resnet_HMAC=sign(secret, body), **headers)[0] == 415


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_an_answer_takes_no_memory_without_end(port, encoding):
    """Of whoever has taken node 0's address: 100 GB, or few bytes that unfold to many."""
    sent = []

    class Impostor(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.send_header("Content-Length", str(10**11))
            if encoding:
                self.send_header("Content-Encoding", encoding)
            self.end_headers()
            piece = gzip.compress(bytes(1 << 24)) if encoding else bytes(1 << 16)
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(piece)
                    sent.append(len(piece))

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", port), Impostor) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(UserError, match="an answer has more than 1,048,576 bytes"):
            RendezvousClient(Topology(nodes=2, node=1, port=port))
        thread.join()
    assert sum(sent) < 1 << 25


def test_what_differs_between_nodes_is_named(port, clock, caplog):
    """All of it at once, with both values, before any rank is started."""
    here = {"--epochs": "5", "--lr": "not given", "MegEngine's version": "1.13.0", "--seed": "0"}
    there = {"--epochs": "4", "--lr": "0.1", "MegEngine's version": "1.13.0", "--seed": "0"}
    host = RendezvousServer(Topology(nodes=2, port=port, settings=there), "cpu")
    with pytest.raises(UsageError) as caught:
        RendezvousClient(Topology(nodes=2, node=1, port=port, settings=here))
    said = "--epochs is 4 there and 5 here; --lr is 0.1 there and not given here"
    assert str(caught.value) == f"node 0 was started otherwise: {said}"
    assert f"node 1 was turned away: node 0 was started otherwise: {said}" in caplog.text
    guest = RendezvousClient(Topology(nodes=2, node=1, port=port, settings=there))
    guest.exchange("", True)
    host.close()


def test_node_0_listens_where_it_is_told_and_nowhere_else(port):
    for several in (Topology(nodes=2, port=port, address="127.0.0.2"), Topology(ngpus=2)):
        host = RendezvousServer(several, "cpu")
        address, used = host._server.server_address
        assert address == ("127.0.0.2" if several.nodes > 1 else "127.0.0.1")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.3", used))
        host._server.shutdown()
        host._server.server_close()


@pytest.mark.parametrize(
    ("several", "listens"),
    [(Topology(ngpus=2), "0100007F"), (Topology(nodes=2, address="127.0.0.2"), "0200007F")],
)
def test_nccls_meeting_point_listens_there_too(port, several, listens):
    """It is MegEngine's own server, without any secret; see /proc/net/tcp."""
    host = RendezvousServer(replace(several, port=port), "gpu")
    suffix = f":{host._methods.get_mm_server_port():04X}"
    rows = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()]
    assert [row for row in rows if row.endswith(suffix)] == [listens + suffix]
    host._server.shutdown()
    host._server.server_close()


def test_an_address_of_another_machine_is_named(port):
    with pytest.raises(UsageError, match="--dist-addr 192.0.2.1: is no address of this machine"):
        RendezvousServer(Topology(nodes=2, port=port, address="192.0.2.1"), "cpu")  # RFC 5737


def test_a_name_of_the_loopback_device_means_every_address(monkeypatch):
    """127.0.1.1 is what Debian gives a machine's own name."""
    known = {"localhost": "127.0.0.1", "gpu1": "127.0.1.1", "gpu2": "10.1.2.3"}
    monkeypatch.setattr(
        meeting.socket, "getaddrinfo", lambda name, *_: [(2, 1, 6, "", (known.get(name, name), 0))]
    )
    for name, host in (
        *(("localhost", "127.0.0.1"), ("gpu1", ""), ("gpu2", "10.1.2.3")),
        *(("127.0.0.1", "127.0.0.1"), ("127.0.1.1", "127.0.1.1")),
    ):
        assert meeting.listening_host(name) == host


@pytest.mark.parametrize("name", ["no.such.host.invalid", "x" * 300, "a..b"])
def test_a_host_that_is_not_there(name):
    with pytest.raises(UsageError, match="--dist-addr"):
        meeting.listening_host(name)
