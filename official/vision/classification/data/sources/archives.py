"""Images in tar archives, zip archives and WebDataset's shards, each read where it is.

``--data`` is one archive, or a folder with archives whose names tell the split, such as
``train.tar`` and ``val.tar``, or ``imagenet1k-train-0000.tar`` to ``-1023.tar``. ImageNet's own
``ILSVRC2012_img_train.tar``, a tar of 1,000 tars, is one of these.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple, overload

import numpy as np

from ...errors import DataError, MissingSplit
from ...readers.tar_file import is_tar, members
from ...readers.text_file import open_regular, read_lines
from ..dataset import ImageDataset, some, split_name
from ..image import EXTENSIONS, decode_image
from . import cifar_archive, imagenet, parquet
from .entries import Entries, look_into
from .layout import Image, Layout, of_folders, of_samples

_SUFFIXES = (".tar", ".zip", ".parquet")
_OFFICIAL = "ILSVRC2012_img_"
_PLACES = ("", "data")  # sub-folders in which archives are looked for
_CLASS_LISTS = ("classes.txt", "classnames.txt")
_LOOK = 100  # members by which CIFAR's archives are told from others


class _Places(Sequence[str]):
    """Where each image is, made when it is asked for: a million of these fill the memory."""

    def __init__(self, entries: Entries, positions: np.ndarray):
        self._entries, self._positions = entries, positions

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return _Places(self._entries, self._positions[index])
        return self._entries.where(int(self._positions[index]))


@dataclass(frozen=True)
class ArchivedImages(ImageDataset):
    """Images in archives; ``paths`` name the archive and the file in it."""

    entries: Entries
    positions: np.ndarray  # (N,) int64, of the images among the entries
    unused: Tuple[str, ...]  # other files in the archives
    beside: Tuple[str, ...]  # images in the archives that are in no folder of a split
    below: Tuple[str, ...]  # images in folders of class folders

    def read(self, index: int) -> np.ndarray:
        return decode_image(self.content(index), self.paths[index])

    def content(self, index: int) -> bytes:
        return self.entries.read(int(self.positions[index]))


def is_archive(path: Path) -> bool:
    """Whether a file is one of these, by its first bytes; a tar of CIFAR's pickles is not."""
    try:
        with open_regular(path) as file:
            head = file.read(512)
            if head[:4] in (b"PK\x03\x04", parquet.MAGIC):
                return True
            if not is_tar(head):
                return False
            end = file.seek(0, 2)
            found = (member.name for member in members(file.fileno(), path, 0, end))
            return not any(cifar_archive.is_ours(name) for name, _ in zip(found, range(_LOOK)))
    except (OSError, DataError):
        return False


def matches(folder: Path) -> bool:
    """Whether ``folder`` has archives named after splits."""
    return bool(_archives(folder))


def load(path: Path, splits: Sequence[str]) -> ImageDataset:
    """The images of a split.

    An archive without folders of splits is all of any split. Classes are the names of the folders
    in the order of their characters' code points. Labels that
    are all numbers are in the order of their values, and called as the lines of ``classes.txt``
    beside the archives say, where there is one. Images in folders come in the order of class and
    name, like those of a folder; samples of WebDataset in the order of the shards.

    Args:
        splits: names to try, in this order.

    Raises:
        DataError: when an archive is damaged, or holds no such split, or an image has no class.
    """
    files, split = [path], ""
    if path.is_dir():
        found = _archives(path)
        split = next((name for name in splits if name in found), "")
        if not split:
            raise MissingSplit(
                f"{path}: no archive for {' or '.join(splits)}; there are {_listed(found)}"
            )
        files = found[split]
    _refuse_mixtures(files)
    root = path if path.is_dir() else path.parent
    if parquet.is_parquet(files[0]):
        return parquet.load(files, _class_list(root))
    entries = look_into(files)
    layout = _layout(entries)
    images, inside = _of_split(layout, path, split, splits)
    _check_roots(layout, inside, path)
    name = split or inside
    images = _with_labels(images, entries, root, path)
    classes, position = _classes(images, root, any(entries.texts))
    if not any(entries.texts):
        images.sort(key=lambda each: (position[str(each.label)], *each.name.rpartition("/")))
    positions = np.array([image.place for image in images], np.int64)
    return ArchivedImages(
        path / name if name else path,
        classes,
        _Places(entries, positions),  # type: ignore[arg-type]
        np.array([position[str(image.label)] for image in images], np.int32),
        entries,
        positions,
        tuple(layout.unused),
        tuple(image.name for image in layout.images.get("", ()) if inside),
        tuple(layout.below.get(inside, ())),
    )


def has_no_splits(path: Path) -> bool:
    """Whether the file is an archive whose images are of no split, but for what its name says."""
    if not path.is_file() or not is_archive(path):
        return False
    return parquet.is_parquet(path) or not _has_splits(_layout(look_into([path])))


def splits_in(folder: Path) -> List[str]:
    """Of which splits there are archives in ``folder``."""
    return sorted(_archives(folder))


def _has_splits(layout: Layout) -> bool:
    return any(images for split, images in layout.images.items() if split)


def _layout(entries: Entries) -> Layout:
    if any(entries.texts):
        return of_samples(entries, EXTENSIONS)
    return of_folders(entries.names, EXTENSIONS)


