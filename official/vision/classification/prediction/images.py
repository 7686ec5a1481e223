"""The images to classify: which files are meant, and how they are read ahead of the network."""

import glob
import logging
import os
import select
import stat
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Callable, Iterable, Iterator, List, NoReturn, Optional, Sequence, Union

import numpy as np

from ..data.image import EXTENSIONS, MAX_BYTES, decode_image, read_image
from ..data.parallel import map_groups
from ..data.transforms import Box, EvalTransform, to_network_layout
from ..errors import DataError
from ..preprocess import Preprocess
from .drawing import fit

STDIN = "-"
_WRITER_SECONDS = 10.0  # for somebody to open a named pipe

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageFile:
    """An image's path, and what a file that is made of it is called, below a folder of results.

    Args:
        data: the file's content where it can be read only once.
    """

    path: str
    name: str
    data: Optional[bytes] = None

    def read(self) -> np.ndarray:
        """Decode it to ``(H, W, 3)`` uint8, BGR.

        Raises:
            DataError: naming the file, when it cannot be read.
        """
        return read_image(self.path) if self.data is None else decode_image(self.data, self.path)


def is_one_file(sources: Sequence[str]) -> bool:
    """Whether a single image is meant, by its own name."""
    return len(sources) == 1 and not Path(sources[0]).is_dir() and not _is_pattern(sources[0])


def find_images(sources: Sequence[str]) -> List[ImageFile]:
    """The images that ``sources`` name, in their order.

    A source is a file, which need not exist; ``-``, which is standard input; a named pipe; a
    folder, for all images in it and below; or a pattern in the shell's manner, where ``**`` stands
    for any folders. What a folder or a pattern gives is sorted by path, and is without hidden files
    and files that are no images by name; how many of the latter there are is logged.

    Raises:
        DataError: for a folder or a pattern that gives no image, a folder or a pipe that cannot be
            read, or a web address.
    """
    return [image for source in sources for image in _find(source)]


def refuse_address(source: str) -> None:
    """Files are read and nothing is downloaded.

    Raises:
        DataError: when ``source`` is a web address.
    """
    if source.lower().startswith(("http://", "https://", "ftp://")):
        raise DataError(f"{source[:200]}: is a web address; download the image and give its file")


def read_bounded(file: BinaryIO, name: str) -> bytes:
    """All that an open file or pipe gives, up to ``MAX_BYTES``.

    Raises:
        DataError: naming it, when there is more, it cannot be read, or it gives text.
    """
    try:
        data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: closed; text that is not UTF-8
        raise DataError(f"{name}: cannot be read: {error}") from None
    if not isinstance(data, bytes):
        raise DataError(f"{name}: gives {type(data).__name__}, not bytes; open it with mode 'rb'")
    if len(data) > MAX_BYTES:
        raise DataError(f"{name}: gives more than {MAX_BYTES:,} bytes; that is not one image")
    return data


def _is_pattern(source: str) -> bool:
    return glob.has_magic(source) and not Path(source).exists()  # cat[1].jpg may be a file


def _find(source: str) -> List[ImageFile]:
    refuse_address(source)
    if Path(source).is_dir():
        found = sorted(_below(source))
        images = [
            ImageFile(path, os.path.relpath(path, source)) for path in filter(_is_image, found)
        ]
    elif _is_pattern(source):
        matches = glob.glob(source, recursive=True)  # noqa: PTH207, the whole is a pattern
        found = sorted(path for path in matches if not Path(path).is_dir())
        images = [ImageFile(path, Path(path).name) for path in filter(_is_image, found)]
    else:
        return [
            ImageFile(source, "stdin" if source == STDIN else Path(source).name, _piped(source))
        ]
    others = _kinds(path for path in found if not _is_image(path))
    if not images:
        raise DataError(
            f"{source}: no images; expected files ending in {', '.join(EXTENSIONS)}"
            + (f", found {others}" if others else "")
        )
    if others:
        logger.warning("%s: left out, not named as images that can be read: %s", source, others)
    return images


def _kinds(paths: Iterable[str]) -> str:
    """How many files there are of each suffix; empty for no file."""
    counts = Counter(Path(path).suffix.lower()[:20] or "without a suffix" for path in paths)
    kinds = [f"{count} {suffix}" for suffix, count in counts.most_common(5)]
    more = sum(counts.values()) - sum(count for _, count in counts.most_common(5))
    return ", ".join(kinds + [f"{more} of other kinds"] * (more > 0))


