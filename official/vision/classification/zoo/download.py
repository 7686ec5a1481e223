"""Fetching a weight file: whole and checked, or not at all.

The cache is MegEngine's own, ``MGE_HOME/serialized``, with its file names, so what its hub has
fetched before is used. A file gets its name there only after it has passed every check; its
sha256 is then pinned beside it, and a file that changes later is refused.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
from pathlib import Path
from typing import Callable, Iterator
from urllib.parse import urlparse

import requests
from megengine.hub.hub import _get_megengine_home
from tqdm import tqdm

from ..errors import DownloadError, WeightsError
from .cards import Card

MIRROR = "RESNET_WEIGHTS_MIRROR"  # replaces the scheme and host of every URL
_TIMEOUT = (10, 60)  # seconds to connect, and between two pieces
_AS_IS = {"Accept-Encoding": "identity"}  # so that Content-Length is the file's
_PIECE = 1 << 20

logger = logging.getLogger(__name__)


def fetch(card: Card, check: Callable[[Path], None], max_bytes: int) -> Path:
    """The card's weight file in the cache, downloaded at the first call.

    Args:
        check: raises WeightsError for a file whose content does not fit.
        max_bytes: a longer file cannot be the right one.

    Raises:
        DownloadError: when it cannot be fetched; nothing is left in the cache.
        WeightsError: when it is not what the card says; nothing new is left in the cache.
    """
    path = cached_path(card.url)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(path.parent):
        if path.exists():
            sha256 = _verify(path, card, check)
        else:
            with _temporary(path) as part:
                _download(card.url, part, max_bytes)
                sha256 = _verify(part, card, check)
                part.replace(path)
        pin = _pin_path(path)
        with _temporary(pin) as part:
            part.write_text(sha256 + "\n")
            part.replace(pin)
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


def _verify(path: Path, card: Card, check: Callable[[Path], None]) -> str:
    """Compare with the pin, or look inside; return the file's sha256."""
    sha256 = file_digest(path, "sha256")
    pin = _pin_path(path)
    if pin.exists():
        pinned = pin.read_text().strip()
        if pinned != sha256:
            raise WeightsError(
                f"{path}: has changed since it was first checked (sha256 {sha256[:16]}…, then "
                f"{pinned[:16]}…); delete it and its .sha256 to download it again"
            )
        return sha256
    try:
        check(path)
    except WeightsError as error:
        raise WeightsError(f"{card.url}: not the weights of {card.name}: {error}") from None
    digests = (sha256, file_digest(path, "md5"))
    if not any(digest.startswith(card.digest_prefix) for digest in digests):
        logger.warning(
            "%s: every tensor fits, but the origin could not be verified: neither sha256 nor md5 "
            "begins with %s, the digits in the published name; sha256 %s is pinned from now on",
            card.name,
            card.digest_prefix,
            sha256,
        )
    return sha256


def _download(url: str, part: Path, max_bytes: int) -> None:
    source = _mirrored(url)
    way_out = f"fetch it elsewhere and give its path instead, or set {MIRROR}"
    try:
        with requests.get(source, stream=True, timeout=_TIMEOUT, headers=_AS_IS) as response:
            if response.status_code != 200:
                raise DownloadError(f"{source}: HTTP status {response.status_code}; {way_out}")
            expected = int(response.headers.get("Content-Length") or 0)
            received = _save(response, part, expected, max_bytes, Path(url).name)
    except (requests.RequestException, OSError) as error:
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


def _reason(error: Exception) -> str:
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return " ".join(str(error).split()) or type(error).__name__


def _pin_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A path beside ``path`` that is gone afterwards; the lock makes one name enough."""
    part = path.with_name(path.name + ".part")
    try:
        yield part
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let one process of this machine fetch while the others wait and then find the file."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
