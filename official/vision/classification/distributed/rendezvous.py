"""How many processes there are, and where they meet.

That is MegEngine's key-value server, at which the launchers of nodes also tell each other news.
The server runs in a thread of node 0's launcher and ends with it, so that it leaves neither a
process nor a port behind.
"""

import errno
import io
import ipaddress
import logging
import secrets
import socket
import threading
import time
import xmlrpc.client
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Dict, Optional, Set, Union
from xmlrpc.server import SimpleXMLRPCRequestHandler

from megengine.core._imperative_rt.utils import create_mm_server
from megengine.distributed.server import Methods, ThreadXMLRPCServer

from ..errors import UsageError, UserError
from .secret import (
    HEADER,
    MOST_BYTES,
    SigningTransport,
    is_signed,
    new_secret,
    shared_secret,
)

logger = logging.getLogger(__name__)

CALL_EVERY = 0.5  # seconds between two calls of a launcher to node 0's
_CALL_SECONDS = 2.0  # for one such call to be answered
_IDLE_SECONDS = 60.0  # for a stranger to say what he wants
_NOT_GIVEN = "not given"
_SHOWN = 5  # differences, in a message
_SILENCE = 6.0  # seconds after which a node is lost: all notice it within 10, on a busy machine too


@dataclass(frozen=True)
class Topology:
    """How many processes there are, where, and how patient they are.

    Args:
        ngpus: devices, and so processes, on this node; every node has as many.
        nodes, node: how many nodes there are, and which one this is.
        address, port: where the server of node 0 listens.
        timeout: seconds after which a process that gets on with nothing has failed, and for which
            other nodes wait for node 0.
        secret: a file with the word that all nodes share; None for the usual one.
        settings: what must be the same on all nodes, by the name that the user knows it by.
    """

    ngpus: int = 1
    nodes: int = 1
    node: int = 0
    address: str = "localhost"
    port: int = 23456
    timeout: float = 1800.0
    secret: Optional[str] = None
    settings: Dict[str, str] = field(default_factory=dict)

    @property
    def processes(self) -> int:
        """Over all nodes."""
        return self.nodes * self.ngpus


class _Server(ThreadXMLRPCServer):
    daemon_threads = True  # a thread that serves a rank that never comes must not keep us alive
    secret = ""
    has_remarked = False  # that somebody was turned away


class _Handler(SimpleXMLRPCRequestHandler):
    """Serves those who know the secret, and reads no more than a call can have."""

    timeout = _IDLE_SECONDS
    server: _Server

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or len(length) > 9 or int(length) > MOST_BYTES:
            self._turn_away(413, "too long")
            return
        if self.headers.get("content-encoding", "identity") != "identity":
            self._turn_away(415, "packed")  # could unfold to anything
            return
        body = self.rfile.read(int(length))
        if not is_signed(self.server.secret, body, self.headers.get(HEADER, "")):
            self._turn_away(403, "the secret of this job is another")
            self._remark()
            return
        self.rfile = io.BytesIO(body)
        super().do_POST()

    def _remark(self) -> None:
        if not self.server.has_remarked:
            self.server.has_remarked = True
            logger.warning(
                "%s has called and does not know this job's secret; it was turned away",
                self.client_address[0],
            )

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 its name in the library
        """Say nothing of requests that make no sense: anybody could fill a job's log with them."""

    def _turn_away(self, code: int, reason: str) -> None:
        self.close_connection = True
        self.send_response(code, reason)
        self.send_header("Content-length", "0")
        self.end_headers()


class _Methods(Methods):
    """MegEngine's methods, and those for launchers."""

    def __init__(self, mm_server_port: int, topology: Topology):
        super().__init__(mm_server_port)
        self.topology = topology
        self.failure = ""
        self.callers: Dict[int, str] = {}  # what the launcher of each node calls itself
        self.last_call: Dict[int, float] = {}
        self.informed: Set[int] = set()  # nodes that know of the failure, or have no more to do

    def join(self, node: int, nodes: int, ngpus: int, settings: Dict[str, str], caller: str) -> str:
        """Let another node take part; return why not, or nothing.

        The same ``caller`` may ask again: an answer can be lost on its way.
        """
        refusal = self._refusal(node, nodes, ngpus, settings, caller)
        if refusal:
            logger.warning("node %s was turned away: %s", node, refusal)
        return refusal

    def _refusal(
        self, node: int, nodes: int, ngpus: int, settings: Dict[str, str], caller: str
    ) -> str:
        with self.lock:
            if (nodes, ngpus) != (self.topology.nodes, self.topology.ngpus):
                return (
                    f"--world-size {nodes} --ngpus {ngpus}: node 0 was started with --world-size "
                    f"{self.topology.nodes} --ngpus {self.topology.ngpus}"
                )
            own = self.topology.settings
            pairs = [
                (name, own.get(name, _NOT_GIVEN), settings.get(name, _NOT_GIVEN))
                for name in {**own, **settings}
            ]
            differing = [f"{name} is {a} there and {b} here" for name, a, b in pairs if a != b]
            if differing:
                return "node 0 was started otherwise: " + "; ".join(differing[:_SHOWN])
            if node == 0 or self.callers.setdefault(node, caller) != caller:
                return f"--rank {node}: another node has this number"
            self.last_call[node] = time.monotonic()
            return ""

    def exchange(self, node: int, failure: str, done: bool) -> str:
        """Take in a node's news; return what has failed anywhere, or nothing."""
        with self.lock:
            self.failure = self.failure or failure
            self.last_call[node] = time.monotonic()
            if self.failure or done:
                self.informed.add(node)
            return self.failure

    def missing(self) -> Optional[int]:
        """A node that has taken part and has not called for too long."""
        with self.lock:
            for node, called in self.last_call.items():
                if node not in self.informed and time.monotonic() - called > _SILENCE:
                    return node
            return None


