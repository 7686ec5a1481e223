"""The word that all processes of a job share: whoever does not know it is turned away.

It never travels itself. Every request carries an HMAC (RFC 2104, with SHA-256) of its body, whose
key the word is. Between nodes it comes from --dist-secret FILE or RESNET_DIST_SECRET; without
these, from a file in MegEngine's cache folder, which the first node makes and nodes with a common
home share.
"""

import contextlib
import hmac
import io
import os
import secrets
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Optional
from xmlrpc.client import ProtocolError, Transport

from megengine.hub.hub import _get_megengine_home

from official.private_folder import why_not_private

from ..errors import UsageError

VARIABLE = "RESNET_DIST_SECRET"
HEADER = "X-Resnet-HMAC"
MOST_BYTES = 1 << 20  # of a call or its answer; those that are made have a few hundred
_FILE = "dist_secret"
_LEAST, _MOST = 16, 200  # characters


def new_secret() -> str:
    """One that nobody can guess."""
    return secrets.token_hex(16)


def sign(secret: str, body: bytes) -> str:
    """What tells that ``body`` is of somebody who knows ``secret``."""
    return hmac.new(secret.encode(), body, "sha256").hexdigest()


def is_signed(secret: str, body: bytes, signature: str) -> bool:
    """Whether ``signature`` is what ``sign`` gives, in a time that tells nothing."""
    return hmac.compare_digest(sign(secret, body).encode(), signature.encode("utf-8", "replace"))


class SigningTransport(Transport):
    """XML-RPC whose requests are signed, and whose answers have at most ``MOST_BYTES``.

    Args:
        seconds: for a call to be answered; None waits for ever.
    """

    def __init__(self, secret: str, seconds: Optional[float] = None):
        super().__init__()
        self._secret = secret
        self._seconds = seconds

    def make_connection(self, host: Any) -> HTTPConnection:
        connection = super().make_connection(host)
        connection.timeout = self._seconds
        return connection

    accept_gzip_encoding = False  # an answer could unfold to anything

    def parse_response(self, response: Any) -> Any:
        data = response.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ProtocolError("", 413, f"an answer has more than {MOST_BYTES:,} bytes", {})
        return super().parse_response(io.BytesIO(data))  # type: ignore[arg-type]

    def send_content(self, connection: HTTPConnection, request_body: Any) -> None:
        connection.putheader(HEADER, sign(self._secret, request_body))
        super().send_content(connection, request_body)


def shared_secret(file: Optional[str] = None) -> str:
    """The secret of a job of several nodes.

    Raises:
        UsageError: naming the file, when it is missing, empty, or open to others.
    """
    if file:
        return _read(Path(file), "--dist-secret")
    if os.environ.get(VARIABLE):
        return _checked(os.environ[VARIABLE].strip(), VARIABLE)
    path = Path(_get_megengine_home()) / _FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _make(path)
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}; give all nodes a file with the same word by --dist-secret"
        ) from None
    return _read(path, "the nodes' secret")


def _make(path: Path) -> None:
    """Write a new one, whole, and only where there is none."""
    if os.path.lexists(path):
        return
    made = path.with_name(f"{_FILE}.{new_secret()}")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123, a descriptor
            file.write(new_secret())
        with contextlib.suppress(FileExistsError):  # another node was faster
            os.link(made, path)
    finally:
        made.unlink()


def _read(path: Path, what: str) -> str:
    problem = why_not_private(str(path)) if path.is_file() else f"{path}: no such file"
    if not problem and path.stat().st_mode & 0o044:
        problem = f"{path} can be read by others (chmod 600 would mend it)"
    if problem:
        raise UsageError(f"{what}: {problem}")
    try:
        with path.open(encoding="utf-8") as file:
            return _checked(file.read(_MOST + 2).strip(), f"{what}: {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{what}: {path}: cannot be read: {error}") from None


def _checked(text: str, what: str) -> str:
    if not _LEAST <= len(text) <= _MOST or not text.isascii() or not text.isprintable():
        raise UsageError(
            f"{what}: expected {_LEAST} to {_MOST} printable ASCII characters, such as "
            "openssl rand -hex 16 writes"
        )
    return text
