"""Which of a network's classes each folder of images shows, by its name or by a class map.

A class map is a YAML or JSON file of ``folder: class``. A class is its number among the logits,
its folder's name in the data set the network was trained on, or what it is called.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple

import numpy as np

from ..data.folder import ImageDataset
from ..errors import DataError, UsageError
from ..readers.yaml_file import read_yaml_file
from ..zoo.classes import match_classes, numbered
from ..zoo.trained import Network

logger = logging.getLogger(__name__)


def label(folder: ImageDataset, network: Network) -> ImageDataset:
    """``folder`` with labels in the order of the network's logits.

    Its classes are found by their names; or they are numbers, which are then those of the
    logits. Failing that, folders in sorted order are taken for the classes where there are
    as many, unless the file names others.

    Raises:
        DataError: when its classes are not the network's.
    """
    classes = network.classes or tuple(map(str, range(network.num_classes)))
    found = match_classes(folder.classes, classes)
    if found is None and numbered(folder.classes, network.num_classes):
        found = [int(name) for name in folder.classes]
        if network.classes:
            logger.warning(
                "%s: its folders are numbers, taken for those of the classes", folder.root
            )
    if found is not None:
        return folder.relabel(classes, found)
    if len(folder.classes) == network.num_classes and network.config.classes_by != "file":
        why = "its folders are not named as the weights' classes (%s, …)"
        known = ", ".join((network.classes or ())[:3])
        if not network.classes:
            why, known = "%s does not name its classes", network.config.source or "the network"
        logger.warning(
            f"%s: {why}; the folders in sorted order are taken for them; --class-map says "
            "otherwise",
            *(folder.root, known),
        )
        return folder
    if network.classes is None:
        raise DataError(
            f"{folder.root}: {len(folder.classes)} class folders, but the weights have "
            f"{network.num_classes} classes; say which is which with --class-map"
        )
    try:
        return folder.relabel(classes)
    except DataError as error:
        raise DataError(f"{error}; say which is which with --class-map") from None


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
