"""Which image files are meant by the names of files and folders, and by patterns."""

import glob
import os
from dataclasses import dataclass
from pathlib import Path
from typing import List, NoReturn, Sequence

from ..data.image import EXTENSIONS
from ..errors import DataError


@dataclass(frozen=True)
class ImageFile:
    """An image's path, and what a file that is made of it is called, below a folder of results."""

    path: str
    name: str


def is_one_file(sources: Sequence[str]) -> bool:
    """Whether a single image is meant, by its own name."""
    return len(sources) == 1 and not Path(sources[0]).is_dir() and not _is_pattern(sources[0])


def find_images(sources: Sequence[str]) -> List[ImageFile]:
    """The images that ``sources`` name, in their order.

    A source is a file, which need not exist; a folder, for all images in it and below; or a
    pattern in the shell's manner, where ``**`` stands for any folders. What a folder or a pattern
    gives is sorted by path, and is without hidden files and files that are no images by name.

    Raises:
        DataError: for a folder or a pattern that gives no image, or a folder that cannot be read.
    """
    return [image for source in sources for image in _find(source)]


def _is_pattern(source: str) -> bool:
    return glob.has_magic(source) and not Path(source).exists()  # cat[1].jpg may be a file


def _find(source: str) -> List[ImageFile]:
    if Path(source).is_dir():
        paths = sorted(_below(source))
        images = [ImageFile(path, os.path.relpath(path, source)) for path in paths]
    elif _is_pattern(source):
        found = glob.glob(source, recursive=True)  # noqa: PTH207, the whole is a pattern
        paths = sorted(path for path in found if _is_image(path) and not Path(path).is_dir())
        images = [ImageFile(path, Path(path).name) for path in paths]
    else:
        images = [ImageFile(source, Path(source).name)]
    if not images:
        raise DataError(f"{source}: no images; expected files ending in {', '.join(EXTENSIONS)}")
    return images


def _is_image(path: str) -> bool:
    return path.lower().endswith(EXTENSIONS)


def _below(folder: str) -> List[str]:
    found: List[str] = []
    seen = set()  # linked folders are entered, but not in a circle
    for root, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        status = Path(root).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if name[0] != ".")
        images = (name for name in files if _is_image(name) and name[0] != ".")
        found += (os.path.join(root, name) for name in images)  # noqa: PTH118, for its speed
    return found


def _refuse(error: OSError) -> NoReturn:
    raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None
