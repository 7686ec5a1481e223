"""Which of a network's classes each folder of images shows, where the folders' names do not tell.

A class map is a YAML or JSON file of ``folder: class``. A class is its number among the logits,
its folder's name in the data set the network was trained on, or what it is called.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple

import numpy as np

from ..data.folder import ImageDataset
from ..errors import DataError, UsageError
from ..readers.yaml_file import read_yaml_file


def read_class_map(path: str) -> Dict[str, Any]:
    """Folder names and their classes.

    Raises:
        UsageError: when the file cannot be read, or is not of ``folder: class``.
    """
    try:
        values = read_yaml_file(Path(path))
    except OSError as error:
        raise UsageError(f"--class-map {path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--class-map {path}: not YAML or JSON: {error}") from None
    if not isinstance(values, dict) or not all(type(v) in (int, str) for v in values.values()):
        raise UsageError(
            f"--class-map {path}: expected lines of folder: class, with a class's number or name"
        )
    return values


def apply_class_map(
    folder: ImageDataset,
    class_map: Dict[str, Any],
    classes: Optional[Tuple[str, ...]],
    names: Sequence[str],
) -> ImageDataset:
    """``folder`` with labels that are numbers among the logits.

    Args:
        classes: folder names of the network's classes, None where unknown.
        names: what to call each class.

    Raises:
        DataError: for a folder that is not in the map.
        UsageError: for a class that the network does not have.
    """
    missing = [name for name in folder.classes if name not in class_map]
    if missing:
        raise DataError(
            f"{folder.root}: class folder {missing[0]} is not in the --class-map; add a line for it"
        )
    mapping = [_index(class_map[name], classes or (), names) for name in folder.classes]
    labels = np.array(mapping, np.int32)[folder.labels]
    return replace(folder, classes=tuple(classes or names), labels=labels)


def _index(value: Any, classes: Sequence[str], names: Sequence[str]) -> int:
    if isinstance(value, int):
        if 0 <= value < len(names):
            return value
        raise UsageError(f"--class-map: class {value} is not one of 0 to {len(names) - 1}")
    for known in (classes, names):
        if value in known:
            if list(known).count(value) > 1:  # ImageNet has two cranes
                raise UsageError(f"--class-map: several classes are called {value}; use a number")
            return list(known).index(value)
    few = ", ".join(names[:3])
    raise UsageError(
        f"--class-map: {value!r} is not a class of the network, which has {few}, …, or 0 to "
        f"{len(names) - 1}"
    )


def number_of_classes(wanted: Optional[int], folder: ImageDataset) -> int:
    """How many there are to tell apart.

    Raises:
        UsageError: when it is not the number that is wanted.
    """
    found = len(folder.classes)
    if wanted is not None and wanted != found:
        raise UsageError(f"--num-classes {wanted}: {folder.root} has {found} class folders")
    return found
