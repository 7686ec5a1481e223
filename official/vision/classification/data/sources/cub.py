"""CUB-200-2011 with its official split (Wah et al., Caltech CNS-TR-2011-001).

Its archive unpacks to ``CUB_200_2011``, with the photographs in ``images/`` and four lists beside
it, whose lines start with a number and go on with

* ``classes.txt``: a class's name,
* ``images.txt``: an image's path below ``images/``,
* ``image_class_labels.txt``: the number of that image's class,
* ``train_test_split.txt``: 1 where that image is for training, else 0.
"""

from pathlib import Path
from typing import Dict, Sequence

import numpy as np

from ...errors import DataError
from ...readers.text_file import read_lines
from ..dataset import ImageDataset

_CLASSES, _IMAGES = "classes.txt", "images.txt"
_LABELS, _SPLIT = "image_class_labels.txt", "train_test_split.txt"


def matches(folder: Path) -> bool:
    """Whether ``folder`` is ``CUB_200_2011``, by the lists that no other data set has."""
    return (folder / _LABELS).is_file() or (folder / _SPLIT).is_file()


def load(folder: Path, splits: Sequence[str]) -> ImageDataset:
    """The images of a split in the order of ``images.txt``; classes in that of their numbers.

    Args:
        splits: names of which one will do; this data set has "train" and "test".

    Raises:
        DataError: when a list is missing or damaged, or does not fit the others.
    """
    classes, images = _read(folder / _CLASSES), _read(folder / _IMAGES)
    position = {number: index for index, number in enumerate(sorted(classes))}
    labels = _numbers(folder / _LABELS, images, range(max(classes) + 1))
    is_train = _numbers(folder / _SPLIT, images, range(2))
    unknown = sorted(set(labels.values()) - set(classes))
    if unknown:
        raise DataError(f"{folder / _LABELS}: class {unknown[0]} is not in {_CLASSES}")
    chosen = [number for number in images if is_train[number] == ("train" in splits)]
    if not chosen:
        raise DataError(f"{folder / _SPLIT}: has no image for {splits[-1]}")
    return ImageDataset(
        folder,
        tuple(classes[number] for number in sorted(classes)),
        tuple(f"{folder}/images/{images[number]}" for number in chosen),
        np.array([position[labels[number]] for number in chosen], np.int32),
    )


def _numbers(path: Path, images: Dict[int, str], allowed: range) -> Dict[int, int]:
    """What a list says of each image.

    Raises:
        DataError: when it is not of these images, or says something that is not ``allowed``.
    """
    entries = _read(path)
    lonely = sorted(set(images) ^ set(entries))
    if lonely:
        place = _IMAGES if lonely[0] in entries else path.name
        raise DataError(f"{path.parent / place}: has no image {lonely[0]}; unpack the files again")
    for number, text in entries.items():
        if not (text.isdecimal() and len(text) < 10 and int(text) in allowed):
            raise DataError(
                f"{path}: image {number} has {text[:40]!r}; expected {allowed[0]} to {allowed[-1]}"
            )
    return {number: int(text) for number, text in entries.items()}


def _read(path: Path) -> Dict[int, str]:
    """The text after each number; at least one.

    Raises:
        DataError: naming the file and the line.
    """
    found: Dict[int, str] = {}
    for count, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        number, _, text = line.strip().partition(" ")
        if not (number.isdecimal() and len(number) < 10 and text) or int(number) in found:
            raise DataError(
                f"{path}: line {count} is {line[:40]!r}; expected a number of its own and a text"
            )
        found[int(number)] = text
    if not found:
        raise DataError(f"{path}: is empty; unpack the files again")
    return found
