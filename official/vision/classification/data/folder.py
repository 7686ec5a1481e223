"""Opening a data set: what the path is that ``--data`` gives, and ImageNet's layout of folders."""

import errno
import os
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Union

import numpy as np

from ..errors import DataError, MissingSplit
from .dataset import NEVER, ImageDataset, some, split_name
from .image import EXTENSIONS
from .sources import archives, cifar_archive, csv_list, cub, imagenet

# Names tried for each split.
SPLITS = {"train": ("train",), "val": ("val", "test"), "test": ("test",), "only val": ("val",)}

_FOLDER_KINDS = (cifar_archive, cub, csv_list, archives)
_DEEPEST = 8  # folders in folders


def load_split(root: Union[str, Path], split: str) -> ImageDataset:
    """The ``train``, ``val`` or ``test`` images of a data set.

    ``val`` may be called ``valid``, ``validation``, ``dev`` or ``eval``, ``train`` ``training`` and
    ``test`` ``testing``, in capitals or not, with ``set``, ``images`` or the like put to it;
    ``test`` serves where there is no ``val``. All of it may lie in a folder in a folder.

    ``root`` is known by what it holds, in this order:

    * a folder with ``meta/train.txt``, ``meta/val.txt`` or ``meta/test.txt``: MMPreTrain's lists;
    * a folder with ``train/``, ``val/`` or ``test/``: a folder of images per class in each;
    * the folder ``cifar-10-batches-py`` or ``cifar-100-python``, under any name;
    * the folder ``CUB_200_2011``, under any name;
    * a folder with ``train.csv``, ``val.csv`` or ``test.csv``: lists of images;
    * a folder with archives named after splits, or with ImageNet's own archives;
    * a folder with one list of images, whatever it is called, and no folders of classes;
    * a file ``*.csv``, ``*.tsv`` or ``*.txt``: a list of images of all splits;
    * a tar or zip archive, or a Parquet file, of images;
    * any other file: one of CIFAR's archives.

    What Kaggle's archive of ImageNet unpacks to is a folder with ``train/`` and ``val/``, too. A
    folder of class folders, an archive of these, or a list without splits, is all for training;
    ``splits.py`` holds images for validation out of it.

    Raises:
        DataError: when it is none of these, or is damaged, or lacks that split or its images.
    """
    root = data_root(root)
    if root.is_file():
        if csv_list.is_list(root):
            return csv_list.load(root, SPLITS[split])
        kind = archives if archives.is_archive(root) else cifar_archive
        return kind.load(root, SPLITS[split])
    if not root.is_dir():
        raise DataError(f"{root}: no such folder or file; give the data set with --data")
    if imagenet.matches(root):
        if split in ("val", "only val"):
            return imagenet.load_validation(root, EXTENSIONS)
        root = imagenet.folder_of(root)
    there = split_folders(root)
    if there and csv_list.has_lists_beside(root, SPLITS[split]):
        return csv_list.load(root, SPLITS[split])
    if there and not any(map(folders_in, there.values())) and csv_list.matches(root):
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
            f"{wanted}: no such folder; expected {split} images in a folder per class"
            f"{_hint(root, there)}"
        )
    return load_folder(found[0])


def data_root(root: Union[str, Path]) -> Path:
    """The place of the data set in ``root``: many archives unpack to a folder in a folder."""
    root = Path(root)
    for _ in range(_DEEPEST):
        found = _only_list(root)
        if found is not None:
            return found
        inner = None if not root.is_dir() or _is_known(root) else _only_folder(root)
        if inner is None:
            break
        root = inner
    return root


def is_flat(root: Path) -> bool:
    """Whether ``root`` is a folder of class folders, without splits."""
    if not root.is_dir() or _is_known(root):
        return False
    return any(images_in(folder) for folder in folders_in(root))


def _is_known(root: Path) -> bool:
    """Whether a folder has splits, or is of another kind than folders of classes."""
    if imagenet.matches(root) or split_folders(root):
        return True
    return any(kind.matches(root) for kind in _FOLDER_KINDS)


def split_folders(root: Path) -> Dict[str, Path]:
    """The folders of splits, however these are spelled; train/ comes before Train/.

    A class may be called train: then it holds images, as others beside it do.
    """
    folders = folders_in(root)[::-1]
    spelled = {split_name(path.name): path for path in folders if split_name(path.name)}
    others = (path for path in folders if not split_name(path.name))
    if not any(folders_in(path) for path in spelled.values()) and any(map(images_in, others)):
        return {}
    exact = {path.name: path for path in folders if split_name(path.name) == path.name}
    return {**spelled, **exact}


def load_folder(root: Union[str, Path]) -> ImageDataset:
    """Classes are the sub-folders of ``root`` in sorted order, as in ImageNet.

    All images below such a folder are of its class, as for torchvision and MMPreTrain. Folders that
    are called 0, 1, … without a gap are in the order of these numbers. Where ``root`` has nothing
    but one folder of folders, the classes are in that one.

    Raises:
        DataError: when there is no class folder, or one without images, or one that cannot be
            read.
    """
    root = Path(root)
    for _ in range(_DEEPEST):
        root = _only_folder(root) or root
    classes = [path.name for path in folders_in(root)]
    if set(classes) == set(map(str, range(len(classes)))):  # numbers, as in ImageNet-V2
        classes.sort(key=int)
    if not classes:
        raise DataError(f"{root}: no class folders; expected one folder of images per class")
    paths: List[str] = []
    labels: List[int] = []
    for label, name in enumerate(classes):
        found = _images_below(root / name)
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
        if entry.path not in taken and entry.name[0] != "." and not is_folder(entry)
    )


