"""Images named in a list: a CSV file, or one of MMPreTrain's.

**CSV**: rows of ``path,label``, or of ``path,label,split``, separated by commas, semicolons or
tabs. A path is relative to the file's folder, or to a folder there (``list_places.py``). The first
row may name the columns, in any order and with others among them. A list without splits is of one
split: that of its name in a folder with ``train.csv`` and ``val.csv``; alone it serves for training
and for testing (see ``splits.py``).

**MMPreTrain** (its ``CustomDataset``, ``ann_file``): rows of ``path label`` in ``meta/train.txt``
and ``meta/val.txt``, with paths below ``train/`` and ``val/`` beside ``meta/``.
"""

import csv
import re
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np

from ...errors import DataError, MissingSplit
from ...readers.text_file import read_lines
from ..dataset import ImageDataset, some, split_name
from ..image import EXTENSIONS
from .list_places import Place, find_place

_COLUMNS = ("path", "label", "split")
# What people call these columns; of several the earlier counts.
_CALLED = {
    "path": (
        *("path", "filename", "image", "file", "filepath", "file_name", "image_path", "img_path"),
        *("image_name", "img", "filepaths", "images", "image_file", "file_path", "image_id"),
        *("img_id", "id_code", "id"),
    ),
    "label": (
        *("label", "class", "category", "class_name", "labels", "target", "label_name", "breed"),
        *("species", "class_id", "diagnosis"),
    ),
    "split": ("split", "subset", "set", "data_set", "partition"),
}
_DELIMITERS = (",", ";", "\t")
_LISTS_OF_MMPRETRAIN = "meta"
_SUBMISSION = "submission"  # in the name of a list whose labels are examples


class _Row(NamedTuple):
    path: str
    label: str
    split: str  # empty where the list has no such column


def is_list(path: Path) -> bool:
    """Whether the file is meant as a list, by its name: any text could be one."""
    return path.suffix.lower() in (".csv", ".tsv", ".txt")


def matches(folder: Path) -> bool:
    """Whether ``folder`` has a list of any split."""
    return bool(_lists(folder))


def has_lists_beside(folder: Path, splits: Sequence[str]) -> bool:
    """Whether ``folder``, which has ``train/`` or the like, has MMPreTrain's list of a split."""
    return any(name in _lists(folder / _LISTS_OF_MMPRETRAIN, "*.txt") for name in splits)


def has_no_splits(path: Path) -> bool:
    """Whether the file is a list that says of no image which split it belongs to."""
    return path.is_file() and is_list(path) and not _read(path)[0].split


def usable_in(folder: Path) -> List[Path]:
    """Lists of images of two classes or more that are there, whatever the lists are called."""
    found = sorted([*folder.glob("*.csv"), *folder.glob("*.tsv")])
    return [path for path in found if _SUBMISSION not in path.name.lower() and _is_usable(path)]


def _is_usable(path: Path) -> bool:
    try:
        rows = _read(path)
    except DataError:
        return False
    return len(_classes(rows)) > 1 and _place_of(path.parent, path, rows).is_sure


def _place_of(root: Path, path: Path, rows: Sequence[_Row]) -> Place:
    """Where in ``root`` the images of a list's rows are; the first row's split comes first."""
    return find_place(root, rows[0].split or _split_of(path), [row.path for row in rows])


def _split_of(path: Path) -> str:
    """What the list's name says: ``train_labels.csv`` is of train."""
    return split_name(re.sub(r"(?i)[\W_]*(labels?|list|annotations?|metadata)$", "", path.stem))


def _lists(folder: Path, pattern: str = "") -> Dict[str, Path]:
    """The lists in a folder by their splits."""
    if not pattern:
        inner = _lists(folder / _LISTS_OF_MMPRETRAIN, "*.txt")
        return {**inner, **_lists(folder, "*.tsv"), **_lists(folder, "*.csv")}
    found = sorted(folder.glob(pattern), reverse=True)
    spelled = {_split_of(path): path for path in found if _split_of(path)}
    return {**spelled, **{path.stem: path for path in found if split_name(path.stem) == path.stem}}


