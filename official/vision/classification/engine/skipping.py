"""Going on without the images that cannot be used (--skip-broken).

They are found before the work begins, by reading all images once, on all ranks together. What
follows is as if their files were not there: the same on any number of ranks, and after a resume.
"""

from contextlib import closing
from dataclasses import dataclass
from typing import Any, Dict, List, Tuple

import numpy as np

from ..data.dataset import ImageDataset, subset
from ..data.parallel import map_groups
from ..data.transforms import EvalTransform
from ..distributed.collectives import rank, sum_over_ranks, world_size
from ..distributed.heartbeat import with_heartbeats
from ..errors import DataError
from ..preprocess import Preprocess
from ..text import printable
from .console import Console

SHOWN = 5  # images that are named
_CHUNK = 16  # images that a thread takes at a time


@dataclass(frozen=True)
class Skipped:
    """Images that were left out.

    Args:
        which: "training" images, for messages.
        total: how many images there were.
        count: how many of them cannot be used.
        first: what is wrong with the first few; each begins with the image's path.
    """

    which: str
    total: int
    count: int
    first: Tuple[str, ...]

    def lines(self) -> List[str]:
        """What is said of them."""
        lines = [f"skipped: {self.count} of {self.total} {self.which} images cannot be used"]
        lines += [f"skipped: {printable(reason)}" for reason in self.first]
        if self.count > len(self.first):
            more = self.count - len(self.first)
            lines.append(
                f"skipped: … and {more} more; tools/check_data.py --json names all of them"
            )
        return lines

    def to_dict(self) -> Dict[str, Any]:
        """For JSON."""
        return {"count": self.count, "of": self.total, "first": list(self.first)}


def without_broken(
    images: ImageDataset, which: str, preprocess: Preprocess, workers: int
) -> Tuple[ImageDataset, Skipped]:
    """The images that can be read and prepared for testing, and what is left out.

    Every rank must call it; each reads its share.

    Args:
        which: "training", for messages.
        preprocess: what the network needs.
        workers: threads that read images.

    Raises:
        DataError: when no image can be used.
    """
    broken = _find_broken(images, which, preprocess, workers)
    found = np.flatnonzero(broken)
    reasons = tuple(_reason(images, index, preprocess) for index in found[:SHOWN].tolist())
    if len(found) == len(images):
        raise DataError(
            f"{images.root}: none of the {len(images)} {which} images can be used: {reasons[0]}"
        )
    skipped = Skipped(which, len(images), len(found), reasons)
    return (subset(images, np.flatnonzero(broken == 0)) if len(found) else images), skipped


def _find_broken(
    images: ImageDataset, which: str, preprocess: Preprocess, workers: int
) -> np.ndarray:
    """``(N,)`` int32: 1 for what cannot be used; the same on all ranks."""
    mine = np.arange(rank(), len(images), world_size()).tolist()
    chunks = [mine[start : start + _CHUNK] for start in range(0, len(mine), _CHUNK)]
    broken = np.zeros(len(images), np.int32)
    console = Console(rank() == 0)
    console.start_bar(f"Read {which} images", len(images))
    examined = map_groups(
        lambda chunk: [index for index in chunk if _reason(images, index, preprocess)],
        ([(chunk,)] for chunk in chunks),
        workers,
        ahead=4 * workers,
    )
    with closing(examined):
        for chunk, (found,) in zip(chunks, with_heartbeats(examined)):
            broken[found] = 1
            console.advance(len(chunk) * world_size())
    console.stop_bar()
    return sum_over_ranks(broken)


def _reason(images: ImageDataset, index: int, preprocess: Preprocess) -> str:
    """Why the image cannot be used, or nothing."""
    try:
        image = images.read(index)
    except DataError as error:
        return str(error)
    try:
        EvalTransform(preprocess)(image)
    except DataError as error:
        return f"{images.paths[index]}: {error}"
    return ""
