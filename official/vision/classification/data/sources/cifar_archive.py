"""CIFAR-10 and CIFAR-100 as they are published "for Python" (Krizhevsky, 2009).

https://www.cs.toronto.edu/~kriz/cifar.html describes the archives: pickled dicts of Python 2 that
hold ``data``, (N, 3072) uint8, a row for each image of 32x32 pixels with all its red values before
the green and the blue ones; and a list of labels. They are read as data, and nothing in them runs.
"""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Set, Tuple

import numpy as np

from ...errors import DataError
from ...readers import pickle_data
from ...readers.megengine_pickle import NUMPY_NAMES, Array
from ...readers.tar_file import read_files
from ..dataset import ImageDataset

EDGE = 32  # pixels
MAX_BYTES = 1 << 28  # of one pickle; CIFAR-100's training images have 155 MB

_ANEW = "fetch the archive again"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Published:
    """An archive: which of its files hold what, and the md5 of each."""

    name: str
    folder: str
    url: str
    meta: str  # the file with the names of the classes
    names_key: str  # where they are in it
    labels_key: str  # where the labels are in the other files
    splits: Dict[str, Tuple[str, ...]]
    md5: Dict[str, str]

    def needed(self, split: str) -> Tuple[str, ...]:
        return (self.meta, *self.splits[split])


