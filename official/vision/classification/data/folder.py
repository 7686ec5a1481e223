"""Image folders in ImageNet's layout: ``root/split/class/image``."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import List, Sequence, Tuple, Union

import numpy as np

from ..errors import DataError

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
SPLITS = {"train": ("train",), "val": ("val", "test")}  # names tried for each split


@dataclass(frozen=True)
class ImageFolder:
    """Image paths with their labels; a label is an index into ``classes``."""

    root: Path
    classes: Tuple[str, ...]
    paths: Tuple[str, ...]
    labels: np.ndarray  # (N,) int32

    def __len__(self) -> int:
        return len(self.paths)

    def relabel(self, classes: Sequence[str]) -> "ImageFolder":
        """The same images with labels that index ``classes`` instead, matched by name.

        Raises:
            DataError: when a class folder has no counterpart.
        """
        index = {name: position for position, name in enumerate(classes)}
        foreign = [name for name in self.classes if name not in index]
        if foreign:
            raise DataError(
                f"{self.root}: class folders {_some(foreign)} are not among "
                f"the {len(classes)} expected classes {_some(classes)}"
            )
        mapping = np.array([index[name] for name in self.classes], np.int32)
        return replace(self, classes=tuple(classes), labels=mapping[self.labels])


def load_split(root: Union[str, Path], split: str) -> ImageFolder:
    """The ``train`` or ``val`` images of a data set; ``test`` serves where there is no ``val``.

    Raises:
        DataError: when the folder, its classes or a class's images are missing.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the data set with --data")
    for name in SPLITS[split]:
        if (root / name).is_dir():
            return load_folder(root / name)
    wanted = " or ".join(str(root / name) for name in SPLITS[split])
    raise DataError(f"{wanted}: no such folder; expected {split} images in a folder per class")


def load_folder(root: Union[str, Path]) -> ImageFolder:
    """Classes are the sub-folders of ``root`` in sorted order, as in ImageNet.

    Raises:
        DataError: when there is no class folder, or one without images, or one that cannot be
            read.
    """
    root = Path(root)
    classes = sorted(
        entry.name for entry in _entries(root) if entry.is_dir() and entry.name[0] != "."
    )
    if not classes:
        raise DataError(f"{root}: no class folders; expected one folder of images per class")
    paths: List[str] = []
    labels: List[int] = []
    for label, name in enumerate(classes):
        found = _images(root / name)
        if not found:
            raise DataError(f"{root / name}: no images; remove the folder or fill it")
        paths += found
        labels += [label] * len(found)
    return ImageFolder(root, tuple(classes), tuple(paths), np.array(labels, np.int32))


def _images(folder: Path) -> List[str]:
    """Paths by name. A link to nowhere is one of them: whoever reads it is told its name."""
    return sorted(
        entry.path
        for entry in _entries(folder)
        if entry.name.lower().endswith(EXTENSIONS) and entry.name[0] != "." and not entry.is_dir()
    )


def _entries(folder: Path) -> List["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None


def _some(names: Sequence[str]) -> str:
    """The first few names, for a message."""
    shown = ", ".join(names[:3])
    return f"({shown}, …)" if len(names) > 3 else f"({shown})"