def _of_split(
    layout: Layout, path: Path, split: str, splits: Sequence[str]
) -> Tuple[List[Image], str]:
    """The images of a split and what the layout calls it."""
    for name in (split, "") if split else splits:
        if layout.images.get(name):
            return layout.images[name], name
    if not any(layout.images.values()):
        raise DataError(
            f"{path}: holds no images {some(EXTENSIONS)}{_instead(layout)}; expected a folder of "
            "them per class"
        )
    if not split and not _has_splits(layout):
        return layout.images[""], ""
    raise MissingSplit(f"{path}: holds {_listed(layout.images)}, and no {' or '.join(splits)}")


def _instead(layout: Layout) -> str:
    return f", but {some(layout.unused)}" if layout.unused else ""


def _check_roots(layout: Layout, split: str, path: Path) -> None:
    roots = sorted(layout.roots[split])
    if len(roots) > 1:
        raise DataError(
            f"{path}: has images in different places, {roots[0]!a} and {roots[1]!a}; expected one "
            "folder per class, all in one folder"
        )


def _with_labels(images: Sequence[Image], entries: Entries, root: Path, path: Path) -> List[Image]:
    """The same images, each with a class."""
    lonely = [image for image in images if image.label is None]
    if not lonely:
        return list(images)
    if not all(imagenet.is_validation(image.name) for image in lonely):
        names = some([image.name for image in lonely])
        raise DataError(
            f"{path}: {len(lonely)} images have no class {names}; expected a folder per class, or "
            "a file .cls beside each"
        )
    truth = _solution(entries) or imagenet.find_truth((root,))
    return [
        image._replace(label=image.label or imagenet.class_of(image.name, truth, str(path)))
        for image in images
    ]


def _solution(entries: Entries) -> Optional[imagenet.Truth]:
    """Kaggle's table, where it is in the archive itself."""
    for index, name in enumerate(entries.names):
        if name.rpartition("/")[2] == imagenet.SOLUTION:
            text = entries.read(index).decode("utf-8", "replace")
            return imagenet.read_solution(text.split("\n"), entries.where(index))
    return None


def _classes(
    images: Sequence[Image], root: Path, are_indices: bool
) -> Tuple[Tuple[str, ...], Dict[str, int]]:
    """The names of the classes, and the index of each label.

    Folders are sorted as ``load_folder`` does. Labels of samples that are numbers are indices
    already, and the list beside the archives names them.

    Raises:
        DataError: when the list has fewer than there are.
    """
    labels = sorted({str(image.label) for image in images})
    missing = {label for label in labels if re.fullmatch(r"-[0-9]{1,9}", label)}
    if are_indices and missing and all(each.isdecimal() for each in set(labels) - missing):
        label = min(missing)
        raise DataError(f"{root}: a label is {label}: images without classes are no test")
    if are_indices and all(label.isdecimal() and len(label) < 6 for label in labels):
        position = {label: int(label) for label in labels}
        count, listed = 1 + max(position.values()), _class_list(root)
        if listed and len(listed) < count:
            raise DataError(
                f"{root}: a label is {count - 1}, but the list of classes has {len(listed)} lines"
            )
        return tuple(listed or map(str, range(count))), position
    if set(labels) == set(map(str, range(len(labels)))):
        labels.sort(key=int)
    return tuple(labels), {label: index for index, label in enumerate(labels)}


def _class_list(root: Path) -> List[str]:
    for name in _CLASS_LISTS:
        if (root / name).is_file():
            lines = [line.strip() for line in read_lines(root / name)]
            names = [line for line in lines if line]
            if len(set(names)) < len(names):
                twice = Counter(names).most_common(1)[0][0]
                raise DataError(f"{root / name}: names the class {twice!a} twice")
            return names
    return []


def _archives(folder: Path) -> Dict[str, List[Path]]:
    """Archives by split, in the order of their names, from the first place that has any."""
    for place in _PLACES:
        try:
            names = sorted(path for path in (folder / place).iterdir() if path.is_file())
        except OSError:
            continue
        found: Dict[str, List[Path]] = {}
        official = [path for path in names if path.name.startswith(_OFFICIAL)]
        for path in official or names:
            split = split_of_file(path.name)
            if split and not (official and path.stem.lower() != f"{_OFFICIAL}{split}".lower()):
                found.setdefault(split, []).append(path)
        if found:
            return found
    return {}


def is_called_one(name: str) -> bool:
    """Whether a file has the name of an archive, or of a packed one, which is refused."""
    return name.lower().endswith((*_SUFFIXES, ".tar.gz", ".tgz")) and name[0] != "."


def split_of_file(name: str) -> str:
    """What split an archive is of, by a word in its name; "" for other files."""
    if not is_called_one(name):
        return ""
    words = re.split("[^a-z]+", name.lower())
    return next((split_name(word) for word in words if split_name(word)), "")


def _refuse_mixtures(files: Sequence[Path]) -> None:
    kinds = {path.suffix.lower(): path for path in files}
    if len(kinds) > 1:
        one, other = (path.name for path in list(kinds.values())[:2])
        raise DataError(f"{files[0].parent}: has {one} and {other}, both for one split; move one")


def _listed(found: Dict[str, List]) -> str:
    return ", ".join(f"{len(found[name])} for {name or 'no split'}" for name in sorted(found))