def load(path: Path, splits: Sequence[str]) -> ImageDataset:
    """The images of a split in the order of the list.

    Classes are the labels of all splits of the list in sorted order, by value if all of them are
    numbers.

    Args:
        splits: names to try, in this order.

    Raises:
        DataError: when the list is missing, damaged or empty, or has no such split.
    """
    if path.is_dir():
        lists = _lists(path)
        if not any(name in lists for name in splits) and "train" not in splits:
            raise MissingSplit(f"{path}: has no list {' or '.join(splits)}.csv")
        path = next((lists[name] for name in splits if name in lists), path / f"{splits[0]}.csv")
        rows = _read(path)
        if rows[0].split:
            raise DataError(f"{path}: has a column split; give the list itself with --data")
        return _folder(path, rows, rows)
    rows = _read(path)
    if rows[0].split:
        for name in splits:
            chosen = [row for row in rows if row.split == name]
            if chosen:
                return _folder(path, rows, chosen)
        raise MissingSplit(f"{path}: has no row whose split is {' or '.join(splits)}")
    return _folder(path, rows, rows)


def columns_read(path: Path) -> str:
    """A line on which columns of a list count, where it has others or calls them otherwise."""
    if not path.is_file() or not is_list(path) or _is_mmpretrain(path):
        return ""
    _, first = next(_cells(path), (0, []))
    columns = _columns(first, path)
    others = [name for name, column in zip(first, columns) if not column]
    used = {column: name for name, column in zip(first, columns) if column}
    if not others and all(name.lower() == column for column, name in used.items()):
        return ""
    if not _names_columns(first):
        return ""
    told = ", ".join(f"{column} from {used[column]!a}" for column in _COLUMNS if column in used)
    return f"list: {told}" + (f"; not read: {', '.join(map(ascii, others))}" if others else "")


def place_read(path: Path) -> str:
    """A line on where the images of a list were found, where that is not what it says."""
    if not path.is_file() or not is_list(path) or _is_mmpretrain(path):
        return ""
    rows = _read(path)
    place = _place_of(path.parent, path, rows)
    if place.files:
        return f"list: has names without suffixes, of images in {place.folder}"
    return f"list: its images are in {place.folder}" if place.folder != path.parent else ""


def _folder(path: Path, rows: Sequence[_Row], chosen: Sequence[_Row]) -> ImageDataset:
    root = path.parent
    classes, called = _classes(rows), {}
    if _is_mmpretrain(path):
        root = _root_of_mmpretrain(path, chosen[0].path)
        called = _names_of_mmpretrain(path, rows)
    place = _place_of(root, path, chosen)
    index = {name: position for position, name in enumerate(classes)}
    labels = np.array([index[row.label] for row in chosen], np.int32)
    classes = tuple(called.get(name, name) for name in classes)
    paths = tuple(place.path_of(row.path) for row in chosen)
    images = ImageDataset(path, classes, paths, labels)
    return images.relabel(sorted(classes)) if called else images


def _root_of_mmpretrain(path: Path, image: str) -> Path:
    """The folder below which the images of a list are: the one that has the first of them."""
    above = path.parent.parent if path.parent.name == _LISTS_OF_MMPRETRAIN else path.parent
    split = split_name(path.stem)
    there = sorted(entry for entry in above.iterdir() if split and split_name(entry.name) == split)
    for root in (*there, above, path.parent):
        if (root / image).exists():
            return root
    return there[0] if there else above


def _names_of_mmpretrain(path: Path, rows: Sequence[_Row]) -> Dict[str, str]:
    """What the labels, which are numbers, stand for; nothing where that is not known.

    MMPreTrain numbers the class folders in sorted order. So the names are those of the folders in
    the paths of the training list, where each has one number, or else those in ``train/``.
    """
    if not all(row.label.isdecimal() and len(row.label) < 10 for row in rows):
        return {}
    lists = _lists(path.parent, "*.txt")
    if "train" in lists and split_name(path.stem) and lists["train"] != path:
        rows = [*rows, *_read(lists["train"])]
    pairs = {(row.label, Path(row.path).parent.name) for row in rows if "/" in row.path}
    names = dict(pairs)
    wanted = {row.label for row in rows}
    if len(pairs) == len(names) == len(set(names.values())) and names.keys() == wanted:
        return names
    above = path.parent.parent if path.parent.name == _LISTS_OF_MMPRETRAIN else path.parent
    for entry in sorted(above.iterdir()):
        if split_name(entry.name) == "train" and entry.is_dir():
            folders = sorted(each.name for each in entry.iterdir() if each.is_dir())
            if folders and all(int(label) < len(folders) for label in wanted):
                return {label: folders[int(label)] for label in wanted}
    return {}