def beside_classes(images: ImageDataset) -> List[str]:
    """Images in the folder of the class folders, which belong to none, by their names."""
    if isinstance(images, archives.ArchivedImages):
        return list(images.beside)
    return images_in(images.root) if _is_of_folders(images) else []


def below_classes(images: ImageDataset) -> List[str]:
    """Images of class folders' own folders, by their names."""
    if isinstance(images, archives.ArchivedImages):
        return list(images.below)
    if not _is_of_folders(images):
        return []
    places = {path.rpartition("/")[0] for path in images.paths}
    deeper = {place for place in places if Path(place).parent != images.root}
    return [path for path in images.paths if path.rpartition("/")[0] in deeper]


def unused_folders(root: Path, used: Sequence[Path]) -> List[str]:
    """Names of folders in ``root`` that have class folders with images, and are not ``used``."""
    places = {place for folder in used for place in (folder, *folder.parents)}
    if not root.is_dir() or root in used or root not in places:
        return []
    return [
        folder.name
        for folder in folders_in(root)
        if folder not in places and any(images_in(inner) for inner in folders_in(folder))
    ]


def _is_of_folders(images: ImageDataset) -> bool:
    """Whether the classes are folders in ``images.root``, and not a list's or an archive's."""
    root = images.root
    if not root.is_dir() or images.has_files is False or _is_known(root):
        return False
    names = {path.name for path in folders_in(root)}
    return bool(names) and names <= set(images.classes)


def _hint(root: Path, there: Dict[str, Path]) -> str:
    """What may be meant instead, of a folder that lacks a split but has those ``there``."""
    folders = folders_in(root)
    if there:
        classes = [path.name for path in folders if images_in(path) and path not in there.values()]
        if not classes or "train" in there:
            return ""
        return f". {root} has folders of images {some(classes)}: move them into {root}/train"
    for folder in folders:
        if _is_known(folder):
            return f"; did you mean --data {folder}?"
    for path in sorted(Path(entry.path) for entry in entries_of(root)):
        if archives.is_called_one(path.name) and archives.is_archive(path):
            return f"; did you mean --data {path}?"
    for folder in folders:
        if is_flat(folder):
            return f"; did you mean --data {folder}, or is it to be called train?"
    return ""


def folders_in(folder: Path) -> List[Path]:
    """Folders by name, but for hidden ones and those that systems add."""
    return sorted(Path(entry.path) for entry in entries_of(folder) if _is_visible_folder(entry))


def _only_folder(folder: Path) -> Optional[Path]:
    """The one folder in ``folder``, if it holds folders and no images, and neither has images."""
    inner = folders_in(folder)
    if len(inner) != 1 or images_in(folder) or images_in(inner[0]) or not folders_in(inner[0]):
        return None
    return inner[0]


def _only_list(root: Path) -> Optional[Path]:
    """The list of the images in a folder without folders of classes, as Kaggle has them.

    Raises:
        DataError: when there are several.
    """
    if not root.is_dir() or csv_list.matches(root) or imagenet.matches(root):
        return None
    folders = folders_in(root)
    classes = [path for path in folders if not split_name(path.name) and images_in(path)]
    if len(classes) > 1 or any(folders_in(path) for path in folders if split_name(path.name)):
        return None
    lists = csv_list.usable_in(root)
    if len(lists) > 1:
        names = some([path.name for path in lists])
        raise DataError(
            f"{root}: has several lists of images {names}; give one of them with --data"
        )
    return lists[0] if lists else None


def _images_below(folder: Path, depth: int = 0) -> List[str]:
    """Paths of the images in ``folder``, by name, then those in its folders.

    Raises:
        DataError: where these lie too deep, as in a circle of links.
    """
    entries = entries_of(folder)
    found = sorted(entry.path for entry in entries if _is_image(entry))
    for inner in sorted(Path(entry.path) for entry in entries if _is_visible_folder(entry)):
        if depth == _DEEPEST:
            raise DataError(f"{inner}: a folder in folders, more than {_DEEPEST} deep")
        found += _images_below(inner, depth + 1)
    return found


def images_in(folder: Path) -> List[str]:
    """Paths by name. A link to nowhere is one of them: whoever reads it is told its name."""
    return sorted(entry.path for entry in entries_of(folder) if _is_image(entry))


def _is_image(entry: "os.DirEntry[str]") -> bool:
    name = entry.name
    return name.lower().endswith(EXTENSIONS) and name[0] != "." and not is_folder(entry)


def _is_visible_folder(entry: "os.DirEntry[str]") -> bool:
    return is_folder(entry) and entry.name[0] != "." and entry.name not in NEVER


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
