"""Open a page on this machine: photographs dropped there are named, with heat maps.

published weights   python tools/serve.py --arch resnet50
own checkpoint      python tools/serve.py --model output/resnet50/best.safetensors
another port        python tools/serve.py --arch resnet50 --port 9000

The address is printed. Only programs of this machine can reach it, and only its own page can send
pictures; Ctrl-C ends it.
"""

import argparse
import hmac
import json
import queue
import secrets
import sys
import threading
from concurrent.futures import Future
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Dict, Optional, Sequence, Tuple

from ..engine import flags
from ..engine.device import choose_device, prepare, use_device
from ..errors import UsageError, UserError
from ..page import language_of, render
from ..prediction.answering import Answerer
from ..prediction.images import ImageFile
from ..text import printable
from ..zoo.trained import Network, open_network

HOST = "127.0.0.1"
MOST_MB = 50  # of a picture's file
_WAITING = 8  # pictures; more are refused until there is room
_CONNECTIONS = 32  # at a time
_PATIENCE = 20.0  # seconds for which a connection may say nothing

Job = Tuple[ImageFile, "Future[Dict[str, Any]]"]


class Server(ThreadingHTTPServer):
    """Takes requests in threads and leaves the computing to ``work``, in the main one.

    MegEngine computes in the thread that it was set up in.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, answerer: Answerer, page: Dict[str, Any], language: str):
        super().__init__((HOST, port), Handler)
        self.answerer = answerer
        self.token = secrets.token_urlsafe(24)
        self.page = render({**page, "token": self.token}, "serve.html", language)
        self.jobs: queue.Queue[Job] = queue.Queue(_WAITING)
        self._free = threading.BoundedSemaphore(_CONNECTIONS)

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for it, unless there are too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer it, then make room."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Be silent on connections that break off."""

    def work(self) -> None:
        """Answer picture after picture, until Ctrl-C."""
        while True:
            file, result = self.jobs.get()
            try:
                answer = self.answerer(file)
                top = [score.to_dict() for score in answer.top]
                pictures = {"picture": answer.picture, "heat": answer.heat, "seen": answer.seen}
                result.set_result({"top": top, **pictures})
            except UserError as error:
                result.set_result({"error": printable(str(error))})


class Handler(BaseHTTPRequestHandler):
    """One request: the page, or a picture to answer to."""

    server: Server
    server_version, sys_version = "resnet", ""
    timeout = _PATIENCE

    def do_GET(self) -> None:
        """The page."""
        if not self._is_ours():
            self._tell(HTTPStatus.FORBIDDEN, {"error": "another host"})
        elif self.path != "/":
            self._tell(HTTPStatus.NOT_FOUND, {"error": "there is only /"})
        else:
            self._send(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")

    def do_POST(self) -> None:
        """A picture; the answer is JSON."""
        token = self.headers.get("X-Token", "")
        length = self.headers.get("Content-Length", "")
        if not self._is_ours() or not hmac.compare_digest(
            token.encode(), self.server.token.encode()
        ):
            self._tell(HTTPStatus.FORBIDDEN, {"error": "only the page of this server may ask"})
        elif self.path != "/answer":
            self._tell(HTTPStatus.NOT_FOUND, {"error": "there is only /answer"})
        elif not length.isdecimal() or len(length) > 12:
            self._tell(HTTPStatus.LENGTH_REQUIRED, {"error": "how long is it?"})
        elif int(length) > MOST_MB * 1_000_000:
            told = f"the file has {int(length) / 1e6:.0f} MB; at most {MOST_MB} are read"
            self._tell(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": told})
        else:
            self._answer(self.rfile.read(int(length)))

    def _answer(self, data: bytes) -> None:
        result: Future[Dict[str, Any]] = Future()
        try:
            self.server.jobs.put_nowait((ImageFile("the file", "file", data), result))
        except queue.Full:
            busy = {"error": "too many pictures at a time; try again"}
            return self._tell(HTTPStatus.SERVICE_UNAVAILABLE, busy)
        return self._tell(HTTPStatus.OK, result.result())

    def _is_ours(self) -> bool:
        """Whether the address in the browser is this server's, and no name that leads to it.

        Without it a page from elsewhere could have its own host's name mean this machine (DNS
        rebinding), and so read what is answered here.
        """
        port = self.server.server_address[1]
        hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
        origin = self.headers.get("Origin")
        return self.headers.get("Host") in hosts and (
            origin is None or origin in {f"http://{host}" for host in hosts}
        )

    def _tell(self, status: HTTPStatus, told: Dict[str, Any]) -> None:
        self._send(status, json.dumps(told).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Connection", "close"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 its name in the library
        """Say nothing of single requests."""


def parser() -> flags.Parser:
    """The command line."""
    parser = flags.Parser("serve.py", __doc__)
    flags.add_weights(parser)
    parser.add_argument(
        "--port",
        type=flags.natural,
        default=8000,
        metavar="N",
        help="0 for any that is free (default: 8000)",
    )
    parser.add_argument(
        "--top-k", type=flags.positive, default=5, metavar="K", help="classes (default: 5)"
    )
    flags.add_device(parser)
    flags.add_precision(parser)
    flags.add_language(parser)
    return parser


def open_server(args: argparse.Namespace, network: Network) -> Server:
    """A server that listens.

    Raises:
        UsageError: when the port cannot be had.
    """
    page = {
        "network": f"{network.arch}, {network.num_classes:,} classes",
        "preparation": {key: str(value) for key, value in network.preprocess.to_dict().items()},
        "most": MOST_MB,
    }
    try:
        return Server(args.port, Answerer(network, args.top_k), page, language_of(args.lang))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "not a port"
        raise UsageError(f"--port {args.port}: {reason}; --port 0 takes one that is free") from None


def start(args: argparse.Namespace) -> int:
    """Serve as the flags say."""
    device = choose_device(args.device, 1)
    use_device(device)
    network = open_network(flags.network(args))
    prepare(network.model, device, args.precision or "fp32")
    server = open_server(args, network)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{network.arch} answers at {server.address} (Ctrl-C ends it)\n")
    sys.stdout.flush()
    try:
        server.work()
    except KeyboardInterrupt:
        sys.stdout.write("ended\n")
    finally:
        server.shutdown()
        server.server_close()
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the script; return its exit code."""
    return flags.run(parser(), start, argv)


if __name__ == "__main__":
    sys.exit(main())