def _piped(source: str) -> Optional[bytes]:
    """What a pipe gives, as from ``<(cat x.jpg)``; None for a file, which can be read again."""
    if source == STDIN:
        return read_bounded(sys.stdin.buffer, "standard input")
    try:
        if not stat.S_ISFIFO(Path(source).stat().st_mode):
            return None
        return _read_pipe(source)
    except (OSError, ValueError):  # whoever reads it tells the reason
        return None


def _read_pipe(path: str) -> bytes:
    """What a pipe gives to its end.

    Raises:
        DataError: when it is more than an image, or nobody comes to write to a named pipe, which
            would be waited for for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as pipe:  # noqa: PTH123, a descriptor
        begin = _wait_for_writer(descriptor, path)
        os.set_blocking(descriptor, True)
        return begin + read_bounded(pipe, path)


def _wait_for_writer(descriptor: int, path: str) -> bytes:
    """The first bytes of a pipe, or none where its writer is there and silent or has gone."""
    has_gone = select.poll()
    has_gone.register(descriptor, 0)
    deadline = time.monotonic() + _WRITER_SECONDS
    while True:
        try:
            begin = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return b""
        if begin or has_gone.poll(0):
            return begin
        if time.monotonic() > deadline:
            raise DataError(f"{path}: a named pipe that nobody writes to; give an image file")
        time.sleep(0.02)


def _is_image(path: str) -> bool:
    return path.lower().endswith(EXTENSIONS)


def _below(folder: str) -> List[str]:
    """All files in a folder and below that are not hidden."""
    found: List[str] = []
    seen = set()  # linked folders are entered, but not in a circle
    for root, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        status = Path(root).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if name[0] != ".")
        shown = (name for name in files if name[0] != ".")
        found += (os.path.join(root, name) for name in shown)  # noqa: PTH118, for its speed
    return found


def _refuse(error: OSError) -> NoReturn:
    raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None


@dataclass(frozen=True)
class PreparedImage:
    """What the network is fed of one file.

    Args:
        number: the image's position in the list, from 0.
        pixels: ``(3, H, W)`` uint8 in the network's channel order.
        picture: ``(h, w, 3)`` uint8, BGR, the whole image at the size at which it is shown; None
            where it is not wanted.
        seen: what part of the image ``pixels`` is.
    """

    file: ImageFile
    number: int
    pixels: np.ndarray
    picture: Optional[np.ndarray]
    seen: Box


def prepare_image(
    file: ImageFile, number: int, preprocess: Preprocess, shown: bool
) -> PreparedImage:
    """Read one file and prepare it as for evaluation.

    Args:
        shown: whether its picture is wanted as well.

    Raises:
        DataError: naming the file, when it cannot be read or does not fit.
    """
    image = file.read()
    try:
        crop, seen = EvalTransform(preprocess).with_box(image)
    except DataError as error:
        raise DataError(f"{file.path}: {error}") from None
    pixels = to_network_layout(crop, preprocess.order)
    return PreparedImage(file, number, pixels, fit(image) if shown else None, seen)


def prepared_batches(
    files: Iterable[ImageFile],
    size: int,
    preprocess: Preprocess,
    workers: int,
    shown: bool,
    on_error: Callable[[DataError], None],
) -> Iterator[List[PreparedImage]]:
    """Up to ``size`` images of one shape at a time, in order.

    Args:
        preprocess: what the images need.
        workers: threads, which work a bounded number of images ahead; 0 prepares every image when
            it is asked for.
        shown: whether their pictures are wanted as well.
        on_error: called in the consumer's thread, in the images' order, for every one that cannot
            be used; the others go on unless it raises.
    """

    def prepare(file: ImageFile, number: int) -> Union[PreparedImage, DataError]:
        try:
            return prepare_image(file, number, preprocess, shown)
        except DataError as error:
            return error

    batch: List[PreparedImage] = []
    one_each = ([(file, number)] for number, file in enumerate(files))
    with closing(map_groups(prepare, one_each, workers, 2 * size + workers)) as results:
        for (found,) in results:
            if isinstance(found, DataError):
                on_error(found)
                continue
            if batch and (len(batch) == size or batch[0].pixels.shape != found.pixels.shape):
                yield batch
                batch = []
            batch.append(found)
    if batch:
        yield batch
