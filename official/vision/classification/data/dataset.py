"""What every data set is: images with their labels."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional, Sequence, Tuple

import numpy as np

from ..errors import DataError
from .image import read_bytes, read_image

NEVER = ("__MACOSX", "@eaDir", "lost+found")  # folders that systems add
_SPLITS = {name: name for name in ("train", "val", "test")}
_SPLITS.update(training="train", testing="test")
_SPLITS.update(dict.fromkeys(("valid", "validation", "validate", "dev", "eval"), "val"))
# What is put to these: training_set, train_images, seg_train.
_AROUND = set("set split data dataset images image imgs img photos pictures seg".split())


@dataclass(frozen=True)
class ImageDataset:
    """Image paths with their labels; a label is an index into ``classes``.

    A data set whose images are no files of their own says in ``paths`` where each one is found,
    for messages, and reads it in another way.
    """

    root: Path
    classes: Tuple[str, ...]
    paths: Tuple[str, ...]
    labels: np.ndarray  # (N,) int32

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def has_files(self) -> bool:
        """Whether ``content`` is an image file's bytes, and not something else."""
        return True

    def read(self, index: int) -> np.ndarray:
        """The image as ``(H, W, 3)`` uint8, BGR; the caller may write on it.

        Raises:
            DataError: naming the image, when it cannot be read.
        """
        return read_image(self.paths[index])

    def content(self, index: int) -> bytes:
        """What is stored of the image: equal bytes mean equal images.

        Raises:
            DataError: naming the image, when it cannot be read.
        """
        return read_bytes(self.paths[index])

    def relabel(
        self, classes: Sequence[str], positions: Optional[Sequence[int]] = None
    ) -> "ImageDataset":
        """The same images with labels that index ``classes`` instead.

        Args:
            positions: where each of this data set's classes is among them; None to go by name.

        Raises:
            DataError: when a class folder has no counterpart.
        """
        if positions is not None:
            labels = np.array(positions, np.int32)[self.labels]
            return replace(self, classes=tuple(classes), labels=labels)
        index = {name: position for position, name in enumerate(classes)}
        foreign = [name for name in self.classes if name not in index]
        if foreign:
            raise DataError(
                f"{self.root}: class folders {some(foreign)} are not among "
                f"the {len(classes)} expected classes {some(classes)}"
            )
        mapping = np.array([index[name] for name in self.classes], np.int32)
        return replace(self, classes=tuple(classes), labels=mapping[self.labels])


@dataclass(frozen=True)
class Subset(ImageDataset):
    """The images ``chosen``, of shape (N,), of another data set of any kind."""

    whole: ImageDataset
    chosen: np.ndarray

    @property
    def has_files(self) -> bool:
        return self.whole.has_files

    def read(self, index: int) -> np.ndarray:
        return self.whole.read(self.chosen[index])

    def content(self, index: int) -> bytes:
        return self.whole.content(self.chosen[index])


def subset(images: ImageDataset, chosen: np.ndarray) -> Subset:
    """The images at the positions ``chosen``, in this order."""
    paths = tuple(images.paths[index] for index in chosen)
    return Subset(images.root, images.classes, paths, images.labels[chosen], images, chosen)


def split_name(text: str) -> str:
    """Which of train, val and test is called so; empty for none of them."""
    words = [word for word in re.findall("[a-z0-9]+", text.lower()) if word not in _AROUND]
    if len(words) != 1:
        return ""
    word = words[0]
    return _SPLITS.get(word[:-3] if word.endswith("set") else word, "")


def some(names: Sequence[str]) -> str:
    """The first few names, for a message."""
    shown = ", ".join(names[:3])
    return f"({shown}, …)" if len(names) > 3 else f"({shown})"