class RendezvousServer:
    """Node 0's side.

    Args:
        device_type: "gpu" starts MegEngine's second server too, through which NCCL's ranks meet.

    Raises:
        UsageError: when the port is in use.
    """

    def __init__(self, topology: Topology, device_type: str):
        several = topology.nodes > 1
        host = listening_host(topology.address) if several else "127.0.0.1"
        self.secret = shared_secret(topology.secret) if several else new_secret()
        mm_server_port = create_mm_server(host or "0.0.0.0", 0) if device_type == "gpu" else 0
        self._methods = _Methods(mm_server_port, topology)
        port = topology.port if several else 0  # 0: any that is free
        try:
            self._server = _Server((host, port), _Handler, logRequests=False, allow_none=True)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise UsageError(
                    f"--dist-addr {topology.address}: is no address of this machine, which is "
                    "node 0 (--rank 0); give all nodes one that node 0 has"
                ) from None
            raise UsageError(
                f"--dist-port {port}: cannot be used on this machine: {error.strerror}; give all "
                "nodes another one"
            ) from None
        self._server.secret = self.secret
        self._server.register_instance(self._methods)
        self.address = topology.address if several else "127.0.0.1"
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def exchange(self, failure: str, done: bool) -> str:
        """Say what has failed here, if anything; return what has failed anywhere, or nothing."""
        missing = self._methods.missing()
        if missing is not None and not failure:
            failure = f"node {missing} does not answer any more"
        return self._methods.exchange(0, failure, done)

    def close(self) -> None:
        """Wait until the other nodes know the end, or do not call any more; free the port."""
        while not self._all_informed() and self._methods.missing() is None:
            time.sleep(0.05)
        self._server.shutdown()
        self._server.server_close()

    def _all_informed(self) -> bool:
        with self._methods.lock:
            return self._methods.last_call.keys() <= self._methods.informed | {0}


class RendezvousClient:
    """The side of every other node, which waits ``topology.timeout`` seconds for node 0.

    Raises:
        UserError: when node 0 does not answer, or does not want this node.
    """

    def __init__(self, topology: Topology):
        self.address, self.port = topology.address, topology.port
        self._node = topology.node
        self.secret = shared_secret(topology.secret)
        self._methods = xmlrpc.client.ServerProxy(
            f"http://{self.address}:{self.port}",
            transport=SigningTransport(self.secret, _CALL_SECONDS),
            allow_none=True,
        )
        refusal = self._join(topology, time.monotonic() + topology.timeout)
        if refusal:
            raise UsageError(refusal)
        self._answered = time.monotonic()

    def _join(self, topology: Topology, deadline: float) -> str:
        about = (topology.node, topology.nodes, topology.ngpus, topology.settings)
        caller = secrets.token_hex(16)
        while True:
            try:
                return str(self._methods.join(*about, caller))
            except xmlrpc.client.ProtocolError as error:
                if error.errcode == 403:
                    raise UsageError(
                        f"--dist-addr {self.address}: node 0 has another secret; give all nodes "
                        "the same file by --dist-secret, or the same word by RESNET_DIST_SECRET"
                    ) from None
                raise UserError(f"--dist-addr {self.address}: {error.errmsg}") from None
            except (OSError, HTTPException, xmlrpc.client.Error) as error:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"--dist-addr {self.address} --dist-port {self.port}: node 0 does not "
                        f"answer ({_reason(error)}); start it with the same flags and --rank 0"
                    ) from None
                time.sleep(0.5)

    def exchange(self, failure: str, done: bool) -> str:
        """As ``RendezvousServer.exchange``."""
        try:
            failure = str(self._methods.exchange(self._node, failure, done))
            self._answered = time.monotonic()
        except (OSError, HTTPException, xmlrpc.client.Error):
            if time.monotonic() - self._answered > _SILENCE and not failure:
                failure = "node 0 does not answer any more"
        return failure

    def close(self) -> None:
        """Nothing: the server is node 0's."""


Rendezvous = Union[RendezvousServer, RendezvousClient]


def listening_host(name: str) -> str:
    """Where a machine that others know as ``name`` listens: on that address alone.

    Many systems give a machine's own name to the loopback device (127.0.1.1 in /etc/hosts), where
    no other could reach it: "" then, which is every address.

    Raises:
        UsageError: when there is no such host.
    """
    try:
        found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no such host"
        raise UsageError(f"--dist-addr {name}: {reason}") from None
    address = str(found[0][4][0])
    is_hidden = ipaddress.ip_address(address).is_loopback and name not in ("localhost", address)
    return "" if is_hidden else address


def _reason(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "no such host"
    return getattr(error, "strerror", None) or type(error).__name__
