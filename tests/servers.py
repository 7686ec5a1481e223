"""Servers for tests: on a free port of 127.0.0.1, gone without a trace when their block ends."""

import datetime
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Callable, Dict, List, Optional

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Answers GET requests as ``answers`` says, by path; 404 for any other.

    ``requests`` holds the paths that were asked for. With ``certificate``, a file with a
    certificate and its key, it speaks HTTPS.
    """

    def __init__(self, certificate: Optional[Path] = None):
        self.answers: Dict[str, Answer] = {}
        self.requests: List[str] = []
        self._http = _Http(("127.0.0.1", 0), _handler(self))
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.port = self._http.server_port
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()  # joins the threads of the requests


class _Http(ThreadingHTTPServer):
    daemon_threads = False

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up, or refuses the certificate, is part of a test."""


def _handler(server: Server) -> type:
    class Handler(BaseHTTPRequestHandler):
        timeout = 20  # no thread outlives a client that says nothing

        def do_GET(self) -> None:
            server.requests.append(self.path)
            server.answers.get(self.path, status(404))(self)

        def log_message(self, *args) -> None:
            pass

    return Handler


def whole(data: bytes, **headers: str) -> Answer:
    """All of ``data``, with its length. Header names are written with ``_`` for ``-``."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for name, value in {"Content_Length": str(len(data)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def broken_off(data: bytes, length: int) -> Answer:
    """``data`` where ``length`` bytes were promised."""
    return whole(data, Content_Length=str(length))


def without_length(data: bytes) -> Answer:
    """All of ``data``; only the end of the connection tells that it is all."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def status(code: int) -> Answer:
    """An error page."""
    return lambda handler: handler.send_error(code)


def endless(piece: bytes, sent: List[int]) -> Answer:
    """``piece`` again and again until the client hangs up; their lengths go to ``sent``."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while sum(sent) < 1 << 30:
            handler.wfile.write(piece)
            sent.append(len(piece))

    return answer


def trickle(data: bytes, header: bool = False) -> Answer:
    """A byte of ``data``, or of a long header, every 20 ms; after 6 s the server has had enough."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if header:
            sent = b"HTTP/1.1 200 OK\r\nX-Long: " + data.hex().encode()
        else:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            sent = data
        for index in range(300):
            handler.wfile.write(sent[index : index + 1])
            time.sleep(0.02)

    return answer


def redirect(url: str) -> Answer:
    """Lead on to ``url``."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", url)
        handler.end_headers()

    return answer


def make_certificate(folder: Path, host: str) -> Path:
    """A file with a self-signed certificate for ``host`` and its key; it is its own CA bundle."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = folder / f"{host}.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return path
