"""Fetching a weight file: whole and checked, or not at all.

The cache is MegEngine's own, ``MGE_HOME/serialized``, with its file names, so what its hub has
fetched before is used. A file gets its name there only after it has passed every check; its
sha256 is then pinned beside it, and a file that changes later is refused. What comes along with
the code is used where it lies.
"""

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import stat
from pathlib import Path
from typing import BinaryIO, Callable, Iterator
from urllib.parse import urlparse

from megengine.hub.hub import _get_megengine_home
from tqdm import tqdm

from ..errors import DownloadError, WeightsError
from .rows import Row
from .transfer import Transfer, TransferError, reason, without_password

MIRROR = "RESNET_WEIGHTS_MIRROR"  # replaces the scheme and host of every URL
_PIECE = 1 << 20
_PIN = 64  # hex digits of a sha256

logger = logging.getLogger(__name__)


def fetch(row: Row, check: Callable[[Path], None], max_bytes: int) -> Path:
    """The row's weight file: the one that comes along, or in the cache, downloaded at first.

    A licence that forbids commercial use is said each time.

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
        if not (is_there(path) and is_there(pin_path(path))):
            path.parent.mkdir(parents=True, exist_ok=True)
            _fill_cache(path, row, check, max_bytes)
        compare_with_pin(path)
    except OSError as error:
        raise DownloadError(
            f"{path}: {reason(error)}; set MGE_HOME to a folder that can be written, or fetch "
            f"{row.url} and give its path"
        ) from None
    if row.licence_notice is not None:
        logger.warning("%s", row.licence_notice)
    return path


def _intact(row: Row, path: Path) -> Path:
    way_out = f"fetch {row.url} of this project again"
    try:
        sha256 = file_digest(path, "sha256")
    except OSError as error:
        raise WeightsError(f"{path}: {reason(error)}; {way_out}") from None
    if sha256 != row.digest_prefix:
        raise WeightsError(f"{path}: not the weights of {row.name} (sha256 {sha256}); {way_out}")
    return path


def cached_path(url: str) -> Path:
    """Where MegEngine's hub keeps the file behind ``url``."""
    prefix = hashlib.sha256(url.encode()).hexdigest()[:6]
    return Path(_get_megengine_home()) / "serialized" / f"{prefix}_{Path(urlparse(url).path).name}"


def file_digest(path: Path, algorithm: str) -> str:
    """Hex digest of a regular file's content."""
    digest = hashlib.new(algorithm)
    with open_regular(path, os.O_RDONLY) as file:
        for piece in iter(lambda: file.read(_PIECE), b""):
            digest.update(piece)
    return digest.hexdigest()


def _fill_cache(path: Path, row: Row, check: Callable[[Path], None], max_bytes: int) -> None:
    """Put the file and its pin in place, the file last: where it is, it has been checked."""
    part = path.with_name(path.name + ".part")
    with reserved(part) as file:
        if not is_there(path):
            _download(row.url, file, max_bytes)
            pin(path, _inspect(part, row, check, without_password(_mirrored(row.url))))
            part.replace(path)
        elif not is_there(pin_path(path)):  # MegEngine's hub has fetched it
            pin(path, _inspect(path, row, check, str(path), "; delete it to download it again"))


def _inspect(
    path: Path, row: Row, check: Callable[[Path], None], source: str, way_out: str = ""
) -> str:
    """Look inside; return the file's sha256."""
    try:
        check(path)
    except WeightsError as error:
        words = str(error)
        if words.startswith(f"{path}: "):  # of no use: a temporary name
            words = words[len(f"{path}: ") :]
        message = f"{source}: not the weights of {row.name}: {words}{way_out}"
        raise WeightsError(message) from None
    sha256 = file_digest(path, "sha256")
    if not (row.digest_is_sha256 and row.digest_prefix):
        _try_digests(path, row, sha256)
    elif not sha256.startswith(row.digest_prefix):
        raise WeightsError(
            f"{source}: not the weights of {row.name}: its sha256 begins with {sha256[:8]}, not "
            f"with {row.digest_prefix[:8]}, as {_stated(row)}{way_out}"
        )
    return sha256


def _stated(row: Row) -> str:
    """How its digest is known."""
    full = len(row.digest_prefix) == _PIN
    return f"{row.source} states" if full else "its published name says"


