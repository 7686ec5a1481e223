"""Names of classes."""

from functools import lru_cache
from pathlib import Path
from typing import Dict, Optional, Sequence, Tuple

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
