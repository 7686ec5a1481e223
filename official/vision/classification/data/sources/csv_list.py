"""Images named in a CSV file: rows of ``path,label``, or of ``path,label,split``.

A path is relative to the CSV file's folder. The first row may name the columns, in any order. A
list without splits is of one split: that of its name in a folder with ``train.csv`` and
``val.csv``; alone it serves for testing.
"""

import csv
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np

from ...errors import DataError
from ...readers.text_file import read_lines
from ..dataset import ImageDataset, some, split_name

_COLUMNS = ("path", "label", "split")


class _Row(NamedTuple):
    path: str
    label: str
    split: str  # empty where the list has no such column


def is_list(path: Path) -> bool:
    """Whether the file is meant as a list, by its name: any text could be one."""
    return path.suffix.lower() == ".csv"


def matches(folder: Path) -> bool:
    """Whether ``folder`` has a list of any split."""
    return bool(_lists(folder))


def _lists(folder: Path) -> Dict[str, Path]:
    """The lists in a folder by their splits."""
    found = sorted(folder.glob("*.csv"), reverse=True)
    spelled = {split_name(path.stem): path for path in found if split_name(path.stem)}
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
        raise DataError(f"{path}: has no row whose split is {' or '.join(splits)}")
    if "train" in splits:
        raise DataError(
            f"{path}: has no column split; add one of train and val, or give a folder with "
            "train.csv and val.csv"
        )
    return _folder(path, rows, rows)


def _folder(path: Path, rows: Sequence[_Row], chosen: Sequence[_Row]) -> ImageDataset:
    classes = _classes(rows)
    index = {name: position for position, name in enumerate(classes)}
    root = path.parent
    return ImageDataset(
        path,
        classes,
        tuple(row.path if row.path[0] == "/" else f"{root}/{row.path}" for row in chosen),
        np.array([index[row.label] for row in chosen], np.int32),
    )


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
    columns: List[str] = []
    rows: List[_Row] = []
    for line, cells in _cells(path):
        if not columns:
            columns = _columns(cells, path)
            if columns == [cell.lower() for cell in cells]:
                continue
        rows.append(_row(cells, columns, f"{path}: line {line}"))
    if not rows:
        raise DataError(f"{path}: names no image; expected rows of path,label")
    return rows


def _cells(path: Path) -> Iterator[Tuple[int, List[str]]]:
    """The rows that are not empty, and the line that each starts on."""
    reader = csv.reader(read_lines(path), skipinitialspace=True, strict=True)
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


def _columns(first: Sequence[str], path: Path) -> List[str]:
    """What the columns are: as the first row names them, or else in the usual order."""
    names = [cell.lower() for cell in first]
    if "path" in names and "label" in names:
        if len(set(names)) == len(names) and set(names) <= set(_COLUMNS):
            return names
        raise DataError(f"{path}: has columns {some(first)}; expected path, label and maybe split")
    return list(_COLUMNS[: max(2, len(first))])


def _row(cells: Sequence[str], columns: Sequence[str], where: str) -> _Row:
    if len(cells) != len(columns) or not all(cells):
        raise DataError(f"{where} has {some(cells)}; expected {','.join(columns)}")
    values = dict(zip(columns, cells))
    split = values.get("split", "")
    if split and not split_name(split):
        raise DataError(f"{where}: split is {split!a}; expected train, val or test")
    return _Row(values["path"], values["label"], split_name(split))