def _try_digests(path: Path, row: Row, sha256: str) -> None:
    """Tell whether what the digits in the name may hash is this file."""
    digests = (sha256, file_digest(path, "md5"))
    if not row.digest_prefix:
        why = f"{row.source} states no digest of it"
    elif any(digest.startswith(row.digest_prefix) for digest in digests):
        return
    else:
        why = (
            f"neither sha256 nor md5 begins with {row.digest_prefix}, the digits in the published "
            "name"
        )
    logger.warning(
        "%s: every tensor fits, but the origin could not be verified: %s; sha256 %s is pinned from "
        "now on",
        *(row.name, why, sha256),
    )


def pin(path: Path, sha256: str) -> None:
    name = pin_path(path)
    part = name.with_name(name.name + ".part")
    with reserved(part) as file:
        file.write(f"{sha256}\n".encode())
        file.flush()
        part.replace(name)


def compare_with_pin(path: Path) -> None:
    with open_regular(pin_path(path), os.O_RDONLY) as file:
        pinned = file.read(2 * _PIN).decode("ascii", "replace").strip()
    sha256 = file_digest(path, "sha256")
    if sha256 != pinned:
        raise WeightsError(
            f"{path}: has changed since it was first checked (sha256 {sha256[:16]}…, then "
            f"{pinned[:16]}…); delete it and its .sha256 to download it again"
        )


def _download(url: str, file: BinaryIO, max_bytes: int) -> None:
    source = _mirrored(url)
    shown = without_password(source)
    way_out = f"fetch it elsewhere and give its path instead, or set {MIRROR}"
    received = 0
    try:
        with contextlib.closing(Transfer(source)) as transfer:
            if transfer.status != 200:
                raise DownloadError(f"{shown}: HTTP status {transfer.status}; {way_out}")
            received = save(transfer, file, max_bytes, Path(url).name)
    except TransferError as error:
        raise DownloadError(f"{shown}: {error}; {way_out}") from None
    if received > max_bytes:
        raise WeightsError(f"{shown}: longer than {max_bytes} bytes, not the expected weights")
    if transfer.length and received != transfer.length:
        raise DownloadError(
            f"{shown}: broke off after {received} of {transfer.length} bytes; try again"
        )


def save(transfer: Transfer, file: BinaryIO, max_bytes: int, label: str) -> int:
    received = 0
    total = transfer.length or None
    with tqdm(
        total=total, unit="B", unit_scale=True, desc=label, disable=None, dynamic_ncols=True
    ) as bar:
        for piece in transfer:
            file.write(piece)
            received += len(piece)
            bar.update(len(piece))
            if received > max_bytes:
                break
    file.flush()
    return received


def _mirrored(url: str) -> str:
    mirror = os.environ.get(MIRROR)
    return mirror.rstrip("/") + urlparse(url).path if mirror else url


def pin_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def is_there(path: Path) -> bool:
    """Whether a name is taken, be it by a link that leads nowhere."""
    return os.path.lexists(path)


def open_regular(path: Path, flags: int) -> BinaryIO:
    """Open a file of the cache, which nobody can have made a link or a pipe.

    Raises:
        WeightsError: when it is something else, or known by another name besides.
        OSError: as ``os.open`` does.
    """
    try:
        number = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a pipe that nobody reads
            raise _irregular(path) from None
        raise
    status = os.fstat(number)
    if not stat.S_ISREG(status.st_mode) or (flags != os.O_RDONLY and status.st_nlink > 1):
        os.close(number)
        raise _irregular(path)
    return os.fdopen(number, "rb" if flags == os.O_RDONLY else "r+b")


def _irregular(path: Path) -> WeightsError:
    return WeightsError(f"{path}: is a link or a pipe, not a file of its own; delete it")


@contextlib.contextmanager
def reserved(part: Path, keep: bool = False) -> Iterator[BinaryIO]:
    """Let one process at a time have ``part``, empty, which is gone afterwards; the others wait.

    ``keep`` lets it have what is in it already, and stay, unless it is renamed or removed.

    The lock is on the file itself: on NFS only what is open for writing can be locked.
    """
    while True:
        with open_regular(part, os.O_RDWR | os.O_CREAT) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(part, file):  # the one before has renamed or removed it
                continue
            try:
                file.truncate(file.seek(0, os.SEEK_END) if keep else 0)
                yield file
            finally:
                if not keep and _is_at(part, file):
                    part.unlink()
            return


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
