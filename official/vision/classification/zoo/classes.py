"""Names of classes."""

from functools import lru_cache
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from ..text import printable

_ASSETS = Path(__file__).resolve().parents[3] / "assets"

# A data set's classes in the order of the logits, a line each: the name of its folder, and what it
# is called where that is not the same.
_FILES = {
    "ImageNet-1k": "imagenet1k_classes.txt",
    "CIFAR-10": "cifar10_classes.txt",
    "CIFAR-10 as JPEG": "cifar10_classes.txt",
    "CIFAR-100": "cifar100_classes.txt",
    "CUB-200-2011": "cub200_classes.txt",
}


@lru_cache(maxsize=None)
def class_names(dataset: str) -> Dict[str, str]:
    """Folder name -> what it is called, for a data set's classes, in the order of the logits.

    Folders are named by WordNet ids in ImageNet, and ``001.Black_footed_Albatross`` in CUB.
    """
    lines = (_ASSETS / _FILES[dataset]).read_text(encoding="utf-8").splitlines()
    return {line.split(" ")[0]: line.split(" ")[-1] for line in lines}


def dataset_classes(dataset: str) -> Optional[Tuple[str, ...]]:
    """Folder names of a data set's classes; None for one that is not known here."""
    return tuple(class_names(dataset)) if dataset in _FILES else None


def default_classes(num_classes: int) -> Optional[Tuple[str, ...]]:
    """Folder names of a network's classes where its weights do not tell: ImageNet's for 1,000."""
    return dataset_classes("ImageNet-1k") if num_classes == 1000 else None


def display_names(classes: Optional[Sequence[str]], num_classes: int) -> Tuple[str, ...]:
    """What to call each class: known folder names are translated, nameless classes numbered.

    A name may come from a file of unknown origin, so nothing in it can steer a terminal.
    """
    if classes is None:
        return tuple(f"class_{index}" for index in range(num_classes))
    known = {folder: name for dataset in _FILES for folder, name in class_names(dataset).items()}
    return tuple(known.get(name) or printable(name) for name in classes)


def standard_names(classes: Sequence[str]) -> Tuple[str, ...]:
    """The names that a file has for a data set's classes, as the names of its folders.

    MMPreTrain writes ``tench, Tinca tinca`` for ``n01440764``. A list is a data set's when it has
    as many names and nine in ten of them agree, place by place, in their first words.
    """
    for dataset in _FILES:
        known = class_names(dataset)
        if len(known) == len(classes) and tuple(classes) != tuple(known):
            same = sum(_plain(a) == _plain(b) for a, b in zip(classes, known.values()))
            if same >= 0.9 * len(classes):
                return tuple(known)
    return tuple(classes)


def match_classes(names: Sequence[str], classes: Sequence[str]) -> Optional[List[int]]:
    """Where each of ``names`` is among ``classes``; None where one of them is not.

    A class of a data set that is known here is found by the name of its folder and by what it is
    called (``goldfish`` for ``n01443537``), where no other class is called so.
    """
    index: Dict[str, int] = {}
    for position, called in enumerate(display_names(classes, len(classes))):
        index[called] = -1 if called in index else position  # ImageNet has two cranes
    index.update({name: position for position, name in enumerate(classes)})
    found = [index.get(name, -1) for name in names]
    return None if -1 in found else found


def numbered(names: Sequence[str], count: int) -> bool:
    """Whether ``names`` are the numbers of different classes among ``count``."""
    numbers = {int(name) if name.isdecimal() and len(name) < 10 else -1 for name in names}
    return len(numbers) == len(names) and all(0 <= number < count for number in numbers)


def _plain(name: str) -> str:
    return name.split(",")[0].strip().lower().replace(" ", "_").replace("-", "_")
