"""Reading one image file: the one gate that every image passes before any decoder sees it.

It is a regular file of bounded size, known by its first bytes, with a bounded number of pixels by
its own header. Training, testing, prediction and the check of a data set all read through it.
"""

import contextlib
import logging
import os
import stat
import threading
from pathlib import Path
from typing import Iterator, List, Set, Tuple, Union

import numpy as np

from ..errors import DataError
from .decoding.headers import Header, header_of
from .decoding.kinds import kind_of
from .decoding.pixels import check_size, decode

EXTENSIONS = (  # by which image files are found in folders; what they are is known by their content
    *(".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg"),
    *(".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
MAX_BYTES = 1 << 29  # of an image file; 512 MiB
_SAID_AT_MOST = 20  # images of which a remark is logged; a data set may be full of them

logger = logging.getLogger(__name__)
_local = threading.local()  # .found: where this thread's remarks go, instead of being logged


def read_image(path: Union[str, Path], pipe: bool = False) -> np.ndarray:
    """Decode a file to ``(H, W, 3)`` uint8, BGR, turned upright by its EXIF tag.

    What is wrong with an image that is used nevertheless, or was assumed of it, is logged once.

    Args:
        pipe: whether a named pipe or the like may stand in for the file; it is read to its end.

    Raises:
        DataError: naming the file, when it is missing, empty, cut short, too large, or no image.
    """
    return decode_image(read_bytes(path, pipe), path)


def decode_image(data: bytes, name: Union[str, Path]) -> np.ndarray:
    """As ``read_image``, from a file's bytes; ``name`` stands for it in messages."""
    kind, header = check_image(data, name)
    try:
        image, remark = decode(kind, data, header)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    if remark:
        _say(f"{name}: {remark}")
    return image


def check_image(data: bytes, name: Union[str, Path]) -> Tuple[str, Header]:
    """The kind and the header of an image file, from its bytes: what any decoder must wait for.

    Raises:
        DataError: naming the file, when it is empty, cut short, too large, or no image.
    """
    if not data:
        raise DataError(f"{name}: the file is empty")
    try:
        kind = kind_of(data)
        header = header_of(kind, data)
        check_size(header.width, header.height)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    return kind, header


@contextlib.contextmanager
def remarks() -> Iterator[List[str]]:
    """What would be logged on the images that this thread reads inside of ``with``, in a list."""
    found: List[str] = []
    before = getattr(_local, "found", None)
    _local.found = found
    try:
        yield found
    finally:
        _local.found = before


def read_bytes(path: Union[str, Path], pipe: bool = False) -> bytes:
    """What an image's file holds; ``pipe`` as for ``read_image``.

    Raises:
        DataError: naming the file, when it is missing, cannot be read, is no file or too large.
    """
    try:
        # Opening a pipe that nobody writes to would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (0 if pipe else os.O_NONBLOCK))
        try:
            return _bounded(descriptor, path, pipe)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise DataError(f"{path}: no such image") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # a name with a zero byte
        raise DataError(f"{path!a}: cannot be read: {error}") from None


def _bounded(descriptor: int, path: Union[str, Path], pipe: bool) -> bytes:
    status = os.fstat(descriptor)
    mode = status.st_mode
    if not stat.S_ISREG(mode) and not (pipe and stat.S_ISFIFO(mode)):
        raise DataError(f"{path}: cannot be read: {_what(mode)}, not an image file")
    if status.st_size > MAX_BYTES:
        raise DataError(f"{path}: {status.st_size:,} bytes; at most {MAX_BYTES:,} are read")
    data = os.read(descriptor, max(status.st_size, 1 << 16))
    if len(data) == status.st_size:  # as for every ordinary file
        return data
    parts, count = [data], len(data)
    while parts[-1]:
        parts.append(os.read(descriptor, 1 << 20))
        count += len(parts[-1])
        if count > MAX_BYTES:
            raise DataError(f"{path}: more than {MAX_BYTES:,} bytes, which is the most")
    return b"".join(parts)


def _what(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a named pipe" if stat.S_ISFIFO(mode) else "a device"


class _Said:
    """Remarks that were logged; read from many threads."""

    lock = threading.Lock()
    texts: Set[str] = set()


def _say(text: str) -> None:
    found = getattr(_local, "found", None)
    if found is not None:
        found.append(text)
        return
    with _Said.lock:
        if text in _Said.texts or len(_Said.texts) > _SAID_AT_MOST:
            return
        _Said.texts.add(text)
        if len(_Said.texts) > _SAID_AT_MOST:
            text = "more images with such remarks; tools/check_data.py names all of them"
    logger.warning("%s", text)