def _classes(rows: Sequence[_Row]) -> Tuple[str, ...]:
    names = {row.label for row in rows}
    if all(name.isdecimal() and len(name) < 10 for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _read(path: Path) -> List[_Row]:
    """At least one row.

    Raises:
        DataError: naming the file and the line.
    """
    if _is_mmpretrain(path):
        return _read_mmpretrain(path)
    columns: List[str] = []
    rows: List[_Row] = []
    for line, cells in _cells(path):
        if not columns:
            columns = _columns(cells, path)
            if _names_columns(cells):
                continue
        rows.append(_row(cells, columns, f"{path}: line {line}"))
    if not rows:
        raise DataError(f"{path}: names no image; expected rows of path,label")
    return rows


def _is_mmpretrain(path: Path) -> bool:
    """Whether the file has rows of ``path label``: a text without any delimiter of CSV."""
    if path.suffix.lower() != ".txt":
        return False
    first = next((line for line in read_lines(path) if line.strip()), "")
    return not any(delimiter in first.strip() for delimiter in _DELIMITERS)


def _read_mmpretrain(path: Path) -> List[_Row]:
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        image, _, label = line.strip().rpartition(" ")
        if not image.strip():
            raise DataError(
                f"{path}: line {number} has {line.strip()[:60]!a}; expected a path, a space and "
                "the number of its class"
            )
        rows.append(_Row(image.strip(), label, ""))
    if not rows:
        raise DataError(f"{path}: names no image; expected rows of a path and a class's number")
    return rows


def _cells(path: Path) -> Iterator[Tuple[int, List[str]]]:
    """The rows that are not empty, and the line that each starts on."""
    lines = read_lines(path)
    delimiter = _delimiter(lines)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{path}: line {line} is not CSV: {error}") from None
        if cells is None:
            return
        cells = [cell.strip() for cell in cells]
        if any(cells):
            yield line, cells


def _delimiter(lines: Sequence[str]) -> str:
    """What separates the columns: what makes names of columns of the first row, else two or three.

    The comma comes first: names of classes may have a semicolon in them.
    """
    first = next((line for line in lines if line.strip()), "")
    rows: Dict[str, List[str]] = {}
    for delimiter in _DELIMITERS:
        reader = csv.reader([first], delimiter=delimiter, skipinitialspace=True)
        try:
            rows[delimiter] = next(reader, [])
        except csv.Error:
            continue  # which is said by whoever reads it
    for delimiter, cells in rows.items():
        if _names_columns(cells) and len(cells) > 1:
            return delimiter
    return next((delimiter for delimiter, cells in rows.items() if len(cells) in (2, 3)), ",")


def _called(cell: str) -> str:
    return re.sub(r"[\W_]+", "_", cell.strip().lower())


def _names_columns(first: Sequence[str]) -> bool:
    """Whether a list's first row names its columns: no image is called as one of these."""
    names = [_called(cell) for cell in first]
    if any(name in _CALLED["path"] for name in names):
        return True
    has_image = any(cell.lower().endswith(EXTENSIONS) for cell in first)
    return not has_image and len(first) > 1 and any(name in _CALLED["label"] for name in names)


def _columns(first: Sequence[str], path: Path) -> List[str]:
    """What each column is, "" for others: as the first row names them, or else as usual.

    Raises:
        DataError: when they have names, and these do not say where paths and labels are.
    """
    if not _names_columns(first):
        return list(_COLUMNS[: max(2, len(first))])
    names = [_called(cell) for cell in first]
    columns = [""] * len(first)
    for column, candidates in _CALLED.items():
        name = next((name for name in candidates if name in names), None)
        if name is not None and names.count(name) == 1:
            columns[names.index(name)] = column
    missing = [column for column in ("path", "label") if column not in columns]
    others = [place for place, name in enumerate(names) if name and not columns[place]]
    if len(missing) == len(others) == 1:
        columns[others[0]] = missing.pop()
    if missing:
        raise DataError(
            f"{path}: has columns {some(first)}; expected one each of path, label and maybe "
            "split (also understood: filename, image, file; class, category; subset, set)"
        )
    return columns


def _row(cells: Sequence[str], columns: Sequence[str], where: str) -> _Row:
    values = {column: cell for column, cell in zip(columns, cells) if column}
    if len(cells) != len(columns) or not all(values.values()):
        raise DataError(f"{where} has {some(cells)}; expected {_expected(columns)}")
    split = values.get("split", "")
    if split and not split_name(split):
        raise DataError(f"{where}: split is {split!a}; expected train, val or test")
    return _Row(values["path"], values["label"], split_name(split))


def _expected(columns: Sequence[str]) -> str:
    return ",".join(column or "…" for column in columns)
