"""Fetching a weight file: whole and checked, or not at all.

The cache is MegEngine's own, ``MGE_HOME/serialized``, with its file names, so what its hub has
fetched before is used. A file gets its name there only after it has passed every check; its
sha256 is then pinned beside it, and a file that changes later is refused. What comes along with
the code is used where it lies.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
from pathlib import Path
from typing import BinaryIO, Callable, Iterator
from urllib.parse import urlparse

import requests
from megengine.hub.hub import _get_megengine_home
from tqdm import tqdm

from ..errors import DownloadError, WeightsError
from .rows import Row

MIRROR = "RESNET_WEIGHTS_MIRROR"  # replaces the scheme and host of every URL
_TIMEOUT = (10, 60)  # seconds to connect, and between two pieces
_AS_IS = {"Accept-Encoding": "identity"}  # so that Content-Length is the file's
_PIECE = 1 << 20

logger = logging.getLogger(__name__)


def fetch(row: Row, check: Callable[[Path], None], max_bytes: int) -> Path:
    """The row's weight file: the one that comes along, or in the cache, downloaded at first.

    Args:
        check: raises WeightsError for a file whose content does not fit.
        max_bytes: a longer file cannot be the right one.

    Raises:
        DownloadError: when it cannot be fetched; nothing is left in the cache.
        WeightsError: when it is not what the row says; nothing new is left in the cache.
    """
    if row.shipped is not None:
        return _intact(row, row.shipped)
    path = cached_path(row.url)
    try:
        if not (path.exists() and _pin_path(path).exists()):
            path.parent.mkdir(parents=True, exist_ok=True)
            _fill_cache(path, row, check, max_bytes)
        _compare_with_pin(path)
    except OSError as error:
        raise DownloadError(
            f"{path}: {_reason(error)}; set MGE_HOME to a folder that can be written, or fetch "
            f"{row.url} and give its path"
        ) from None
    return path


def _intact(row: Row, path: Path) -> Path:
    way_out = f"fetch {row.url} of this project again"
    try:
        sha256 = file_digest(path, "sha256")
    except OSError as error:
        raise WeightsError(f"{path}: {_reason(error)}; {way_out}") from None
    if sha256 != row.digest_prefix:
        raise WeightsError(f"{path}: not the weights of {row.name} (sha256 {sha256}); {way_out}")
    return path


def cached_path(url: str) -> Path:
    """Where MegEngine's hub keeps the file behind ``url``."""
    prefix = hashlib.sha256(url.encode()).hexdigest()[:6]
    return Path(_get_megengine_home()) / "serialized" / f"{prefix}_{Path(urlparse(url).path).name}"


def file_digest(path: Path, algorithm: str) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.new(algorithm)
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(_PIECE), b""):
            digest.update(piece)
    return digest.hexdigest()


def _fill_cache(path: Path, row: Row, check: Callable[[Path], None], max_bytes: int) -> None:
    """Put the file and its pin in place, the file last: where it is, it has been checked."""
    with _reserved(path.with_name(path.name + ".part")) as part:
        if not path.exists():
            _download(row.url, part, max_bytes)
            _pin(path, _inspect(part, row, check, _mirrored(row.url)))
            part.replace(path)
        elif not _pin_path(path).exists():  # MegEngine's hub has fetched it
            _pin(path, _inspect(path, row, check, str(path), "; delete it to download it again"))


def _inspect(
    path: Path, row: Row, check: Callable[[Path], None], source: str, way_out: str = ""
) -> str:
    """Look inside; return the file's sha256."""
    try:
        check(path)
    except WeightsError as error:
        reason = str(error)
        if reason.startswith(f"{path}: "):  # of no use: a temporary name
            reason = reason[len(f"{path}: ") :]
        message = f"{source}: not the weights of {row.name}: {reason}{way_out}"
        raise WeightsError(message) from None
    sha256 = file_digest(path, "sha256")
    if not row.digest_is_sha256:
        _try_digests(path, row, sha256)
    elif not sha256.startswith(row.digest_prefix):
        raise WeightsError(
            f"{source}: not the weights of {row.name}: its sha256 begins with {sha256[:8]}, not "
            f"with {row.digest_prefix}, as its published name says{way_out}"
        )
    return sha256


def _try_digests(path: Path, row: Row, sha256: str) -> None:
    """Tell whether what the digits in the name may hash is this file."""
    digests = (sha256, file_digest(path, "md5"))
    if not any(digest.startswith(row.digest_prefix) for digest in digests):
        logger.warning(
            "%s: every tensor fits, but the origin could not be verified: neither sha256 nor md5 "
            "begins with %s, the digits in the published name; sha256 %s is pinned from now on",
            row.name,
            row.digest_prefix,
            sha256,
        )


def _pin(path: Path, sha256: str) -> None:
    pin = _pin_path(path)
    with _reserved(pin.with_name(pin.name + ".part")) as part:
        part.write_text(sha256 + "\n")
        part.replace(pin)


def _compare_with_pin(path: Path) -> None:
    pinned = _pin_path(path).read_text(errors="replace").strip()
    sha256 = file_digest(path, "sha256")
    if sha256 != pinned:
        raise WeightsError(
            f"{path}: has changed since it was first checked (sha256 {sha256[:16]}…, then "
            f"{pinned[:16]}…); delete it and its .sha256 to download it again"
        )


def _download(url: str, part: Path, max_bytes: int) -> None:
    source = _mirrored(url)
    way_out = f"fetch it elsewhere and give its path instead, or set {MIRROR}"
    try:
        with requests.get(source, stream=True, timeout=_TIMEOUT, headers=_AS_IS) as response:
            if response.status_code != 200:
                raise DownloadError(f"{source}: HTTP status {response.status_code}; {way_out}")
            length = response.headers.get("Content-Length", "")
            expected = int(length) if length.isdecimal() else 0
            received = _save(response, part, expected, max_bytes, Path(url).name)
    except OSError as error:  # every RequestException is one
        raise DownloadError(f"{source}: {_reason(error)}; {way_out}") from None
    if received > max_bytes:
        raise WeightsError(f"{source}: longer than {max_bytes} bytes, not the expected weights")
    if expected and received != expected:
        raise DownloadError(f"{source}: broke off after {received} of {expected} bytes; try again")


def _save(
    response: requests.Response, part: Path, expected: int, max_bytes: int, label: str
) -> int:
    received = 0
    bar = tqdm(total=expected or None, unit="B", unit_scale=True, desc=label, disable=None)
    with bar, part.open("wb") as file:
        for piece in response.iter_content(_PIECE):
            file.write(piece)
            received += len(piece)
            bar.update(len(piece))
            if received > max_bytes:
                break
    return received


def _mirrored(url: str) -> str:
    mirror = os.environ.get(MIRROR)
    return mirror.rstrip("/") + urlparse(url).path if mirror else url


def _reason(error: OSError) -> str:
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "no secure connection, such as for a certificate that is not trusted"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return " ".join(str(error).split()) or type(error).__name__


def _pin_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


@contextlib.contextmanager
def _reserved(part: Path) -> Iterator[Path]:
    """Let one process at a time have ``part``, which is gone afterwards; the others wait.

    The lock is on the file itself: on NFS only what is open for writing can be locked.
    """
    while True:
        with part.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(part, file):  # the one before has renamed or removed it
                continue
            try:
                yield part
            finally:
                if _is_at(part, file):
                    part.unlink()
            return


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
