"""ImageNet 2012 as its makers and Kaggle give it away (Russakovsky et al., arXiv:1409.0575).

The images for validation lie in one folder, or one archive, without a word on their classes. These
are in ``LOC_val_solution.csv`` (Kaggle) or in the development kit (``ILSVRC2012_devkit_t12``),
one of which must be beside them.
"""

import re
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

import numpy as np

from ...errors import DataError
from ...readers.tar_file import read_files
from ...readers.text_file import open_regular, read_lines
from ..dataset import ImageDataset
from .mat_file import MatError, structs

SOLUTION = "LOC_val_solution.csv"
_DEVKIT = "ILSVRC2012_devkit_t12"
_TRUTH, _META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
_INSIDE = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")
_VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})(?:_n\d{8})?$")
_WNID = re.compile(r"n\d{8}$")
_MAX_BYTES = 1 << 24  # meta.mat has 0.7 MB, the ground truth 0.2
_LOOK_ABOVE = 3  # folders from CLS-LOC up to what Kaggle's archive unpacks to

Truth = Dict[str, str]  # classes (WordNet ids) by the names of images without suffix


def folder_of(root: Path) -> Path:
    """The folder with ``train`` and ``val`` in what Kaggle's archive unpacks to, else ``root``."""
    return next((root / name for name in _INSIDE if (root / name).is_dir()), root)


def matches(root: Path) -> bool:
    """Whether ``root`` holds Kaggle's folders, or ``val/`` with images and without classes."""
    folder = folder_of(root)
    return folder != root or _is_flat(folder / "val")


def load_validation(root: Path, extensions: Tuple[str, ...]) -> ImageDataset:
    """The images of ``val/``, by class and name.

    Raises:
        DataError: when their classes are nowhere, or do not cover them.
    """
    folder = folder_of(root) / "val"
    above = (root, *[*folder.parents][: _LOOK_ABOVE + 1]) if folder_of(root) == root else (root,)
    truth = find_truth(above)
    try:
        names = sorted(
            path.name
            for path in folder.iterdir()
            if path.name.lower().endswith(extensions) and path.name[0] != "."
        )
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None
    labelled = sorted((class_of(name, truth, str(folder)), name) for name in names)
    classes = sorted({label for label, _ in labelled})
    position = {label: index for index, label in enumerate(classes)}
    return ImageDataset(
        folder,
        tuple(classes),
        tuple(f"{folder}/{name}" for _, name in labelled),
        np.array([position[label] for label, _ in labelled], np.int32),
    )


def is_validation(name: str) -> bool:
    """Whether this is the name of one of the 50,000 images for validation."""
    return bool(_VAL_NAME.match(Path(name).stem))


def class_of(name: str, truth: Truth, where: str) -> str:
    """An image's class.

    Raises:
        DataError: naming the image, when it has none.
    """
    label = truth.get(Path(name).stem)
    if label is None:
        raise DataError(f"{where}: {Path(name).name!a} is not in ImageNet's list of classes")
    return label


def find_truth(folders: Sequence[Path]) -> Truth:
    """The classes of the images for validation, from the first of ``folders`` that has them.

    Raises:
        DataError: when none has them, or they are damaged.
    """
    for folder in folders:
        solution, kit = folder / SOLUTION, folder / _DEVKIT
        archive = folder / f"{_DEVKIT}.tar.gz"
        if solution.is_file():
            return read_solution(read_lines(solution), str(solution))
        if (kit / "data" / _TRUTH).is_file():
            return _of_kit(_small(kit / "data" / _TRUTH), _small(kit / "data" / _META), kit)
        if archive.is_file():
            return _of_kit(*_packed_kit(archive), archive)
    raise DataError(
        f"{folders[0]}: nothing says the classes of ImageNet's images for validation; put "
        f"{_DEVKIT}.tar.gz or Kaggle's {SOLUTION} beside them"
    )


def read_solution(lines: Sequence[str], where: str) -> Truth:
    """Kaggle's table: an image, then its class and a box, and perhaps more of them.

    Raises:
        DataError: naming the line that is damaged.
    """
    truth: Truth = {}
    for number, line in enumerate(lines, 1):
        image, _, boxes = line.strip().strip('"').partition(",")
        label = boxes.strip('" ').partition(" ")[0]
        if not line.strip() or image == "ImageId":
            continue
        if not (image and _WNID.match(label)):
            raise DataError(f"{where}: line {number} is {line[:40]!a}; expected an image, a class")
        truth[image] = label
    return truth


def _packed_kit(archive: Path) -> Tuple[bytes, bytes]:
    """The two files that matter."""
    inside = [f"{_DEVKIT}/data/{name}" for name in (_TRUTH, _META)]
    files = read_files(archive, lambda name: name.lstrip("./") in inside, _MAX_BYTES)
    found = {name.lstrip("./"): data for name, data in files}
    if len(found) < len(inside):
        raise DataError(f"{archive}: lacks {_TRUTH} or {_META}; download it again")
    return found[inside[0]], found[inside[1]]


def _of_kit(truth: bytes, meta: bytes, where: Path) -> Truth:
    """From a class's number for every image, and the classes' numbers."""
    try:
        wnids = {
            int(each["ILSVRC2012_ID"]): str(each["WNID"])
            for each in structs(meta, "synsets")
            if isinstance(each.get("ILSVRC2012_ID"), (int, float))
        }
    except MatError as error:
        raise DataError(f"{where}: its {_META} cannot be read: {error}") from None
    labels: List[str] = []
    for number, line in enumerate(truth.decode("ascii", "replace").split(), 1):
        wnid = wnids.get(int(line) if line.isdecimal() and len(line) < 6 else 0, "")
        if not _WNID.match(wnid):
            raise DataError(f"{where}: {_TRUTH}: line {number} is {line[:40]!a}, no known class")
        labels.append(wnid)
    return {f"ILSVRC2012_val_{number:08}": wnid for number, wnid in enumerate(labels, 1)}


def _small(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise DataError(f"{path}: has more than {_MAX_BYTES:,} bytes")
        return data
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _is_flat(folder: Path) -> bool:
    """Whether a folder holds images for validation themselves, by the first few of its entries."""
    try:
        entries = folder.iterdir() if folder.is_dir() else iter(())
        return any(is_validation(entry.name) for entry, _ in zip(entries, range(20)))
    except OSError:
        return False
