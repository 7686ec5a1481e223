"""Opening a data set: what the path is that ``--data`` gives, and ImageNet's layout of folders."""

import errno
import os
from pathlib import Path
from typing import Dict, List, Union

import numpy as np

from ..errors import DataError, MissingSplit
from .dataset import ImageDataset, split_name
from .image import EXTENSIONS
from .sources import archives, cifar_archive, csv_list, cub, imagenet

# Names tried for each split.
SPLITS = {"train": ("train",), "val": ("val", "test"), "test": ("test",), "only val": ("val",)}

_FOLDER_KINDS = (cifar_archive, cub, csv_list, archives)


def load_split(root: Union[str, Path], split: str) -> ImageDataset:
    """The ``train``, ``val`` or ``test`` images of a data set.

    ``val`` may be called ``valid`` or ``validation``, ``train`` ``training`` and ``test``
    ``testing``, in capitals or not; ``test`` serves where there is no ``val``.

    ``root`` is known by what it holds, in this order:

    * a folder with ``meta/train.txt``, ``meta/val.txt`` or ``meta/test.txt``: MMPreTrain's lists;
    * a folder with ``train/``, ``val/`` or ``test/``: a folder of images per class in each;
    * the folder ``cifar-10-batches-py`` or ``cifar-100-python``, under any name;
    * the folder ``CUB_200_2011``, under any name;
    * a folder with ``train.csv``, ``val.csv`` or ``test.csv``: lists of images;
    * a folder with archives named after splits, or with ImageNet's own archives;
    * a file ``*.csv``, ``*.tsv`` or ``*.txt``: a list of images of all splits;
    * a tar or zip archive, or a Parquet file, of images;
    * any other file: one of CIFAR's archives.

    What Kaggle's archive of ImageNet unpacks to is a folder with ``train/`` and ``val/``, too. A
    folder of class folders, or a list without splits, is all for training; ``splits.py`` holds
    images for validation out of it.

    Raises:
        DataError: when it is none of these, or is damaged, or lacks that split or its images.
    """
    root = Path(root)
    if root.is_file():
        if csv_list.is_list(root):
            return csv_list.load(root, SPLITS[split])
        kind = archives if archives.is_archive(root) else cifar_archive
        return kind.load(root, SPLITS[split])
    if not root.is_dir():
        raise DataError(f"{root}: no such folder or file; give the data set with --data")
    if imagenet.matches(root):
        if split == "val":
            return imagenet.load_validation(root, EXTENSIONS)
        root = imagenet.folder_of(root)
    there = split_folders(root)
    if there and csv_list.has_lists_beside(root, SPLITS[split]):
        return csv_list.load(root, SPLITS[split])
    if not there:
        for kind in _FOLDER_KINDS:
            if kind.matches(root):
                return kind.load(root, SPLITS[split])
        if split == "train" and is_flat(root):
            return load_folder(root)
    found = [there[name] for name in SPLITS[split] if name in there]
    if not found:
        wanted = " or ".join(str(root / name) for name in SPLITS[split])
        raise MissingSplit(
            f"{wanted}: no such folder; expected {split} images in a folder per class{_hint(root)}"
        )
    return load_folder(found[0])


def is_flat(root: Path) -> bool:
    """Whether ``root`` is a folder of class folders, without splits."""
    if not root.is_dir() or split_folders(root):
        return False
    if any(kind.matches(root) for kind in _FOLDER_KINDS):
        return False
    return any(
        images_in(Path(entry.path))
        for entry in entries_of(root)
        if is_folder(entry) and entry.name[0] != "."
    )


def split_folders(root: Path) -> Dict[str, Path]:
    """The folders of splits, however these are spelled; train/ comes before Train/."""
    folders = sorted((entry.name for entry in entries_of(root) if is_folder(entry)), reverse=True)
    spelled = {split_name(name): root / name for name in folders if split_name(name)}
    return {**spelled, **{name: root / name for name in folders if split_name(name) == name}}


def load_folder(root: Union[str, Path]) -> ImageDataset:
    """Classes are the sub-folders of ``root`` in sorted order, as in ImageNet.

    Folders that are called 0, 1, … without a gap are in the order of these numbers.

    Raises:
        DataError: when there is no class folder, or one without images, or one that cannot be
            read.
    """
    root = Path(root)
    classes = sorted(
        entry.name for entry in entries_of(root) if is_folder(entry) and entry.name[0] != "."
    )
    if set(classes) == set(map(str, range(len(classes)))):  # numbers, as in ImageNet-V2
        classes.sort(key=int)
    if not classes:
        raise DataError(f"{root}: no class folders; expected one folder of images per class")
    paths: List[str] = []
    labels: List[int] = []
    for label, name in enumerate(classes):
        found = images_in(root / name)
        if not found:
            raise DataError(f"{root / name}: no images; remove the folder or fill it")
        paths += found
        labels += [label] * len(found)
    return ImageDataset(root, tuple(classes), tuple(paths), np.array(labels, np.int32))


def passed_over(folder: ImageDataset) -> List[str]:
    """Files in class folders, or in archives, that are not taken for images, by their names.

    Hidden ones are left out, and so is a data set of another kind: there is nothing to tell.
    """
    if isinstance(folder, archives.ArchivedImages):
        return list(folder.unused)
    taken = set(folder.paths)
    places = {Path(path) for path in {path.rpartition("/")[0] for path in taken}}
    return sorted(
        entry.path
        for place in places
        if place.parent == folder.root
        for entry in entries_of(place)
        if entry.path not in taken and entry.name[0] != "."
    )


def _hint(root: Path) -> str:
    """Where the data set may be instead: many archives unpack to a folder of their own."""
    for entry in sorted(entries_of(root), key=lambda entry: entry.name):
        if is_folder(entry) and any(kind.matches(Path(entry.path)) for kind in _FOLDER_KINDS):
            return f"; did you mean --data {entry.path}?"
    return ""


def images_in(folder: Path) -> List[str]:
    """Paths by name. A link to nowhere is one of them: whoever reads it is told its name."""
    return sorted(
        entry.path
        for entry in entries_of(folder)
        if entry.name.lower().endswith(EXTENSIONS) and entry.name[0] != "." and not is_folder(entry)
    )


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Also where the way there is a circle of links, or is closed to what is named as an image.

    Raises:
        OSError: where the way to what may be a folder is closed.
    """
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP and not entry.name.lower().endswith(EXTENSIONS):
            raise
        return False  # whoever reads it is told its name


def entries_of(folder: Path) -> List["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None