# The sums are those that torchvision's data sets check.
_CIFAR10 = _Published(
    "CIFAR-10",
    "cifar-10-batches-py",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    "batches.meta",
    "label_names",
    "labels",
    {
        "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
        "test": ("test_batch",),
    },
    {
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
)
_CIFAR100 = _Published(
    "CIFAR-100",
    "cifar-100-python",
    "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    "meta",
    "fine_label_names",
    "fine_labels",
    {"train": ("train",), "test": ("test",)},
    {
        "meta": "7973b15100ade9c7d40fb424638fde48",
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    },
)
_ALL = (_CIFAR10, _CIFAR100)


@dataclass(frozen=True)
class CifarArchive(ImageDataset):
    """Images that are held in memory; ``paths`` name the pickle and the row of each."""

    pixels: np.ndarray  # (N, 32, 32, 3) uint8, BGR

    @property
    def has_files(self) -> bool:
        return False

    def read(self, index: int) -> np.ndarray:
        return self.pixels[index].copy()

    def content(self, index: int) -> bytes:
        return self.pixels[index].tobytes()


def matches(folder: Path) -> bool:
    """Whether ``folder`` is what one of the archives unpacks to."""
    return _unpacked(folder) is not None


def is_ours(name: str) -> bool:
    """Whether an archive with a file of this name is one of CIFAR's."""
    return any(_tail(name) == f"{each.folder}/{file}" for each in _ALL for file in each.md5)


def load(path: Path, splits: Sequence[str]) -> CifarArchive:
    """The images of a split, from an archive or from the folder that it unpacks to.

    Labels are the fine ones of CIFAR-100. A file that differs from the published one is used, with
    a warning.

    Args:
        splits: names of which one will do; these data sets have "train" and "test".

    Raises:
        DataError: when something is missing, damaged, cut short, or not what these archives hold.
    """
    split = "train" if "train" in splits else "test"
    classes: Tuple[str, ...] = ()
    parts: Dict[str, Tuple[np.ndarray, List[object]]] = {}
    changed = []
    for published, name, raw in _pickles(path, split):
        if hashlib.md5(raw).hexdigest() != published.md5[name]:
            changed.append(name)
        pickle = _Pickle(f"{path}: {name}", raw)
        if name == published.meta:
            classes = pickle.names(published.names_key)
        else:
            parts[name] = pickle.pixels(), pickle.items(published.labels_key)
    if changed:
        logger.warning(
            "%s: not as published, by the md5 of %s; if that is not intended, fetch %s again",
            *(path, ", ".join(sorted(changed)), published.url),
        )
    return _joined(path, classes, {name: parts[name] for name in published.splits[split]})


def _joined(
    path: Path, classes: Tuple[str, ...], parts: Dict[str, Tuple[np.ndarray, List[object]]]
) -> CifarArchive:
    for name, (pixels, labels) in parts.items():
        if len(labels) != len(pixels):
            raise DataError(
                f"{path}: {name}: {len(pixels)} images but {len(labels)} labels; {_ANEW}"
            )
        for label in labels:
            if type(label) is not int or not 0 <= label < len(classes):
                found = label if type(label) is int else f"of type {type(label).__name__}"
                raise DataError(
                    f"{path}: {name}: a label is {found}; expected 0 to {len(classes) - 1}; {_ANEW}"
                )
    return CifarArchive(
        path,
        classes,
        tuple(f"{path}: {name}, row {row}" for name in parts for row in range(len(parts[name][1]))),
        np.concatenate([np.array(labels, np.int32) for _, labels in parts.values()]),
        np.concatenate([pixels for pixels, _ in parts.values()]),
    )


class _Pickle:
    """One of the files, whose values are checked as they are asked for.

    Raises:
        DataError: for everything that is not as it should be.
    """

    def __init__(self, where: str, raw: bytes):
        self._where = where
        try:
            value, end = pickle_data.load(raw, NUMPY_NAMES)
        except pickle_data.PickleDataError as error:
            raise DataError(f"{where}: cannot be read: {error}; {_ANEW}") from None
        if not isinstance(value, dict) or end != len(raw):
            raise DataError(f"{where}: is not one pickled dict; {_ANEW}")
        self._values = value

    def items(self, key: str) -> List[object]:
        values = self._values.get(key)
        if not isinstance(values, list) or not values:
            raise DataError(f"{self._where}: has no list of {key}; {_ANEW}")
        return values

    def names(self, key: str) -> Tuple[str, ...]:
        values = self.items(key)
        if not all(isinstance(name, str) and name for name in values):
            raise DataError(f"{self._where}: its {key} are not all text; {_ANEW}")
        if len(set(values)) < len(values):
            raise DataError(f"{self._where}: its {key} name a class twice; {_ANEW}")
        return tuple(values)

    def pixels(self) -> np.ndarray:
        """(N, 32, 32, 3) uint8, BGR."""
        array = self._values.get("data")
        width = 3 * EDGE * EDGE
        try:
            rows = array.to_numpy() if isinstance(array, Array) else np.empty(0)
        except pickle_data.PickleDataError as error:
            raise DataError(f"{self._where}: its data cannot be read: {error}; {_ANEW}") from None
        if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != width:
            raise DataError(f"{self._where}: has no data of {width} bytes per image; {_ANEW}")
        planes = rows.reshape(-1, 3, EDGE, EDGE)
        return np.ascontiguousarray(planes[:, ::-1].transpose(0, 2, 3, 1))


def _pickles(path: Path, split: str) -> Iterator[Tuple[_Published, str, bytes]]:
    """The files of a split, and the one with the names of the classes, in any order."""
    if not path.is_dir():
        return _from_archive(path, split)
    published = _unpacked(path)
    if published is None:
        raise DataError(f"{path}: is not the folder that an archive of CIFAR unpacks to")
    return _from_folder(path, published, split)


def _from_folder(
    folder: Path, published: _Published, split: str
) -> Iterator[Tuple[_Published, str, bytes]]:
    for name in published.needed(split):
        path = folder / name
        try:
            if not path.is_file():
                raise DataError(f"{path}: no such file; unpack {published.url} again")
            if path.stat().st_size > MAX_BYTES:
                raise DataError(f"{path}: has more than {MAX_BYTES:,} bytes; {_ANEW}")
            raw = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        yield published, name, raw


def _from_archive(path: Path, split: str) -> Iterator[Tuple[_Published, str, bytes]]:
    known = {f"{p.folder}/{name}": (p, name) for p in _ALL for name in p.needed(split)}
    found: Set[str] = set()
    published: Optional[_Published] = None
    for member, raw in read_files(path, lambda name: _tail(name) in known, MAX_BYTES):
        this, name = known[_tail(member)]
        published = published or this
        if this is not published:
            raise DataError(f"{path}: holds {published.name} and {this.name}; give one of them")
        if name in found:
            raise DataError(f"{path}: holds more than one {name}; {_ANEW}")
        found.add(name)
        yield this, name, raw
        if len(found) == len(published.needed(split)):
            return
    if published is None:
        raise DataError(
            f"{path}: holds no {split} images of CIFAR; expected cifar-10-python.tar.gz or "
            "cifar-100-python.tar.gz"
        )
    missing = next(name for name in published.needed(split) if name not in found)
    raise DataError(f"{path}: has no {published.folder}/{missing}; fetch {published.url} again")


def _tail(name: str) -> str:
    """The last folder and the file in it, whatever they were packed with."""
    return "/".join(name.split("/")[-2:])


def _unpacked(folder: Path) -> Optional[_Published]:
    """Which archive unpacks to ``folder``, by two of its files: one name alone says little."""
    for published in _ALL:
        if sum((folder / name).is_file() for name in published.md5) > 1:
            return published
    return None
